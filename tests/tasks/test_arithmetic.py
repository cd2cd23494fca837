"""What changes a result is in its key: float32 is not answered with what int8 computed, nor a GPU's with a CPU's."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flows.request import TranscribeRequest
from flows.transcribe import transcribe
from infra.artifacts import ArtifactRef
from infra.settings import ComputeSettings, ModalSettings, StenoSettings, get_settings
from speech.models import resolve_align, resolve_asr, resolve_diarization
from speech.registry import Resolved
from speech.runtime import arithmetic
from speech.stages import StageName
from tasks.calls import StageCall
from tasks.models import pinned
from tests.stage_double import ComputeDouble, recording

MODEL: dict[str, str] = {
    "segment": "diarization:voices",
    "embed": "diarization:voices",
    "asr": "whisper:tiny.en",
    "align": "wav2vec2:WAV2VEC2_ASR_BASE_960H",
}
"""What is pinned of each stage's model: the engine and the weights."""


def key(stage: StageName, *, model: str | None = None, backend: str | None = None, **compute: Any) -> str:
    modal = ModalSettings(gpu=compute.pop("gpu", ("L4",)), voices_gpu=compute.pop("voices_gpu", None))
    settings = StenoSettings(compute=ComputeSettings(**compute), modal=modal)
    audio = ArtifactRef(kind="audio", path="a", sha256="a" * 64, bytes=1)
    call = StageCall(
        stage=stage,
        inputs={"audio": audio},
        params={},
        models={stage: model or MODEL.get(stage, "")},
        duration=1.0,
    )
    return call.placed(settings, backend).key


def test_what_a_cpu_does_by_default_is_found_under_the_keys_of_before() -> None:
    for stage in ("segment", "asr", "align", "embed", "cluster", "merge"):
        plain = StageCall(
            stage=stage,
            inputs={"audio": ArtifactRef(kind="audio", path="a", sha256="a" * 64, bytes=1)},
            params={},
            models={stage: MODEL.get(stage, "")},
            duration=1.0,
        )
        assert key(stage, device="cpu") == plain.key
    assert key("asr", device="cpu") == key("asr", device="cpu", compute_type="int8")
    assert key("asr", device="cpu") == key("asr", device="cpu", compute_type="int8_float32")


def test_another_type_is_another_text_and_nothing_else() -> None:
    assert len({key("asr", device="cpu", compute_type=kind) for kind in ("auto", "float32", "int16", "int8_float16")}) == 4
    for stage in ("segment", "embed", "align"):
        assert key(stage, device="cpu", compute_type="float32") == key(stage, device="cpu")


def test_a_gpu_has_results_of_its_own_wherever_it_is() -> None:
    for stage in ("segment", "asr", "embed", "align"):
        assert key(stage, device="cuda") != key(stage, device="cpu")
        assert key(stage, backend="modal") == key(stage, device="cuda")
        assert key(stage, backend="modal", gpu=()) == key(stage, device="cpu")
    assert key("segment", backend="modal", voices_gpu=()) == key("segment", device="cpu")
    assert key("asr", backend="modal", voices_gpu=()) == key("asr", device="cuda")
    for stage in ("cluster", "merge"):
        assert key(stage, device="cuda") == key(stage, device="cpu")
    assert key("align", model="attention:own", device="cuda") == key("align", model="attention:own", device="cpu")


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_server", "steno")
async def test_asking_for_another_type_computes_the_text_again(
    tmp_path: Path, double: ComputeDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = TranscribeRequest(source=str(recording(tmp_path / "a.wav")), output_dir=str(tmp_path / "out"))
    await transcribe(request)
    double.forget()
    monkeypatch.setenv("STENO_COMPUTE__COMPUTE_TYPE", "float32")
    get_settings.cache_clear()
    await transcribe(request)
    assert double.ran[0] == "asr"
    assert not {"segment", "embed"} & set(double.ran)
    double.forget()
    await transcribe(request)
    assert double.ran == []


@pytest.mark.parametrize(
    ("resolved", "identity"),
    [
        (lambda here: resolve_asr("tiny", None, **here), "whisper:tiny@d90ca5fe260221311c53c58e660288d3deb8d356"),
        (lambda here: resolve_asr("turbo", None, **here), "whisper:large-v3-turbo@0a363e9161cbc7ed1431c9597a8ceaf0c4f78fcf"),
        (
            lambda here: resolve_diarization("community-1", **here),
            "diarization:community-1@3533c8cf8e369892e6b79ff1bf80f7b0286a54ee",
        ),
        (
            lambda here: resolve_align("attention", "en", resolve_asr("tiny", None, **here), **here),
            "attention:attention:tiny@d90ca5fe260221311c53c58e660288d3deb8d356",
        ),
        (
            lambda here: resolve_align("wav2vec2", "ja", resolve_asr("tiny", None, **here), **here).model_copy(
                update={"revision": "pinned"}
            ),
            "wav2vec2:jonatasgrosman/wav2vec2-large-xlsr-53-japanese@pinned",
        ),
    ],
    ids=["tiny", "turbo", "community-1", "attention", "wav2vec2"],
)
def test_models_have_the_identities_that_keys_were_made_of_before_there_were_several_engines(
    resolved: Callable[[dict[str, Any]], Resolved], identity: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_stand_in")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    japanese = "jonatasgrosman/wav2vec2-large-xlsr-53-japanese"
    (tmp_path / "pins.json").write_text(json.dumps({japanese: "b" * 40}))
    assert pinned(resolved({"models_dir": tmp_path, "offline": False})) == identity


def test_a_gpu_that_is_asked_for_and_cannot_be_used_is_not_answered_with_what_a_cpu_computed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("speech.runtime.has_gpu_extra", lambda: False)
    for stage in ("segment", "asr", "align", "embed"):
        assert key(stage, device="cuda") != key(stage, device="cpu")
        assert key(stage, device="auto") == key(stage, device="cpu")


def test_what_a_gpu_computes_in_is_in_the_keys_as_before() -> None:
    """Values, since keys of stores that there are were made of them."""
    found = {
        (engine, kind): arithmetic(engine, "cuda", kind)
        for engine in ("whisper", "diarization", "wav2vec2", "attention")
        for kind in ("auto", "float32")
    }
    assert found == {
        ("whisper", "auto"): "cuda float16",
        ("whisper", "float32"): "cuda float32",
        ("diarization", "auto"): "cuda float16",
        ("diarization", "float32"): "cuda float16",
        ("wav2vec2", "auto"): "cuda float32",
        ("wav2vec2", "float32"): "cuda float32",
        ("attention", "auto"): "",
        ("attention", "float32"): "",
    }
    assert arithmetic("whisper", "cpu", "float32") == "cpu float32"
    assert arithmetic("nemo-transducer", "cuda", "auto") == "cuda float32"
