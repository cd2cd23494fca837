"""CTranslate2's CUDA libraries are found without torch, wherever a GPU is used; each check in a process of its own."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path

import pytest

from speech import cuda
from stenoflow.cli import doctor

ROOT = Path(__file__).parents[2]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


def test_a_stage_that_did_not_import_torch_finds_cublas_by_name() -> None:
    """A recording whose segmentation is reused: the first thing that runs is CTranslate2, which opens the library by this name."""
    by_name = "import ctypes, sys; {}; ctypes.CDLL('libcublas.so.12'); assert 'torch' not in sys.modules"
    assert "cannot open shared object file" in run("-c", by_name.format("import ctranslate2")).stderr
    chosen = "from speech.runtime import resolve_device; from speech.schema import RuntimeOptions; resolve_device(RuntimeOptions(device='cuda'))"
    done = run("-c", by_name.format(chosen))
    assert done.returncode == 0, done.stderr


def test_the_models_check_of_a_container_runs_ctranslate2_without_torch(models_dir: Path) -> None:
    done = run("-c", "import sys; from infra.on_modal.smoke import _encoder; _encoder(); assert 'torch' not in sys.modules")
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_the_images_check_passes_where_the_lock_file_is_installed() -> None:
    """This very environment is made from the same lock file; the file runs alone, as in an image that is being built."""
    done = run("-I", str(cuda.__file__))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["cudnn"] == importlib.metadata.version("nvidia-cudnn-cu12")


def test_the_images_check_fails_on_a_library_that_only_torch_would_find() -> None:
    """Torch finds its libraries by itself: imported first, it would have the check pass."""
    without = "import sys; sys.argv = ['cuda']; from speech import cuda; cuda.LIBRARIES['libcublas.so.12'] = 'no-such-wheel'; cuda.check()"
    done = run("-c", without)
    assert done.returncode == 1
    assert done.stderr.startswith("Not found: libcublas.so.12.")
    done = run("-c", "import torch; from speech import cuda; cuda.check()")
    assert done.returncode == 1
    assert "torch was imported before the check" in done.stderr


def test_doctor_names_a_library_that_is_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor.check_cuda_libraries().verdict == "ok"
    monkeypatch.setattr(cuda, "LIBRARIES", {**cuda.LIBRARIES, "libnothing.so.12": "nvidia-cublas-cu12"})
    cuda.load.cache_clear()
    found = doctor.check_cuda_libraries()
    cuda.load.cache_clear()
    assert (found.verdict, found.finding) == ("missing", "could not be loaded: libnothing.so.12")
