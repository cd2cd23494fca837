"""What the GPU's benchmark prints follows from what it measured, on weights that are what they stand for."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench import shapes
from bench.gpu import price, table
from infra.prices import CORE_SECOND, GIB_SECOND, GPU_SECOND
from infra.settings import ModalSettings


def test_a_stage_is_printed_with_its_pace_what_the_gpu_waited_and_its_price() -> None:
    row = {"whisper": "large-v3", "system": "stenoflow", "name": "asr", "seconds": 6.0, "cpu_seconds": 1.5}
    gpu = {"busy": 75.0, "gigabytes": 9.96, "batch": 64}
    loading = {**row, "name": "load models", "seconds": 20.0}
    _, _, asr, load, here = table([{**row, **gpu}, {**loading, **gpu}, row], 1800.0, 0.001).splitlines()
    assert asr == "| large-v3 | stenoflow | asr | 6.00 | 300.0 | 1.50 | 1.50 | 10.0 | 64 | $0.0120 |"
    assert load == "| large-v3 | stenoflow | load models | 20.00 | – | 1.50 | 5.00 | 10.0 | 64 | – |"
    assert here == "| large-v3 | stenoflow | asr | 6.00 | 300.0 | 1.50 | – | – | – | $0.0120 |"


def test_a_gpu_is_priced_with_the_cores_and_memory_of_its_container() -> None:
    modal = ModalSettings()
    rest = modal.cpu * CORE_SECOND + modal.memory / 1024 * GIB_SECOND
    assert price("NVIDIA H200") == pytest.approx(GPU_SECOND["H200"] + rest)
    assert price("a rehearsal on a CPU") is None


class Model:
    """CTranslate2's, as far as it is called."""

    def __init__(self) -> None:
        self.asked: dict[str, Any] = {}
        self.aligned = 0

    def generate(self, features: Any, prompts: Any, **options: Any) -> list[Any]:
        self.asked = options
        return [SimpleNamespace(sequences_ids=[[7]], scores=[-9.0], no_speech_prob=0.9) for _ in prompts]

    def align(self, *_: Any, **__: Any) -> list[Any]:
        self.aligned += 1
        return []


def test_the_decoder_writes_as_much_as_is_said_and_ends_there() -> None:
    model = Model()
    forced = shapes.Forced(model, end=50, said=[1, 2, 3])
    found = forced.generate(None, [[0], [0]], suppress_tokens=[-1], max_length=448, beam_size=5)
    assert model.asked == {"suppress_tokens": [-1, 50], "max_length": 6, "beam_size": 5}
    assert [each.sequences_ids for each in found] == [[[1, 2, 3]], [[1, 2, 3]]]


def test_each_token_is_given_as_long_and_the_work_of_aligning_is_done() -> None:
    model = Model()
    [aligned] = shapes.Forced(model, end=50, said=[1, 2, 3]).align(None, [0], [[1, 2, 3]], [3000])
    assert model.aligned == 1
    assert len(aligned.text_token_probs) == 3
    assert [sum(token == each for token, _ in aligned.alignments) for each in range(4)] == [375] * 4
    assert [frame for _, frame in aligned.alignments] == list(range(1500))


@pytest.mark.slow
def test_whisper_of_a_shape_is_read_and_decodes_the_tokens_that_it_is_to(models_dir: Path, tmp_path: Path) -> None:
    import numpy as np
    from faster_whisper import WhisperModel

    from speech.asr.memory import decoder_layers, model_width
    from speech.models import resolve_asr
    from speech.weights import weights_folder

    tokenizer = weights_folder(resolve_asr("base", "en", models_dir=models_dir, offline=True), models_dir)
    folder = shapes.whisper(tmp_path / "shape", shapes.Depth(1, 1), tokenizer, width=320, heads=5)
    model = WhisperModel(str(folder), device="cpu", compute_type="int8", local_files_only=True)
    assert (model_width(model), decoder_layers(folder / "model.bin")) == (320, 1)
    assert model.feature_extractor.mel_filters.shape[0] == 128
    said = shapes.said(model.hf_tokenizer, "nobody has complained about the sound so far", 3.0, chunk=6.0)
    model.model = shapes.Forced(model.model, model.hf_tokenizer.token_to_id("<|endoftext|>"), said)
    noise = np.random.default_rng(0).normal(0, 0.01, 16_000 * 5).astype(np.float32)
    segments, _ = model.transcribe(noise, language="en", temperature=0, without_timestamps=True)
    assert "".join(each.text for each in segments).split()[:4] == ["nobody", "has", "complained", "about"]
