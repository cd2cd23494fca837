"""What feeds a GPU: order, errors and an early end are those of a loop, whatever is done beside it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from itertools import chain

import pytest

from speech.pieces import Pieces
from speech.pipelined import pipelined


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_results_come_in_order(device: str) -> None:
    assert list(pipelined(range(50), lambda item: 2 * item, str, device)) == [str(2 * item) for item in range(50)]
    assert list(pipelined([], lambda item: item, str, device)) == []


def test_what_comes_next_is_prepared_while_a_gpu_computes() -> None:
    """The first two batches wait for one another: without a thread ahead, and one behind, neither would go on."""
    prepared, finished = threading.Event(), threading.Event()
    threads = set()

    def inputs() -> Iterator[int]:
        yield 0
        prepared.set()
        yield 1

    def compute(item: int) -> int:
        threads.add(threading.get_ident())
        assert (prepared, finished)[item].wait(20)
        return item

    def finish(item: int) -> int:
        finished.set()
        return item

    assert list(pipelined(inputs(), compute, finish, "cuda")) == [0, 1]
    assert threads == {threading.get_ident()}


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("where", ["inputs", "compute", "finish"])
def test_an_error_anywhere_is_the_callers(device: str, where: str) -> None:
    def failing(step: str, item: int) -> int:
        if step == where and item == 3:
            raise ValueError(step)
        return item

    inputs = (failing("inputs", item) for item in range(9))
    found = pipelined(inputs, lambda item: failing("compute", item), lambda item: failing("finish", item), device)
    results: list[int] = []
    with pytest.raises(ValueError, match=where):
        results.extend(found)
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith(("prepare", "finish"))]


def test_nothing_more_is_prepared_once_the_results_are_not_taken() -> None:
    taken = []

    def inputs() -> Iterator[int]:
        for item in range(100):
            taken.append(item)
            yield item

    results = pipelined(inputs(), lambda item: item, lambda item: item, "cuda")
    assert next(results) == 0
    results.close()  # type: ignore[attr-defined]
    assert len(taken) < 10
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith(("prepare", "finish"))]


def test_a_batch_that_memory_does_not_hold_is_computed_in_parts() -> None:
    sizes = []

    def compute(part: list[int]) -> list[int]:
        sizes.append(len(part))
        if len(part) > 3:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return part

    pieces = Pieces("cpu")
    assert list(chain.from_iterable(pieces.each(list(range(20)), compute))) == list(range(20))
    del sizes[:]
    assert list(chain.from_iterable(pieces.each(list(range(7)), compute))) == list(range(7))
    assert max(sizes) <= 3, "what was too much is not tried again"


def test_a_single_item_that_memory_does_not_hold_is_an_error() -> None:
    def compute(part: list[int]) -> list[int]:
        raise RuntimeError("CUDA out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        Pieces("cpu").each([1, 2, 3, 4], compute)
    with pytest.raises(ValueError, match="something else"):
        Pieces("cpu").each([1, 2], lambda part: (_ for _ in ()).throw(ValueError("something else")))
