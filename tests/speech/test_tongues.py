"""Each part of a recording in the language that it is spoken in."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import soundfile

from speech.align import AlignResult, TimedWords, align, timed
from speech.asr import Transcribed, assembled, whisper
from speech.asr.tongues import Part, in_allowed, in_languages, plausible, utterances
from speech.merge import merge
from speech.schema import AlignParams, AsrParams, AsrResult, AsrSegment, AsrWord, Chunk, Foreign, Region, RuntimeOptions, Shard
from speech.stages import combine_shards, run_stage
from stenoflow.types import ModelInfo, Word

PROMPTS = Path(__file__).with_name("languages.ogg")
"""Asterisk's prompts, 36 s: `SAID` with pauses of half a second (THIRD_PARTY.md)."""
SAID = (
    ("en", "There is currently one other participant in the conference."),
    ("fr", "Ce numéro de conférence n'est pas valide. Veuillez réessayer de nouveau."),
    ("fr", "Vous êtes présentement le seul participant dans cette conférence."),
    ("en", "That is not a valid conference number. Please try again."),
    ("es", "Por favor espere mientras intento enlazar su llamada."),
    ("en", "The conference is currently locked and cannot be joined."),
    ("es", "La conferencia está ahora siendo grabada."),
    ("fr", "Veuillez vérifier le numéro et composer de nouveau."),
)
MODEL = ModelInfo(name="base", revision="1", origin="package")
Transcribe = Callable[..., AsrResult]


def chunk(*regions: tuple[float, float]) -> Chunk:
    return Chunk(
        start=regions[0][0] - 0.3,
        end=regions[-1][1] + 0.3,
        regions=tuple(Region(start=start, end=end) for start, end in regions),
    )


def segment(start: float, language: str | None, text: str = "a b") -> AsrSegment:
    words = tuple(AsrWord(word=word, start=start + i, end=start + i + 0.8, score=1.0) for i, word in enumerate(text.split()))
    end = start + len(words)
    regions = (Region(start=start, end=end),)
    return AsrSegment(start=start, end=end, text=text, language=language, words=words, regions=regions, avg_logprob=-0.2)


def result(*segments: AsrSegment, language: str | None = "en", params: AsrParams | None = None, **more: Any) -> AsrResult:
    part = Transcribed(segments=segments, language=language, language_probability=0.6, multilingual=True, model=MODEL, **more)
    return assembled([part], params or AsrParams())


# -- parts of a chunk -----------------------------------------------------------------------------------------------------


def test_a_chunk_is_cut_at_pauses_into_parts_that_are_long_enough_to_tell_a_language() -> None:
    parts = utterances(chunk((1, 3), (3.1, 4), (4.5, 5), (5.5, 8), (9, 9.5)))
    assert [(part.regions[0].start, part.regions[-1].end) for part in parts] == [(1, 4), (4.5, 9.5)]


def test_parts_in_one_language_are_the_chunk_again() -> None:
    whole = chunk((1, 4), (5, 8), (9, 12))
    parts = utterances(whole)
    assert len(parts) == 3
    found = in_languages(parts, [{"fr": 0.9, "en": 0.1}] * 3, "en", ())
    assert [(part.chunk, part.language) for part in found] == [(whole, "fr")]


def languages(found: Sequence[dict[str, float]], among: Sequence[str] = (), usual: str = "en") -> list[str]:
    """Of three parts of three seconds each."""
    parts = utterances(chunk((1, 4), (5, 8), (9, 12)))
    return [part.language for part in in_languages(parts, found, usual, among) for _ in part.chunk.regions]


def test_only_what_is_clearly_in_another_language_is_taken_for_it() -> None:
    doubtful, clear = {"en": 0.3, "fr": 0.7}, {"en": 0.05, "fr": 0.95}
    assert languages([doubtful] * 3) == ["en", "en", "en"]
    assert languages([{"en": 1.0}, clear, {"en": 1.0}]) == ["en", "fr", "en"]


def test_a_language_that_is_clear_in_one_part_is_believed_in_another_where_its_likes_are_as_likely() -> None:
    clear, torn = {"es": 0.95, "en": 0.05}, {"es": 0.4, "pt": 0.42, "en": 0.02}
    assert languages([clear, {"en": 1.0}, torn]) == ["es", "en", "es"]
    assert languages([{"en": 1.0}, {"en": 1.0}, torn]) == ["en", "en", "en"]
    assert languages([{"en": 1.0}, {"en": 1.0}, torn], among=("es",)) == ["en", "en", "es"]


