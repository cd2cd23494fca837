"""Registers and checks the CUDA libraries of an image. Copied into it and run there, so it imports nothing of this project.

CTranslate2 opens `libcublas.so.12` by name when it first needs it, and torch its own cuDNN; both come as wheels that put their
libraries below site-packages, where the loader does not look. `register` asks pip's metadata where they are, for whatever
Python runs it, and tells the loader. Then `check`, in a new process, fails the build when what is loaded is not what was pinned.
"""

import ctypes
import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path

CONFIG = Path("/etc/ld.so.conf.d/stenoflow.conf")
WHEELS = ("nvidia-cublas-cu12", "nvidia-cudnn-cu12")
LOADED = ("libcublas.so.12", "libcublasLt.so.12", "libcudnn.so.9")


def folders() -> list[str]:
    """Where pip put the shared libraries of the wheels."""
    found = set()
    for wheel in WHEELS:
        for file in importlib.metadata.files(wheel) or ():
            if ".so" in file.name:
                found.add(str(Path(str(file.locate())).parent))
    if not found:
        sys.exit(f"None of {', '.join(WHEELS)} holds a shared library here; is the lock file that of Linux?")
    return sorted(found)


def register() -> None:
    CONFIG.write_text("".join(f"{folder}\n" for folder in folders()))
    subprocess.run(["ldconfig"], check=True)


def check() -> dict[str, object]:
    """Versions of what is really loaded; SystemExit when it is not what the lock file pins."""
    import torch  # before CTranslate2, so that a library that both use is torch's

    pinned = importlib.metadata.version("nvidia-cudnn-cu12")
    loaded: int = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
    major, minor, patch = (int(part) for part in pinned.split(".")[:3])
    if loaded != major * 10_000 + minor * 100 + patch:
        sys.exit(f"torch loads cuDNN {loaded}, but nvidia-cudnn-cu12 {pinned} is pinned; lock the requirements again.")
    for name in LOADED:
        ctypes.CDLL(name)
    import ctranslate2

    return {"torch": str(torch.__version__), "cudnn": pinned, "ctranslate2": str(ctranslate2.__version__)}


if __name__ == "__main__":
    if sys.argv[1:] == ["register"]:
        register()
    else:
        sys.stdout.write(json.dumps(check()) + "\n")
