"""How many chunks are decoded at once where the request names no number."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from faster_whisper import WhisperModel

from speech import runtime
from speech.asr import memory
from speech.asr.memory import MOST, chunks_at_once, chunks_that_fit, decoder_layers, model_width
from speech.asr.whisper import load_whisper
from speech.models import resolve_asr
from speech.schema import USUAL_BATCH, RuntimeOptions
from speech.weights import weights_folder

LARGE = 1280
GB = 10**9
NO_FILE = Path("model.bin")


@pytest.fixture(scope="module")
def tiny(models_dir: Path, runtime: RuntimeOptions) -> WhisperModel:
    resolved = resolve_asr("tiny.en", "en", models_dir=models_dir, offline=True)
    return load_whisper(resolved, models_dir, runtime).model


def test_a_gpu_takes_what_its_free_memory_holds() -> None:
    fitting = [chunks_that_fit(free * GB, LARGE, 32, beam_size=5) for free in (0, 1, 5, 10, 20, 140)]
    assert fitting == sorted(fitting)
    assert (fitting[0], fitting[-1]) == (1, MOST)
    # faster-whisper's large-v2 in half precision decodes batches of eight with a beam of five in 6 GB, of which its weights are 3
    # (its README's table): the estimate is of the longest texts, and must not be far above that.
    assert 3 <= fitting[2] <= 8
    assert [size % USUAL_BATCH for size in fitting if size > USUAL_BATCH] == [0, 0], "shards fill them"


def test_smaller_models_and_beams_leave_room_for_more_and_wider_numbers_for_less() -> None:
    def fitting(width: int = 768, beam_size: int = 5, value_bytes: int = 2, layers: int = 12) -> int:
        return chunks_that_fit(4 * GB, width, layers, beam_size, value_bytes)

    assert fitting(LARGE) < fitting(1024) < fitting(512)
    assert fitting(1024, beam_size=5, layers=24) < fitting(1024, beam_size=1, layers=24)
    assert fitting(1024, value_bytes=4) < fitting(1024, value_bytes=2)
    assert fitting(layers=32) < fitting(layers=12)


def test_turbo_has_a_shallow_decoder_and_fits_many_times_as_often() -> None:
    free_on_an_l4 = 21 * GB
    assert chunks_that_fit(free_on_an_l4, LARGE, 4, beam_size=5) == 56
    assert chunks_that_fit(free_on_an_l4, LARGE, 32, beam_size=5) == 16


def test_the_depth_is_read_from_the_weights(models_dir: Path) -> None:
    for name, layers in (("tiny.en", 4), ("base", 6)):
        resolved = resolve_asr(name, "en", models_dir=models_dir, offline=True)
        assert decoder_layers(weights_folder(resolved, models_dir) / "model.bin") == layers


def test_the_width_is_asked_of_the_model(tiny: WhisperModel) -> None:
    assert model_width(tiny) == 384


def test_a_cpu_takes_the_usual_batch(tiny: WhisperModel) -> None:
    assert chunks_at_once(tiny, NO_FILE, {}, beam_size=5) == USUAL_BATCH


def test_memory_is_looked_at_once_while_none_is_held(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The loaded model as it would be on a GPU, and a GPU whose memory the first recording fills."""
    free = iter([2 * GB, 0])
    monkeypatch.setattr(memory, "gpu_free_bytes", lambda: next(free))
    monkeypatch.setattr(memory, "decoder_layers", lambda weights: 4)
    known: dict[int, int] = {}
    monkeypatch.setattr(memory, "model_width", lambda model: 384)
    on_gpu = SimpleNamespace(model=SimpleNamespace(device="cuda", compute_type="float16"))
    first, second = (chunks_at_once(on_gpu, NO_FILE, known, beam_size=5) for _ in range(2))  # type: ignore[arg-type]
    assert first == second == chunks_that_fit(2 * GB, 384, 4, 5) > USUAL_BATCH
    assert chunks_at_once(on_gpu, NO_FILE, known, beam_size=5, workers=2) == first // 2  # type: ignore[arg-type]


def test_the_driver_is_asked_for_memory_and_not_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU's tool on the path, which answers for the first GPU that this process may use."""
    tool = tmp_path / "nvidia-smi"
    tool.write_text(
        '#!/bin/sh\ncase "$*" in *memory.free*--id=1*) echo 2048;; *memory.total*--id=1*) echo 24576;; *) exit 1;; esac\n'
    )
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,0")
    assert runtime.gpu_free_bytes() == 2 << 30
    assert runtime.gpu_gigabytes() == 24
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert runtime.gpu_free_bytes() == 0
