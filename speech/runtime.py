"""What every model-running stage needs to know of the machine: device, threads, memory and the errors when it runs out."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from speech import cuda
from speech.registry import ENGINES
from speech.schema import RuntimeOptions
from stenoflow.errors import EngineMissing, OutOfMemory, StenoError


def cpu_threads(runtime: RuntimeOptions, *, beside: bool = False) -> int:
    """Threads for one stage: as asked, or the cores this process may use; half of them for what runs `beside` the words.

    The branch of the words takes several times as long as that of the speakers, and is alone for most of that time.
    """
    if runtime.threads:
        return runtime.threads
    return max(1, available_cores() // 2) if beside else available_cores()


def available_cores() -> int:
    """Cores this process may use: affinity and the container's CPU quota respected."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, cpu_quota(Path("/sys/fs/cgroup")) or cores))


def cpu_quota(cgroup: Path) -> int | None:
    """Whole cores that a container's limit (`docker run --cpus`) leaves, from cgroup v2 or v1; None without a limit."""
    try:
        if (cgroup / "cpu.max").exists():
            quota, period = (cgroup / "cpu.max").read_text().split()
        else:
            quota, period = ((cgroup / "cpu" / f"cpu.cfs_{name}_us").read_text().strip() for name in ("quota", "period"))
        return max(1, int(quota) // int(period)) if int(quota) > 0 else None
    except (OSError, ValueError):  # no such files, or `max`
        return None


def memory_limit(cgroup: Path) -> float:
    """Bytes of memory of this machine, or of what a container's limit (`docker run --memory`, cgroup v2 or v1) leaves of it."""
    memory = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):  # no such file, or `max`
            memory = min(memory, float((cgroup / name).read_text()))
    return memory


def resolve_device(runtime: RuntimeOptions) -> str:
    """`cuda` or `cpu`; `auto` is a GPU where there is one and the extra `gpu` is installed. Of `cuda`, the libraries are then loaded.

    CTranslate2 looks for it rather than torch, which takes seconds to import. Raises EngineMissing for `cuda` without the extra.
    """
    if runtime.device == "cuda" and not has_gpu_extra():
        raise not_installed(["torch"], "gpu")
    device = runtime.device if runtime.device != "auto" else "cuda" if sees_gpu() and has_gpu_extra() else "cpu"
    if device == "cuda":
        cuda.load()
    return device


def sees_gpu() -> bool:
    """Whether CTranslate2 finds a GPU. Raises EngineMissing without CTranslate2."""
    try:
        import ctranslate2
    except ImportError:
        raise not_installed(["ctranslate2"], "cpu") from None
    return bool(ctranslate2.get_cuda_device_count() > 0)


def has_gpu_extra() -> bool:
    """Whether torch is installed, whose CUDA libraries CTranslate2 uses as well."""
    return importlib.util.find_spec("torch") is not None


def log_errors_only(*libraries: str) -> None:
    """Of libraries that print their log themselves, whatever the terminal is for."""
    for name in libraries:
        logging.getLogger(name).setLevel(logging.ERROR)


def install(extra: str) -> str:
    """The command that brings an extra."""
    return f'pip install "stenoflow[{extra}]"'


def not_installed(packages: Sequence[str], extra: str) -> EngineMissing:
    """The error where packages of an extra are missing."""
    return EngineMissing(f"Not installed here: {', '.join(packages)}", cure=f"`{install(extra)}`")


def gpu_gigabytes() -> float:
    """Memory of the first GPU that this process may use, in GiB; 0 if unknown."""
    return _gpu_mebibytes("memory.total") / 1024


def gpu_free_bytes() -> int:
    """Free memory of that GPU; 0 if unknown."""
    return int(_gpu_mebibytes("memory.free")) << 20


def _gpu_mebibytes(quantity: str) -> float:
    """As its driver's tool reports it: torch would take seconds to import."""
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0].strip()
    command = ["nvidia-smi", f"--query-gpu={quantity}", "--format=csv,noheader,nounits", *([f"--id={first}"] if first else [])]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout
        return float(said.split("\n")[0])
    except (OSError, ValueError, subprocess.SubprocessError):
        return 0.0


def whisper_compute_type(device: str, asked: str) -> str:
    """The compute type for CTranslate2: int8 on a CPU and float16 on a GPU by default."""
    return asked if asked != "auto" else ("int8" if device == "cpu" else "float16")


def arithmetic(engine: str | None, device: str, compute_type: str) -> str:
    """What an engine's networks compute on and in, where that changes their results; empty for what a CPU does by default, and for
    what has no network.

    Empty is what every key of a stage was made with before there was a word for it, so those results stay found.
    """
    if engine == "whisper":
        effective = whisper_compute_type(device, compute_type)
        return "" if (device, effective) in _USUAL else f"{device} {effective}"
    on_gpu = ENGINES[engine].on_gpu if engine else ""
    return f"{device} {on_gpu}" if on_gpu and device != "cpu" else ""


_USUAL = {("cpu", "int8"), ("cpu", "int8_float32")}
"""The same: CTranslate2 multiplies in 8 bits and keeps the rest in 32."""


_OUT_OF_MEMORY = (
    "out of memory",
    "failed to allocate memory",
    "cannot allocate memory",
    "cudaerrormemoryallocation",
    "alloc_failed",
    "bad_alloc",
    "not enough memory",
)


def is_out_of_memory(error: Exception) -> bool:
    """Whether it is a library's way of saying that memory ran out."""
    return isinstance(error, MemoryError) or any(mark in str(error).lower() for mark in _OUT_OF_MEMORY)


@contextlib.contextmanager
def memory_errors_translated(stage: str) -> Iterator[None]:
    """Turn such an error into OutOfMemory."""
    try:
        yield
    except StenoError:
        raise
    except Exception as error:  # ONNX Runtime's errors have no base but Exception
        if is_out_of_memory(error):
            raise OutOfMemory(f"Memory ran out during {stage}", cure="use a smaller --batch-size or model") from error
        raise
