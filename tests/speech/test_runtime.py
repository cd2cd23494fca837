"""What every stage needs to know of the machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from speech import runtime
from speech.asr.whisper import batches_at_once
from speech.runtime import cpu_quota, cpu_threads, memory_errors_translated, memory_limit, resolve_device
from speech.schema import RuntimeOptions
from stenoflow.errors import EngineMissing, GatedModel, OutOfMemory, Retry


class RunsOut(Exception):
    """ONNX Runtime's errors have no base but Exception."""


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB"),
        RuntimeError("CUDA failed with error out of memory"),
        RuntimeError("cuBLAS failed with status CUBLAS_STATUS_ALLOC_FAILED"),
        RuntimeError("std::bad_alloc"),
        RunsOut("[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Failed to allocate memory for requested buffer of size 4096"),
        OSError(12, "Cannot allocate memory"),
    ],
    ids=["python", "torch", "ctranslate2", "cublas", "c++", "onnx", "system"],
)
def test_running_out_of_memory_is_one_error(error: Exception) -> None:
    says = "during asr; use a smaller --batch-size or model"
    with pytest.raises(OutOfMemory, match=says) as caught, memory_errors_translated("asr"):
        raise error
    assert caught.value.retry is Retry.SMALLER
    assert caught.value.__cause__ is error


@pytest.mark.parametrize(
    "error", [RuntimeError("shapes differ"), KeyError("x"), GatedModel("out of memory is not what this says")]
)
def test_other_errors_stay_what_they_are(error: Exception) -> None:
    with pytest.raises(type(error)) as caught, memory_errors_translated("asr"):
        raise error
    assert caught.value is error


def test_threads_are_what_was_asked_for_or_the_cores_or_half_of_them_beside_the_words(monkeypatch: pytest.MonkeyPatch) -> None:
    assert cpu_threads(RuntimeOptions(threads=3)) == cpu_threads(RuntimeOptions(threads=3), beside=True) == 3
    monkeypatch.setattr(runtime, "available_cores", lambda: 8)
    assert cpu_threads(RuntimeOptions()) == 8
    assert cpu_threads(RuntimeOptions(), beside=True) == 4
    monkeypatch.setattr(runtime, "available_cores", lambda: 1)
    assert cpu_threads(RuntimeOptions(), beside=True) == 1


@pytest.mark.parametrize(
    ("options", "cores", "at_once"),
    [
        ({"device": "cpu"}, 1, 1),
        ({"device": "cpu"}, 2, 2),
        ({"device": "cpu"}, 16, 4),
        ({"device": "cpu", "threads": 3}, 16, 3),
        ({"device": "cpu", "workers": 2}, 16, 1),
        ({"device": "cuda"}, 16, 1),
    ],
)
def test_batches_are_decoded_beside_each_other_on_the_cores_there_are(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], cores: int, at_once: int
) -> None:
    monkeypatch.setattr(runtime, "available_cores", lambda: cores)
    assert batches_at_once(RuntimeOptions(**options)) == at_once


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"cpu.max": "200000 100000\n"}, 2),
        ({"cpu.max": "50000 100000\n"}, 1),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "400000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 4),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({}, None),
    ],
)
def test_a_containers_share_of_the_cpu_is_respected(tmp_path: Path, files: dict[str, str], cores: int | None) -> None:
    (tmp_path / "cpu").mkdir()
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert cpu_quota(tmp_path) == cores


def test_the_device_asked_for_is_taken() -> None:
    assert resolve_device(RuntimeOptions(device="cpu")) == "cpu"
    assert resolve_device(RuntimeOptions()) in ("cpu", "cuda")


@pytest.mark.parametrize(
    ("file", "content", "limit"),
    [
        ("memory.max", "1048576\n", 2**20),
        ("memory.max", "max\n", None),
        ("memory/memory.limit_in_bytes", "2097152\n", 2**21),
        ("memory/memory.limit_in_bytes", "9223372036854771712\n", None),
        ("other", "", None),
    ],
)
def test_a_containers_memory_is_what_its_limit_leaves(tmp_path: Path, file: str, content: str, limit: int | None) -> None:
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text(content)
    machine = memory_limit(tmp_path / "nowhere")
    assert machine > 2**26
    assert memory_limit(tmp_path) == (limit or machine)


def test_a_gpu_is_used_only_with_what_runs_on_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("speech.runtime.sees_gpu", lambda: True)
    assert resolve_device(RuntimeOptions()) == "cuda"
    monkeypatch.setattr("speech.runtime.has_gpu_extra", lambda: False)
    assert resolve_device(RuntimeOptions()) == "cpu"
    with pytest.raises(EngineMissing, match=r'torch; `pip install "stenoflow\[gpu\]"`'):
        resolve_device(RuntimeOptions(device="cuda"))
