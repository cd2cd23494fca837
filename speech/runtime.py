"""What every model-running stage needs to know of the machine: device, threads, memory errors, loaded models."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from speech.errors import EngineMissing, OutOfMemory
from speech.schema import RuntimeOptions

Model = TypeVar("Model")

_loaded: dict[tuple[Any, ...], Any] = {}
_locks: dict[tuple[Any, ...], threading.Lock] = {}
_guard = threading.Lock()


def load_once(key: tuple[Any, ...], load: Callable[[], Model]) -> Model:
    """The model for `key`, loaded at most once per process, also when several threads ask at the same time."""
    with _guard:
        lock = _locks.setdefault(key, threading.Lock())
    with lock:
        if key not in _loaded:
            _loaded[key] = load()
        model: Model = _loaded[key]
    return model


def unload_all() -> None:
    """Forget every loaded model, so that its memory can be freed."""
    with _guard:
        _loaded.clear()


def cpu_threads(runtime: RuntimeOptions) -> int:
    """Threads for one stage: as asked, or the cores this process may use, shared by the two branches that run at once."""
    if runtime.threads:
        return runtime.threads
    return max(1, available_cores() // 2)


def available_cores() -> int:
    """Cores this process may run on (affinity respected)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def resolve_device(runtime: RuntimeOptions) -> str:
    """`cuda` or `cpu`. CTranslate2 is asked rather than torch, which takes seconds to import."""
    if runtime.device != "auto":
        return runtime.device
    try:
        import ctranslate2
    except ImportError:
        raise EngineMissing("The speech engine is not installed here; install `stenoflow[engine]`.") from None
    return "cuda" if ctranslate2.get_cuda_device_count() > 0 else "cpu"


_OUT_OF_MEMORY = ("out of memory", "failed to allocate memory", "cudaerrormemoryallocation", "bad_alloc", "not enough memory")


@contextlib.contextmanager
def memory_errors_translated(stage: str) -> Iterator[None]:
    """Turn any library's way of saying that memory ran out into OutOfMemory."""
    try:
        yield
    except MemoryError as error:
        raise OutOfMemory(f"Memory ran out during {stage}; a smaller --batch-size or model needs less.") from error
    except RuntimeError as error:
        if any(mark in str(error).lower() for mark in _OUT_OF_MEMORY):
            raise OutOfMemory(f"Memory ran out during {stage}; a smaller --batch-size or model needs less.") from error
        raise
