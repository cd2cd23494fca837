"""Words meet turns: every word keeps its text, its order and a speaker, or says why not."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from speech.merge import merge
from speech.schema import AlignResult, AsrResult, AsrSegment, AsrWord, Diarization, RuntimeOptions
from speech.stages import run_stage
from stenoflow.types import ModelInfo, Segment, Transcript, Turn, Word

MODEL = ModelInfo(name="base", revision="1", origin="package")


def asr_of(
    *texts: str, language: str = "en", span: float = 10.0, warnings: tuple[str, ...] = (), task: Any = "transcribe"
) -> AsrResult:
    segments = tuple(
        AsrSegment(start=i * span, end=(i + 1) * span, text=text, words=(), regions=(), avg_logprob=-0.2, no_speech_prob=0.0)
        for i, text in enumerate(texts)
    )
    return AsrResult(task=task, language=language, language_probability=0.9, segments=segments, model=MODEL, warnings=warnings)


def aligned(*segments: Segment, warnings: tuple[str, ...] = ()) -> AlignResult:
    return AlignResult(segments=segments, model=MODEL, method="attention", warnings=warnings)


def sentence(*words: tuple[str, float, float], text: str | None = None) -> Segment:
    made = tuple(Word(word=word, start=start, end=end, score=0.9, timing="attention") for word, start, end in words)
    return Segment(
        start=words[0][1], end=words[-1][2], text=text or " ".join(word for word, _, _ in words), avg_logprob=-0.2, words=made
    )


def diarized(*turns: tuple[float, float, str], exclusive: tuple[tuple[float, float, str], ...] = ()) -> Diarization:
    made = tuple(Turn(start=start, end=end, speaker=speaker) for start, end, speaker in turns)
    louder = tuple(Turn(start=start, end=end, speaker=speaker) for start, end, speaker in exclusive)
    return Diarization(
        turns=made,
        exclusive_turns=louder or made,
        speakers=tuple(sorted({turn.speaker for turn in made})),
        models={"segmentation": MODEL, "embedding": MODEL},
    )


def spoken(transcript: Transcript) -> list[tuple[str | None, str]]:
    return [(segment.speaker, segment.text) for segment in transcript.segments]


def merged(segment: Segment, diarization: Diarization | None, duration: float = 60.0) -> Transcript:
    return merge(duration, asr_of(segment.text), aligned(segment), diarization, {"diarize": True})


# -- who said it --------------------------------------------------------------------------------------------------------


def test_a_segment_is_cut_where_the_speaker_changes() -> None:
    segment = sentence(
        ("How", 0, 0.3), ("are", 0.3, 0.6), ("you?", 0.6, 1.0), ("I", 1.2, 1.5), ("am", 1.5, 2), ("fine.", 2, 2.5)
    )
    transcript = merged(segment, diarized((0, 1.1, "SPEAKER_01"), (1.1, 3, "SPEAKER_00")))
    assert spoken(transcript) == [("SPEAKER_01", "How are you?"), ("SPEAKER_00", "I am fine.")]
    assert [(s.start, s.end, s.avg_logprob) for s in transcript.segments] == [(0, 1, -0.2), (1.2, 2.5, -0.2)]
    assert all(word.speaker_source == "overlap" for word in transcript.word_segments)
    assert transcript.speakers == ("SPEAKER_01", "SPEAKER_00"), "in the order of their first turn"


def test_the_larger_overlap_wins() -> None:
    transcript = merged(sentence(("well", 1.0, 2.0)), diarized((0, 1.3, "A"), (1.3, 5, "B")))
    assert spoken(transcript) == [("B", "well")]


def test_the_louder_speaker_wins_where_both_talk() -> None:
    segment = sentence(("both", 1.0, 1.5))
    assert spoken(merged(segment, diarized((0, 5, "A"), (0, 5, "B"), exclusive=((0, 5, "B"),)))) == [("B", "both")]
    assert spoken(merged(segment, diarized((0, 5, "A"), (0, 5, "B"), exclusive=((0, 5, "A"),)))) == [("A", "both")]


def test_a_word_outside_all_turns_takes_the_nearest_and_says_so() -> None:
    turns = diarized((0, 5, "A"), (1, 2, "C"), (10, 20, "B"))
    for start, speaker in ((6.0, "A"), (8.5, "B"), (25.0, "B")):
        transcript = merged(sentence(("word", start, start + 0.5)), turns)
        assert [(w.speaker, w.speaker_source) for w in transcript.word_segments] == [(speaker, "nearest")]


def test_a_word_without_length_has_a_speaker() -> None:
    transcript = merged(sentence(("a", 3.0, 3.0)), diarized((0, 2, "A"), (2.5, 5, "B")))
    assert [(w.speaker, w.speaker_source) for w in transcript.word_segments] == [("B", "overlap")]


def test_jitter_at_a_turns_edge_does_not_flip_a_word_inside_a_sentence() -> None:
    segment = sentence(("so", 0, 0.4), ("I", 0.5, 0.6), ("went", 0.6, 1.0), ("home.", 1.0, 1.5))
    flicker = diarized((0, 0.52, "A"), (0.51, 0.61, "B"), (0.61, 5, "A"))
    assert spoken(merged(segment, flicker)) == [("A", "so I went home.")]
    late_edge = diarized((0, 1.2, "A"), (1.2, 5, "B"))
    assert spoken(merged(segment, late_edge)) == [("A", "so I went home.")]


def test_a_real_interjection_keeps_its_speaker() -> None:
    segment = sentence(("so", 0, 0.4), ("I", 0.5, 0.6), ("yeah", 0.7, 1.1), ("went", 1.2, 1.5), ("home.", 1.5, 2.0))
    transcript = merged(segment, diarized((0, 0.65, "A"), (0.65, 1.15, "B"), (1.15, 5, "A")))
    assert spoken(transcript) == [("A", "so I"), ("B", "yeah"), ("A", "went home.")]


def test_a_short_answer_of_its_own_keeps_its_speaker() -> None:
    alignment = aligned(sentence(("Right?", 0, 0.5)), sentence(("Yes.", 0.55, 0.65)), sentence(("Good.", 0.7, 1.0)))
    transcript = merge(
        5, asr_of("Right? Yes. Good."), alignment, diarized((0, 0.52, "A"), (0.52, 0.68, "B"), (0.68, 5, "A")), {}
    )
    assert [segment.speaker for segment in transcript.segments] == ["A", "B", "A"]


def test_agrees_with_a_scan_of_all_turns() -> None:
    random.seed(3)
    turns = []
    for _ in range(200):
        start = random.uniform(0, 300)
        turns.append((start, start + random.uniform(0.2, 6), f"SPEAKER_{random.randrange(5):02d}"))
    diarization = diarized(*turns)
    segments = []
    for i in range(400):
        start = i * 0.75 + random.uniform(0, 0.4)
        segments.append(sentence((f"w{i}", start, start + random.uniform(0.05, 0.6))))
    transcript = merge(400, asr_of(" ".join(s.text for s in segments)), aligned(*segments), diarization, {})
    for word in transcript.word_segments:
        active: dict[str, set[int]] = {}
        for turn in transcript.turns:
            inside = range(round(max(turn.start, word.start) * 1000), round(min(turn.end, word.end) * 1000))
            active.setdefault(turn.speaker, set()).update(inside)
        most = max(len(ms) for ms in active.values())
        if most:
            assert word.speaker_source == "overlap"
            assert len(active[str(word.speaker)]) >= most - 20
        else:
            gap = {t: max(t.start - word.end, word.start - t.end) for t in transcript.turns}
            assert word.speaker_source == "nearest"
            assert word.speaker == min(gap, key=lambda turn: gap[turn]).speaker


# -- text and time ------------------------------------------------------------------------------------------------------


def random_case(seed: int) -> tuple[AsrResult, AlignResult, Diarization, float]:
    """Any text, in one of two scripts; times that jump, repeat, run backwards and leave the recording; any turns."""
    rng = random.Random(seed)
    duration = rng.uniform(5, 100)
    language = rng.choice(["en", "zh"])
    pool = (
        ["Hello", "you.", "OK?", "-->", "é", "👋", "3.5", "שלום"] if language == "en" else ["好", "，", "我", "AI", "。", "用"]
    )
    joiner = " " if language == "en" else rng.choice(["", " "])
    segments, texts = [], []
    clock = 0.0
    for _ in range(rng.randint(0, 12)):
        words = []
        for _ in range(rng.randint(0, 15)):
            clock = rng.uniform(-1, duration + 5) if rng.random() < 0.05 else clock + rng.uniform(-0.05, 0.6)
            words.append(
                Word(word=rng.choice(pool), start=clock, end=clock + rng.uniform(-0.1, 1), score=0.5, timing="wav2vec2")
            )
        text = joiner.join(word.word for word in words) or rng.choice(["", "  ", "Untimed words."])
        segments.append(Segment(start=clock, end=clock + 1, text=text, words=tuple(words)))
        texts.append(text)
    turns = []
    for _ in range(rng.randint(0, 20)):
        start = rng.uniform(-1, duration)
        turns.append((start, start + rng.uniform(0, 5), f"SPEAKER_{rng.randrange(3):02d}"))
    return asr_of(*texts, language=language), aligned(*segments), diarized(*turns), duration


@pytest.mark.parametrize("seed", range(150))
def test_nothing_is_lost_and_nothing_runs_backwards(seed: int) -> None:
    asr, alignment, diarization, duration = random_case(seed)
    transcript = merge(duration, asr, alignment, diarization, {})

    def bare(texts: list[str]) -> str:
        return "".join("".join(text.split()) for text in texts)

    said = [word.word for segment in alignment.segments for word in segment.words]
    assert [word.word for word in transcript.word_segments] == said
    assert bare([segment.text for segment in transcript.segments]) == bare([segment.text for segment in asr.segments])
    for segment in transcript.segments:
        if segment.words:
            assert bare([word.word for word in segment.words]) == bare([segment.text])
            assert {word.speaker for word in segment.words} == {segment.speaker}
            assert segment.start == segment.words[0].start
            assert segment.end == max(word.end for word in segment.words)
        assert 0 <= segment.start <= segment.end <= round(duration, 3) + 0.001
        assert (segment.speaker is None) == (not transcript.turns)
    starts = [word.start for word in transcript.word_segments]
    assert starts == sorted(starts)
    assert all(word.end >= word.start for word in transcript.word_segments)
    assert all(first.start <= second.start for first, second in zip(transcript.turns, transcript.turns[1:], strict=False))
    assert Transcript.model_validate_json(transcript.model_dump_json()) == transcript


def test_one_late_word_does_not_drag_the_rest_along() -> None:
    words = [("a", 1.0, 1.2), ("b", 50.0, 50.2), ("c", 1.5, 1.7), ("d", 2.0, 2.2), ("e", 0.1, 0.3), ("f", 2.5, 2.7)]
    transcript = merged(sentence(*words), None)
    assert [word.start for word in transcript.word_segments] == [1.0, 1.5, 1.5, 2.0, 2.0, 2.5]
    assert [word.timing for word in transcript.word_segments] == [
        "attention",
        "interpolated",
        "attention",
        "attention",
        "interpolated",
        "attention",
    ]


def test_the_texts_own_spacing_survives_a_cut() -> None:
    segment = sentence(("我", 0, 0.5), ("用", 0.5, 1), ("Open", 2, 2.5), ("AI", 2.5, 3), text="我用 Open AI")
    turns = diarized((0, 1.5, "A"), (1.5, 4, "B"))
    transcript = merge(5, asr_of(segment.text, language="zh"), aligned(segment), turns, {})
    assert spoken(transcript) == [("A", "我用"), ("B", "Open AI")]


def test_a_translation_is_joined_as_english() -> None:
    segment = sentence(("Good", 0, 0.5), ("day", 0.5, 1), text="unlike the words")
    transcript = merge(5, asr_of(segment.text, language="ja", task="translate"), aligned(segment), None, {})
    assert transcript.segments[0].text == "Good day"


# -- what is missing is said --------------------------------------------------------------------------------------------


def test_without_alignment_segments_are_chunks_with_the_speaker_of_most_of_the_chunk() -> None:
    transcript = merge(20, asr_of(" Hello there. ", "Bye."), None, diarized((0, 9, "A"), (11, 20, "B")), {"align": False})
    assert spoken(transcript) == [("A", "Hello there."), ("B", "Bye.")]
    assert transcript.word_segments == ()
    assert transcript.warnings == ()
    assert set(transcript.models) == {"asr", "segmentation", "embedding"}


def test_without_alignment_a_chunk_is_still_cut_where_the_speaker_changes() -> None:
    words = tuple(
        AsrWord(word=word, start=i, end=i + 0.8, score=0.5) for i, word in enumerate(["How", "are", "you?", "Fine", "thanks."])
    )
    asr = asr_of("How are you? Fine thanks.")
    asr = asr.model_copy(update={"segments": (asr.segments[0].model_copy(update={"words": words}),)})
    transcript = merge(20, asr, None, diarized((0, 2.9, "A"), (2.9, 9, "B")), {"align": False})
    assert spoken(transcript) == [("A", "How are you?"), ("B", "Fine thanks.")]
    assert [(segment.start, segment.end) for segment in transcript.segments] == [(0, 2.8), (3, 4.8)]
    assert transcript.word_segments == ()
    assert all(segment.words == () for segment in transcript.segments)


def test_an_alignment_that_gave_nothing_does_not_lose_the_text() -> None:
    transcript = merge(20, asr_of("Hello there."), aligned(warnings=("No alignment.",)), None, {})
    assert spoken(transcript) == [(None, "Hello there.")]
    assert transcript.warnings == ("No alignment.",)


def test_text_that_alignment_dropped_is_reported() -> None:
    transcript = merge(20, asr_of("Hello there."), aligned(sentence(("Hello", 0, 1))), None, {})
    assert [warning for warning in transcript.warnings if "missing" in warning]


@pytest.mark.parametrize(
    ("diarization", "options", "reason"),
    [(diarized(), {"diarize": True}, "no speaker turn"), (None, {"diarize": True}, "diarization failed")],
)
def test_words_without_a_speaker_say_why(diarization: Diarization | None, options: dict[str, object], reason: str) -> None:
    segment = sentence(("Hello", 0, 1))
    transcript = merge(5, asr_of("Hello"), aligned(segment), diarization, options)
    assert transcript.segments[0].speaker is None
    assert [
        warning for warning in transcript.warnings if "No speech was attributed to a speaker" in warning and reason in warning
    ]


def test_no_warning_when_speakers_were_not_asked_for() -> None:
    transcript = merge(5, asr_of("Hello"), aligned(sentence(("Hello", 0, 1))), None, {"diarize": False})
    assert transcript.warnings == ()


@pytest.mark.parametrize("said", [(), ("No speech was found.",), ("No speech was found in the recording.",)])
def test_silence_is_an_empty_transcript_with_one_warning(said: tuple[str, ...]) -> None:
    transcript = merge(60, asr_of(warnings=said), aligned(warnings=said), diarized(), {"diarize": True})
    assert transcript.segments == ()
    assert transcript.word_segments == ()
    assert len(transcript.warnings) == 1
    assert "no speech was found" in transcript.warnings[0].lower()


def test_warnings_of_all_stages_appear_once_in_order() -> None:
    alignment = aligned(sentence(("Hello", 0, 1)), warnings=("b", "a"))
    assert merge(5, asr_of("Hello", warnings=("a",)), alignment, None, {}).warnings == ("a", "b")


# -- the stage ----------------------------------------------------------------------------------------------------------


def test_the_stage_writes_a_transcript_and_returns_its_counts(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "audio.flac", np.zeros(16_000 * 4, dtype=np.int16), 16_000)
    alignment = aligned(sentence(("Hello", 0.5, 1.0), ("you.", 1.0, 1.5)))
    inputs = {"audio": tmp_path / "audio.flac"}
    for kind, value in (
        ("asr", asr_of("Hello you.")),
        ("alignment", alignment),
        ("diarization", diarized((0, 4, "SPEAKER_00"))),
    ):
        inputs[kind] = tmp_path / f"{kind}.json"
        inputs[kind].write_text(value.model_dump_json(), encoding="utf-8")
    told: list[float] = []
    options = {"diarize": True, "model": "base"}
    meta = run_stage("merge", inputs, {"options": options}, RuntimeOptions(), tmp_path / "out.json", told.append)
    assert meta == {"language": "en", "duration": 4.0, "segments": 1, "words": 2, "speakers": 1, "warnings": 0}
    transcript = Transcript.model_validate_json((tmp_path / "out.json").read_bytes())
    assert spoken(transcript) == [("SPEAKER_00", "Hello you.")]
    assert transcript.options == options
    assert set(transcript.models) == {"asr", "align", "segmentation", "embedding"}
    assert {"whisperx", "torch", "pyannote.audio"} <= set(transcript.versions)
    assert told[-1] == 1.0
    inputs.pop("alignment"), inputs.pop("diarization")
    meta = run_stage("merge", inputs, {}, RuntimeOptions(), tmp_path / "out.json", told.append)
    assert (meta["segments"], meta["words"], meta["speakers"]) == (1, 0, 0)
    assert json.loads((tmp_path / "out.json").read_text())["segments"][0]["text"] == "Hello you."


def test_three_hours_of_words_and_turns() -> None:
    random.seed(1)
    segments = [
        sentence(*[(f"w{i}x{j}", i * 3.6 + j * 0.36, i * 3.6 + j * 0.36 + 0.3) for j in range(10)]) for i in range(3000)
    ]
    turns = [(i * 2.16, i * 2.16 + random.uniform(0.5, 3), f"SPEAKER_{random.randrange(8):02d}") for i in range(5000)]
    asr, alignment, diarization = asr_of(" ".join(s.text for s in segments)), aligned(*segments), diarized(*turns)
    began = time.perf_counter()
    transcript = merge(10_800, asr, alignment, diarization, {})
    print(f"30,000 words x 5,000 turns in {time.perf_counter() - began:.2f} s")
    assert len(transcript.word_segments) == 30_000
    assert all(word.speaker for word in transcript.word_segments)