def test_what_does_not_sound_like_the_recordings_language_at_all_is_in_the_likeliest() -> None:
    foreign, alike = {"es": 0.51, "pt": 0.3, "gl": 0.16, "en": 0.03}, {"pt": 0.59, "es": 0.25, "gl": 0.16}
    assert languages([{"en": 1.0}, foreign, {"en": 1.0}]) == ["en", "es", "en"]
    assert languages([{"es": 1.0}, alike, {"es": 1.0}], usual="es") == ["es", "es", "es"]


def test_what_sounds_like_no_language_keeps_the_recordings() -> None:
    assert languages([{"en": 1.0}, {"nn": 0.4, "cy": 0.3, "la": 0.28, "en": 0.02}, {"en": 1.0}]) == ["en", "en", "en"]


@pytest.mark.parametrize(
    ("likely", "spoken"),
    [({"es": -0.18, "la": -0.81}, ["es"]), ({"es": -0.36, "la": -0.04}, ["es", "la", "es"])],
)
def test_what_is_understood_better_in_the_recordings_language_is_in_that(likely: dict[str, float], spoken: list[str]) -> None:
    """A Spanish sentence that sounds like Latin, with what `base` makes of it in either."""
    transcriber = cast(Any, object.__new__(whisper.Transcriber))
    transcriber._heard = {}
    transcriber._encoded = lambda recording, batch: SimpleNamespace(device="cuda")
    transcriber._generate = lambda encoded, count, language: [SimpleNamespace(avg_logprob=likely[language])]
    chunks = [chunk((0, 2)), chunk((3, 5)), chunk((6, 8))]
    parts = [Part(each, language) for each, language in zip(chunks, ["es", "la", "es"], strict=True)]
    assert [part.language for part in transcriber._confirmed(None, parts, "es")] == spoken


def test_less_than_a_second_and_a_half_of_voice_keeps_the_recordings_language() -> None:
    (only,) = in_languages([chunk((1, 2.2))], [{"fr": 0.99, "en": 0.01}], "en", ())
    assert only.language == "en"


def test_of_a_list_no_other_language_is_taken() -> None:
    parts = utterances(chunk((1, 4), (5, 8)))
    found = in_allowed(parts, [{"pt": 0.7, "es": 0.2, "en": 0.01}, {"en": 0.9}], "en", ("en", "es"))
    assert [part.language for part in found] == ["es", "en"]


def test_a_recording_may_be_in_what_its_longest_chunks_sound_like() -> None:
    assert plausible({"en": 60.0, "fr": 39.0, "la": 1.0}) == ["en", "fr"]


# -- the result -----------------------------------------------------------------------------------------------------------


def test_a_recording_in_one_language_says_it_once() -> None:
    found = result(segment(0, "en"), segment(3, "en"))
    assert (found.language, found.language_probability, found.languages) == ("en", 0.6, ())
    assert '"languages"' not in found.model_dump_json()
    assert [part.language for part in found.segments] == [None, None]


def test_a_recording_in_several_lists_them_in_order_and_is_in_the_one_with_most_speech() -> None:
    found = result(segment(0, "fr"), segment(3, "en"), segment(6, "es", "uno dos tres cuatro cinco"), segment(12, "en"))
    assert (found.languages, found.language, found.language_probability) == (("fr", "en", "es"), "es", None)
    assert found.warnings == ()


def test_the_given_language_against_what_is_heard_is_a_warning_with_times() -> None:
    heard = (Foreign(start=10.0, end=30.0, language="fr"), Foreign(start=40.0, end=50.0, language="fr"))
    (warning,) = result(segment(0, "en"), params=AsrParams(language="en"), foreign=heard).warnings
    assert "'en'" in warning
    assert "'fr' at 10.0–30.0 s, 40.0–50.0 s" in warning
    assert "en,fr" in warning


class Named:
    """An aligner that marks its words."""

    device = "cpu"

    def __init__(self, mark: float) -> None:
        self.mark = mark

    def words(self, segments: Sequence[AsrSegment], recording: Any) -> Any:
        for part in segments:
            yield [Word(word=w.word, start=w.start, end=w.end, score=self.mark, timing="wav2vec2") for w in part.words]


