"""How much of a batch a GPU's memory holds at once: found from what one item takes, and halved when it was too much all the same."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol, TypeVar

from speech.runtime import is_out_of_memory

Result = TypeVar("Result")

SHARE = 0.5
"""Of the memory that is free when a network first computes. The rest is for the networks beside it, and for what grows."""


class Batch(Protocol):
    def __len__(self) -> int: ...

    def __getitem__(self, part: slice) -> Any: ...


class Pieces:
    """Of one network in PyTorch; it may be used by several threads."""

    def __init__(self, device: str) -> None:
        self._device = device
        self.most: int | None = None
        """Items at once; None until the first were computed."""

    def each(self, batch: Batch, compute: Callable[[Any], Result]) -> list[Result]:
        """`compute` of the batch, or of its parts in order. An error that memory ran out is raised only for a single item."""
        results: list[Result] = []
        done = 0
        while done < len(batch):
            run = compute if self.most else partial(self._measured, compute)
            size = min(self.most or 1, len(batch) - done)
            try:
                results.append(run(batch[done : done + size]))
            except Exception as error:
                if size == 1 or not is_out_of_memory(error):
                    raise
                self.most = size // 2
            else:
                done += size
                continue
            self._empty_cache()  # outside of the handler, whose traceback holds the tensors
        return results

    def _measured(self, compute: Callable[[Any], Result], item: Any) -> Result:
        """Compute one item, and see what it took of the memory."""
        if self._device == "cpu":
            self.most = 1 << 30
            return compute(item)
        import torch

        free, before = torch.cuda.mem_get_info()[0], torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        result = compute(item)
        taken = max(torch.cuda.max_memory_allocated() - before, 1)
        self.most = max(1, int(SHARE * free / taken))
        return result

    def _empty_cache(self) -> None:
        if self._device != "cpu":
            import torch

            torch.cuda.empty_cache()
