"""Parakeet and Canary: onnx-asr's own loading and decoding, on weights of the true layout that hear tones as pieces of words."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from speech import align, asr
from speech.asr.nemo import Nemo, spread
from speech.audio import InMemoryRecording
from speech.models import resolve_align, resolve_asr
from speech.registry import MODELS, Resolved
from speech.schema import AsrParams, AsrResult, Chunk, Region, RuntimeOptions, Shard
from stenoflow.errors import EngineMissing, InvalidOption, ModelUnavailable, UnknownModel
from tests import hub as hubs
from tests import nemo

SAID = [(0, 0.5, 0.9), (1, 0.9, 1.3), (2, 1.8, 2.2), (3, 2.2, 2.6), (4, 3.2, 3.6), (5, 3.6, 4.0), (6, 4.0, 4.3)]
WORDS = {"alpha": (0.5, 1.3), "beta": (1.8, 2.6), "gamma.": (3.2, 4.3)}
SECONDS = 5.0
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def parakeet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return nemo.transducer(tmp_path_factory.mktemp("parakeet") / "stand-in")


@pytest.fixture(scope="module")
def canary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return nemo.encoder_decoder(tmp_path_factory.mktemp("canary") / "stand-in")


FETCH = """
import json, sys
from pathlib import Path
from speech import asr
from speech.models import catalogue, resolve_asr
from speech.schema import AsrParams, RuntimeOptions
from tests.speech.test_nemo import sound
name, folder = sys.argv[1], Path(sys.argv[2])
model = resolve_asr(name, "en", models_dir=folder, offline=False)
runtime = RuntimeOptions(models_dir=str(folder), threads=1, device="cpu")
found = asr.load(model, runtime).transcribe(*sound(), AsrParams(language="en"), 8, lambda _: None)
print(json.dumps({
    "engine": model.kind,
    "revision": model.revision,
    "text": [segment.text for segment in found.segments],
    "offline": resolve_asr(name, "en", models_dir=folder, offline=True) == model,
    "here": [row.name for row in catalogue(folder, offline=True) if row.origin.startswith("hub") and row.available],
}))
"""


@pytest.fixture
def fetched(tmp_path: Path) -> Iterator[tuple[hubs.Hub, Callable[[str], dict[str, Any]]]]:
    """A hub on loopback, and what a process that knows no other makes of a model's name."""
    with hubs.serve() as hub:

        def fetch(name: str) -> dict[str, Any]:
            inherited = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGING"))}
            own = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hub-home"), "HF_HUB_DISABLE_XET": "1"}
            command = [sys.executable, "-c", FETCH, name, str(tmp_path / "models")]
            done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=inherited | own, check=False)
            assert done.returncode == 0, done.stderr
            answer: dict[str, Any] = json.loads(done.stdout)
            return answer

        yield hub, fetch


def sound(repeats: int = 1) -> tuple[InMemoryRecording, list[Chunk]]:
    """The words, as often as said, each time a chunk of its own."""
    samples = np.concatenate([nemo.tones(SAID, SECONDS)] * repeats)
    spans = [(0.45, 1.35), (1.75, 2.65), (3.15, 4.35)]
    chunks = []
    for n in range(repeats):
        at = n * SECONDS
        regions = tuple(Region(start=at + start, end=at + end) for start, end in spans)
        chunks.append(Chunk(start=at, end=at + SECONDS, regions=regions))
    return InMemoryRecording((samples * 32767).clip(-32768, 32767).astype(np.int16)), chunks


def engine(folder: Path, runtime: RuntimeOptions, language: str | None = None) -> Nemo:
    loaded = asr.load(resolve_asr(str(folder), language, models_dir=runtime.models_path, offline=True), runtime)
    assert isinstance(loaded, Nemo)
    return loaded


def result(found: Sequence[asr.Transcribed], **params: str) -> AsrResult:
    return asr.assembled(found, AsrParams(**params))  # type: ignore[arg-type]


def test_the_words_and_the_frames_at_which_their_tokens_were_given(parakeet: Path, runtime: RuntimeOptions) -> None:
    recording, plan = sound()
    found = engine(parakeet, runtime).transcribe(recording, plan, AsrParams(language="en"), 8, lambda _: None)
    (segment,) = found.segments
    assert segment.text == "alpha beta gamma."
    assert (found.language, found.timing, found.warnings) == ("en", "tokens", ())
    for word, (start, end) in zip(segment.words, WORDS.values(), strict=True):
        assert word.start == pytest.approx(start, abs=0.1)
        assert start < word.end <= end + 0.1
        assert 0 < word.score <= 1
    assert [word.word for word in segment.words] == list(WORDS)
    assert segment.avg_logprob < 0


