"""The CUDA libraries that CTranslate2 opens by name, found where pip put them.

CTranslate2 4.8 opens `libcublas.so.12` when it first multiplies on a GPU. The wheels keep it below site-packages, where the loader
does not look, so that it was found only in a process that had imported torch before. `load` opens the wheels' files by their paths:
from then on the loader knows them by name. `speech.runtime.resolve_device` calls it wherever a GPU is used.

`python -m speech.cuda` checks that in a process of its own. It also runs as a file, copied into an image while that is built
(`infra.on_modal.image`), so it imports nothing of this project.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.metadata
import json
import sys

LIBRARIES = {
    "libcublasLt.so.12": "nvidia-cublas-cu12",
    "libcublas.so.12": "nvidia-cublas-cu12",
    "libcudnn.so.9": "nvidia-cudnn-cu12",
}
"""Each with the wheel that brings it; a library comes after what it needs itself."""


@functools.cache
def load() -> tuple[str, ...]:
    """Open the libraries for this process, once; the names of those that neither a wheel nor the system has."""
    return tuple(name for name, wheel in LIBRARIES.items() if not (_opens(_path(name, wheel)) or _opens(name)))


def _path(name: str, wheel: str) -> str:
    """Where pip's records say the library is; empty if the wheel is not installed."""
    try:
        files = importlib.metadata.files(wheel) or ()
    except importlib.metadata.PackageNotFoundError:
        return ""
    return next((str(file.locate()) for file in files if file.name == name), "")


def _opens(path: str) -> bool:
    try:
        return bool(path) and bool(ctypes.CDLL(path))
    except OSError:
        return False


def check() -> dict[str, str]:
    """Versions of what is loaded. SystemExit if a library is not found without torch, or torch loads another cuDNN than is pinned."""
    if absent := load():
        sys.exit(
            f"Not found: {', '.join(absent)}. Do the locked requirements hold {', '.join(sorted(set(LIBRARIES.values())))}?"
        )
    import ctranslate2

    for name in LIBRARIES:
        ctypes.CDLL(name)  # by name, as CTranslate2 does
    if "torch" in sys.modules:
        sys.exit("torch was imported before the check, which hides what CTranslate2 does not find by itself.")
    import torch

    pinned = importlib.metadata.version("nvidia-cudnn-cu12")
    loaded: int = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
    major, minor, patch = (int(part) for part in pinned.split(".")[:3])
    if loaded != major * 10_000 + minor * 100 + patch:
        sys.exit(f"torch loads cuDNN {loaded}, but nvidia-cudnn-cu12 {pinned} is pinned; lock the requirements again.")
    return {"torch": str(torch.__version__), "cudnn": pinned, "ctranslate2": str(ctranslate2.__version__)}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(check()) + "\n")
