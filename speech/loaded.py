"""The models that this process has loaded: each once, within a share of the machine's memory.

When a model needs room, those that were used least recently go first. What a stage is using stays, whatever the memory.
"""

from __future__ import annotations

import contextlib
import gc
import os
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from speech.runtime import gpu_gigabytes, memory_errors_translated, memory_limit
from stenoflow.errors import OutOfMemory

Model = TypeVar("Model")
Key = tuple[Any, ...]
Room = Callable[[int], None]
"""What loading a model calls once it knows about how many bytes that will take: it lets go of others."""

SHARE = 0.5
"""Of the memory of the machine, or of its GPU, that loaded models may take. The rest is for what they compute, and for audio."""


@dataclass(eq=False)
class _Kept:
    model: Any
    device: str
    threads: int
    workers: int
    size: int
    users: int = 0
    """Stages at work with it."""

    def serves(self, threads: int, workers: int) -> bool:
        """Whether it need not be loaded again for so many calls at a time; while it is in use, calls wait for one another instead."""
        return self.users > 0 or (self.threads == threads and self.workers >= workers)


_using: ContextVar[list[_Kept] | None] = ContextVar("steno_models_in_use", default=None)


def _share_of_memory(device: str) -> float:
    return SHARE * (memory_limit(Path("/sys/fs/cgroup")) if device == "cpu" else gpu_gigabytes() * 2**30)


class LoadedModels:
    """The models, by weights and device."""

    def __init__(self, limit: Callable[[str], float] = _share_of_memory) -> None:
        self._kept: OrderedDict[Key, _Kept] = OrderedDict()
        """The least recently used first."""
        self._limit = limit
        self._loading: dict[Key, threading.Lock] = {}
        self._guard = threading.Lock()

    def get(self, key: Key, load: Callable[[Room], Model], *, device: str = "cpu", threads: int = 0, workers: int = 1) -> Model:
        """The model for `key`, loaded at most once, also when several threads ask at the same time.

        The same weights for more calls at a time (`workers`), or calls on more `threads`, take the place of those that were loaded
        before.
        """
        with self._guard:
            lock = self._loading.setdefault(key, threading.Lock())
        with lock:
            if (kept := self._found(key, threads, workers)) is None:
                size = 0

                def room(needed: int) -> None:
                    nonlocal size
                    size = needed
                    self._make_room(device, needed)

                kept = _Kept(load(room), device, threads, workers, size)
                with self._guard:
                    self._kept[key] = kept
                    self._use(kept)
        model: Model = kept.model
        return model

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """What is asked for inside the block stays until its end."""
        mine: list[_Kept] = []
        token = _using.set(mine)
        try:
            yield
        finally:
            _using.reset(token)
            with self._guard:
                for kept in mine:
                    kept.users -= 1

    def let_go(self) -> None:
        """Of all that are not in use: memory ran out."""
        with self._guard:
            self._drop([key for key, kept in self._kept.items() if not kept.users])

    def __iter__(self) -> Iterator[Key]:
        """The keys of what is loaded, the least recently used first."""
        with self._guard:
            return iter(list(self._kept))

    def _found(self, key: Key, threads: int, workers: int) -> _Kept | None:
        with self._guard:
            kept = self._kept.get(key)
            if kept is not None and not kept.serves(threads, workers):
                self._drop([key])
                return None
            if kept is not None:
                self._kept.move_to_end(key)
                self._use(kept)
            return kept

    def _make_room(self, device: str, needed: int) -> None:
        with self._guard:
            there = {key: kept for key, kept in self._kept.items() if kept.device == device}
            over = sum(kept.size for kept in there.values()) + needed - self._limit(device) if there else 0.0
            idle = []
            for key, kept in there.items():
                if over > 0 and not kept.users:
                    idle.append(key)
                    over -= kept.size
            self._drop(idle)

    def _use(self, kept: _Kept) -> None:
        mine = _using.get()
        if mine is not None and kept not in mine:
            mine.append(kept)
            kept.users += 1

    def _drop(self, keys: list[Key]) -> None:
        for key in keys:
            del self._kept[key]
        if keys:
            gc.collect()  # networks of torch refer to themselves
            if (torch := sys.modules.get("torch")) is not None and torch.cuda.is_available():
                torch.cuda.empty_cache()


MODELS = LoadedModels()
"""This process's."""


def load_once(key: Key, load: Callable[[Room], Model], *, device: str = "cpu", threads: int = 0, workers: int = 1) -> Model:
    """`MODELS.get`."""
    return MODELS.get(key, load, device=device, threads=threads, workers=workers)


@contextlib.contextmanager
def using_models(stage: str) -> Iterator[None]:
    """While a stage is at work: what it loads stays, and what is idle goes when memory runs out, which arrives as OutOfMemory."""
    with MODELS.in_use():
        try:
            with memory_errors_translated(stage):
                yield
        except OutOfMemory:
            MODELS.let_go()
            raise


def bytes_in(path: Path) -> int:
    """Of a file, or of all files in a folder: about what the weights in it take in memory."""
    files = [path] if path.is_file() else [Path(folder, name) for folder, _, names in os.walk(path) for name in names]
    return sum(file.stat().st_size for file in files)
