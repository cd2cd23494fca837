"""Keeping a GPU busy: what it works on next is prepared, and what it answered is finished, in threads beside the one that feeds it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

Input = TypeVar("Input")
Answer = TypeVar("Answer")
Result = TypeVar("Result")

_DEPTH = 2
"""Inputs that are ready ahead, and answers that may wait to be finished."""


def pipelined(
    inputs: Iterable[Input], compute: Callable[[Input], Answer], finish: Callable[[Answer], Result], device: str
) -> Iterator[Result]:
    """`finish(compute(item))` of each input, in order. `compute` runs in the calling thread.

    On a GPU, one thread iterates over the inputs a little ahead and another finishes the answers. On a CPU, whose cores the networks
    fill, all is done in turn. Nothing more is prepared once the results are no longer taken, or something fails.
    """
    if device == "cpu":
        for item in inputs:
            yield finish(compute(item))
        return
    coming, end = iter(inputs), object()
    before, after = (ThreadPoolExecutor(1, thread_name_prefix=name) for name in ("prepare", "finish"))
    try:
        ready: deque[Future[Any]] = deque(before.submit(next, coming, end) for _ in range(_DEPTH))
        unfinished: deque[Future[Result]] = deque()
        while (item := ready.popleft().result()) is not end:
            ready.append(before.submit(next, coming, end))
            unfinished.append(after.submit(finish, compute(item)))
            if len(unfinished) > _DEPTH:
                yield unfinished.popleft().result()
        while unfinished:
            yield unfinished.popleft().result()
    finally:
        before.shutdown(cancel_futures=True)
        after.shutdown(cancel_futures=True)