def test_word_times_are_made_good_by_the_voice_and_say_where_they_come_from(parakeet: Path, runtime: RuntimeOptions) -> None:
    recording, plan = sound()
    text = result([engine(parakeet, runtime).transcribe(recording, plan, AsrParams(language="en"), 8, lambda _: None)])
    segments, warnings = align.align(text, None)
    words = [word for segment in segments for word in segment.words]
    assert {word.timing for word in words} == {"tokens"}
    for word, (start, end) in zip(words, WORDS.values(), strict=True):
        assert (word.start, word.end) == (pytest.approx(start, abs=0.1), pytest.approx(end, abs=0.25))
    assert not warnings


def test_the_aligner_that_takes_its_times_is_named_by_what_they_are(parakeet: Path, models_dir: Path) -> None:
    model = resolve_asr(str(parakeet), "en", models_dir=models_dir, offline=True)
    own = resolve_align("auto", "en", model, models_dir=models_dir, offline=True)
    assert (own.kind, own.name) == ("attention", "tokens:stand-in")


def test_batches_and_shards_change_nothing(parakeet: Path, runtime: RuntimeOptions) -> None:
    recording, plan = sound(10)
    model, params = engine(parakeet, runtime), AsrParams(language="en")
    whole = model.transcribe(recording, plan, params, 8, lambda _: None)
    assert [segment.text for segment in whole.segments] == ["alpha beta gamma."] * 10
    assert model.transcribe(recording, plan, params, 3, lambda _: None) == whole
    done: list[float] = []
    parts = [model.transcribe(recording, plan, params, 8, done.append, Shard(index=i, count=2)) for i in range(2)]
    assert [len(part.segments) for part in parts] == [8, 2]
    assert result(parts, language="en") == result([whole], language="en")
    assert done[-1] == 1.0


def test_a_batch_as_a_gpu_is_given_has_the_words_of_its_chunks(parakeet: Path, runtime: RuntimeOptions) -> None:
    """On ONNX Runtime's CPU provider: the arrays are those of a batch, whatever multiplies them."""
    recording, plan = sound(3)
    model = engine(parakeet, runtime)
    shorter = plan[1].model_copy(update={"end": plan[1].end - 0.5})
    batch = model._replace(device="cuda").transcribe(
        recording, [plan[0], shorter, plan[2]], AsrParams(language="en"), 3, lambda _: None
    )
    assert [segment.text for segment in batch.segments] == ["alpha beta gamma."] * 3


def test_a_language_that_was_not_said_is_not_made_up(parakeet: Path, runtime: RuntimeOptions) -> None:
    recording, plan = sound()
    found = engine(parakeet, runtime).transcribe(
        recording, plan, AsrParams(initial_prompt="Greek letters", hotwords="alpha"), 8, lambda _: None
    )
    text = result([found])
    assert text.language == asr.UNDETERMINED
    assert any("does not report the detected language" in warning for warning in text.warnings)
    assert any("does not support an initial prompt or hotwords" in warning for warning in text.warnings)


def test_silence_has_no_text(parakeet: Path, runtime: RuntimeOptions) -> None:
    _, plan = sound()
    quiet = InMemoryRecording(np.zeros(round(SECONDS * nemo.RATE), dtype=np.int16))
    found = engine(parakeet, runtime).transcribe(quiet, plan, AsrParams(language="en"), 8, lambda _: None)
    assert found.segments == ()


def test_an_encoder_decoder_gives_text_and_its_words_share_the_voiced_time(canary: Path, runtime: RuntimeOptions) -> None:
    recording, plan = sound()
    found = engine(canary, runtime).transcribe(recording, plan, AsrParams(language="fr"), 8, lambda _: None)
    (segment,) = found.segments
    assert (segment.text, found.language, found.timing) == ("alpha beta gamma.", "fr", "interpolated")
    assert [word.word for word in segment.words] == list(WORDS)
    voiced = [(region.start, region.end) for region in segment.regions]
    for word in segment.words:
        assert any(start - 0.01 <= word.start <= end for start, end in voiced)
    segments, _ = align.align(result([found], language="fr"), None)
    assert {word.timing for part in segments for word in part.words} == {"interpolated"}


def test_an_encoder_decoder_knows_the_languages_of_its_vocabulary(canary: Path, runtime: RuntimeOptions) -> None:
    recording, plan = sound()
    with pytest.raises(InvalidOption, match="does not support the language 'uk'"):
        engine(canary, runtime).transcribe(recording, plan, AsrParams(language="uk"), 8, lambda _: None)