def test_each_language_has_an_aligner_of_its_own() -> None:
    text = result(segment(0, "en"), segment(3, "fr"), segment(6, "en"))
    found = timed(text, None, {"en": Named(0.1), "fr": Named(0.2)}, lambda _: None)  # type: ignore[arg-type]
    assert [[word.score for word in words or ()] for words in found.words] == [[0.1, 0.1], [0.2, 0.2], [0.1, 0.1]]


def test_sentences_and_words_are_split_by_the_segments_language_and_say_it() -> None:
    text = result(
        segment(0, "en", "one two"), segment(3, "zh", "你 好 。 再 见 。").model_copy(update={"text": "你好。再见。"})
    )
    sentences, _ = align(text, None)
    assert [(part.language, part.text) for part in sentences] == [("en", "one two"), ("zh", "你好。"), ("zh", "再见。")]
    alignment = AlignResult(segments=tuple(sentences), model=MODEL, method="attention", others={"zh": MODEL})
    transcript = merge(20.0, text, alignment, None, {})
    assert transcript.languages == ("en", "zh")
    assert [(part.language, part.text) for part in transcript.segments] == [
        ("en", "one two"),
        ("zh", "你好。"),
        ("zh", "再见。"),
    ]
    assert not transcript.warnings


def test_the_models_of_further_languages_are_named(tmp_path: Path) -> None:
    text = result(segment(0, "en", "one two"), segment(3, "fr"))
    other = MODEL.model_copy(update={"name": "VOXPOPULI_ASR_BASE_10K_FR"})
    sentences, _ = align(text, TimedWords(words=(None, None)))
    alignment = AlignResult(segments=tuple(sentences), model=MODEL, method="wav2vec2", others={"fr": other})
    assert merge(20.0, text, alignment, None, {}).models["align:fr"].name == other.name


def test_alignment_in_one_language_has_the_key_that_it_had() -> None:
    assert AlignParams(model="attention").model_dump(mode="json") == {"model": "attention"}


# -- with the model -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory, runtime: RuntimeOptions) -> dict[str, Path]:
    """The prompts as a normalised recording, and its segmentation."""
    folder = tmp_path_factory.mktemp("languages")
    samples, rate = soundfile.read(PROMPTS, dtype="int16")
    soundfile.write(folder / "audio.flac", samples, rate, subtype="PCM_16")
    found = {"audio": folder / "audio.flac", "segmentation": folder / "segmentation"}
    run_stage("segment", found, {}, runtime, found["segmentation"], lambda fraction: None)
    return found


@pytest.fixture(scope="module")
def transcribe(inputs: dict[str, Path], runtime: RuntimeOptions, tmp_path_factory: pytest.TempPathFactory) -> Transcribe:
    @functools.cache
    def run(**params: Any) -> AsrResult:
        output = tmp_path_factory.mktemp("asr") / "asr.json"
        run_stage("asr", inputs, {"model": "base", **params}, runtime, output, lambda fraction: None)
        return AsrResult.model_validate_json(output.read_bytes())

    return run


@pytest.mark.slow
def test_each_sentence_is_transcribed_in_its_language(transcribe: Transcribe) -> None:
    found = transcribe()
    assert found.languages == ("en", "fr", "es")
    spoken = [(part.language, word.word.strip(".,").lower()) for part in found.segments for word in part.words]
    for language, text in SAID:
        words = text.strip(".").lower().replace(".", "").split()
        missing = [word for word in words if (language, word) not in spoken]
        assert len(missing) <= len(words) // 3, (text, missing)


@pytest.mark.slow
def test_shards_give_what_the_undivided_stage_gives(
    inputs: dict[str, Path], transcribe: Transcribe, runtime: RuntimeOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(whisper, "SHARD_UNIT", 1)
    parts = [tmp_path / "0", tmp_path / "1"]
    for index, part in enumerate(parts):
        shard = Shard(index=index, count=2)
        run_stage("asr", inputs, {"model": "base"}, runtime, part, lambda fraction: None, shard)
    combine_shards("asr", inputs, {"model": "base"}, runtime, parts, tmp_path / "whole")
    assert AsrResult.model_validate_json((tmp_path / "whole").read_bytes()) == transcribe()


@pytest.mark.slow
def test_one_language_for_what_is_in_several_is_a_warning(transcribe: Transcribe) -> None:
    found = transcribe(language="es")
    assert (found.language, found.languages) == ("es", ())
    assert "The language was given as 'es', but the recording sounds like" in found.warnings[0]