def test_tokens_are_spread_over_the_voice_by_their_length() -> None:
    chunk = Chunk(start=10.0, end=14.0, regions=(Region(start=10.0, end=11.0), Region(start=13.0, end=14.0)))
    assert spread([" ab", "cd", " ef", "gh"], chunk) == pytest.approx([0.0, 0.5, 3.0, 3.5])


@pytest.mark.parametrize("name", ["parakeet-tdt-0.6b-v3", "parakeet-tdt-0.6b-v3-int8", "canary-1b-v2"])
def test_the_hubs_files_are_fetched_at_the_pinned_commit(
    name: str, fetched: tuple[hubs.Hub, Callable[[str], dict[str, Any]]], tmp_path: Path
) -> None:
    (hub, fetch), made = fetched, tmp_path / "made"
    repository, commit = MODELS[name].hub or ("", "")
    if name.startswith("canary"):
        nemo.encoder_decoder(made)
    else:
        nemo.transducer(made)
        nemo.transducer(made, ".int8")
    files = {path.name: path.read_bytes() for path in made.iterdir()}
    hub.publish(repository, files | {"nemo128.onnx": b"not needed"}, commit)
    found = fetch(name)
    assert (found["text"], found["revision"], found["offline"]) == (["alpha beta gamma."], commit, True)
    assert found["here"] == [name]
    downloaded = {asked.path.rpartition("/")[2] for asked in hub.asked if asked.method == "GET" and "/resolve/" in asked.path}
    assert downloaded == set(MODELS[name].fetches)


def test_a_repository_is_known_by_its_files_once_it_was_asked(
    fetched: tuple[hubs.Hub, Callable[[str], dict[str, Any]]], parakeet: Path, tmp_path: Path
) -> None:
    hub, fetch = fetched
    hub.publish("someone/parakeet", {path.name: path.read_bytes() for path in parakeet.iterdir()})
    found = fetch("someone/parakeet")
    assert (found["engine"], found["revision"], found["text"]) == ("nemo-transducer", "a" * 40, ["alpha beta gamma."])
    assert json.loads((tmp_path / "models" / "pins.json").read_text()) == {"someone/parakeet": f"nemo-transducer:{'a' * 40}"}


@pytest.mark.parametrize(
    ("name", "language", "task", "says"),
    [
        ("parakeet", "ja", "transcribe", "does not support 'ja'"),
        ("parakeet", "en", "translate", "does not translate"),
        ("canary", None, "transcribe", "does not detect languages"),
        ("canary", "en,de", "transcribe", "does not detect languages"),
        ("parakeet", "en,ja", "transcribe", "does not support 'ja'"),
    ],
)
def test_what_a_model_cannot_do_is_refused_before_anything_runs(
    tmp_path: Path, name: str, language: str | None, task: str, says: str
) -> None:
    with pytest.raises(InvalidOption, match=says):
        resolve_asr(name, language, models_dir=tmp_path, offline=True, task=task)  # type: ignore[arg-type]
    with pytest.raises(ModelUnavailable, match="STENO_OFFLINE"):
        resolve_asr(name, "de", models_dir=tmp_path, offline=True)


@pytest.mark.parametrize("damage", ["config.json", "vocab.txt", "decoder_joint-model.onnx"])
def test_weights_that_are_not_whole_are_refused_in_a_sentence(
    parakeet: Path, tmp_path: Path, runtime: RuntimeOptions, damage: str
) -> None:
    folder = tmp_path / "damaged"
    folder.mkdir()
    for path in parakeet.iterdir():
        if path.name != damage:
            (folder / path.name).write_bytes(path.read_bytes())
    with pytest.raises(UnknownModel, match=f"{damage[:8]}.* missing"):
        resolve_asr(str(folder), None, models_dir=tmp_path, offline=True)
    (folder / damage).write_text('{"model_type": "something-else"}')
    with pytest.raises(UnknownModel, match="not a NeMo model that onnx-asr can load"):
        engine(folder, runtime)


def test_a_gpu_that_onnx_runtime_is_not_built_for_is_said(parakeet: Path, runtime: RuntimeOptions) -> None:
    model = resolve_asr(str(parakeet), None, models_dir=runtime.models_path, offline=True)
    with pytest.raises(EngineMissing, match="without CUDA; install `onnxruntime-gpu`"):
        asr.load(model, runtime.model_copy(update={"device": "cuda"}))


def test_an_engine_that_is_not_installed_names_its_extra(
    parakeet: Path, runtime: RuntimeOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("speech.models.absent", lambda packages: [each for each in packages if each == "onnx-asr"])
    model = Resolved(kind="nemo-transducer", name="x", revision="1", origin="folder", location=str(parakeet))
    with pytest.raises(EngineMissing, match=r'Not installed here: onnx-asr; `pip install "stenoflow\[parakeet\]"`'):
        asr.load(model, runtime)
