"""A conversation in pieces of five seconds: what was said, when, and by whom, as if it had been one recording."""

from __future__ import annotations

import itertools
import re
from typing import Literal, NamedTuple

import jiwer
import numpy as np
import pytest

from bench.demo import sample_recording
from speech.audio import InMemoryRecording
from speech.borders import decoder_prompt, first_unanswered, is_cut
from speech.diarize import labelled_turns
from speech.diarize.embedding import embed
from speech.diarize.networks import Embedder, Segmenter
from speech.diarize.segmentation import Segmentation, segment
from speech.schema import SAMPLE_RATE, ClusterParams, Region, RuntimeOptions
from speech.scoring import diarization_errors
from speech.session import ChunkParams, SentWord, Session, Voice
from speech.streaming import Answer, pcm, text_language_of, transcribe_chunk
from speech.voices import MOST_VOICES, recognised
from stenoflow.errors import InvalidOption
from stenoflow.types import Word
from tests import media

PIECE = 5 * SAMPLE_RATE
NOTHING = np.zeros(0, dtype=np.float32)
CALL = ChunkParams(model="tiny.en", diarize=True)


class Spoken(NamedTuple):
    answers: list[Answer]
    words: list[Word]
    states: list[Session]


def played(samples: np.ndarray, params: ChunkParams, runtime: RuntimeOptions) -> Spoken:
    """The recording in pieces of five seconds; between two of them the session is bytes."""
    session = Session(params)
    answers, states = [], []
    for first in range(0, len(samples), PIECE):
        session = Session.from_bytes(session.to_bytes())
        answers.append(transcribe_chunk(samples[first : first + PIECE], session, params, runtime))
        session = answers[-1].session
        states.append(session)
    answers.append(transcribe_chunk(NOTHING, session, params, runtime))
    return Spoken(answers, [word for answer in answers for word in answer.words], states)


@pytest.fixture(scope="module")
def spoken(runtime: RuntimeOptions) -> Spoken:
    """pyannote's sample: a real call of two people, 30 s."""
    return played(media.speech(), CALL, runtime)


def plain(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())


def activity() -> list[tuple[str, float, float]]:
    rows = [line.split() for line in sample_recording().with_suffix(".rttm").read_text().splitlines() if line.strip()]
    return [(row[7], float(row[3]), float(row[3]) + float(row[4])) for row in rows]


@pytest.mark.slow
def test_text_of_the_pieces_is_the_text_of_the_call(spoken: Spoken) -> None:
    lines = sample_recording().with_suffix(".stm").read_text().splitlines()
    said = [word for line in lines if line.strip() for word in plain(" ".join(line.split()[5:]))]
    heard = [part for word in spoken.words for part in plain(word.word)]
    # A few more than of the undivided call, of which tiny.en gets 12 %.
    assert jiwer.wer(" ".join(said), " ".join(heard)) <= 0.25


@pytest.mark.slow
def test_times_are_the_sessions_and_never_run_backwards(spoken: Spoken) -> None:
    assert all(before.start <= after.start for before, after in itertools.pairwise(spoken.words))
    for number, answer in enumerate(spoken.answers[:-1]):
        assert all(number * 5.0 - 1.6 <= word.start <= word.end <= (number + 1) * 5.0 for word in answer.words)
    assert spoken.states[-1].elapsed == pytest.approx(30.0)


@pytest.mark.slow
def test_a_speaker_keeps_the_name_from_piece_to_piece(spoken: Spoken) -> None:
    found = [(str(word.speaker), word.start, word.end) for word in spoken.words]
    assert {speaker for speaker, _, _ in found} == {"SPEAKER_00", "SPEAKER_01"}
    truth = activity()
    owners = {"SPEAKER_00": truth[0][0], "SPEAKER_01": next(name for name, _, _ in truth if name != truth[0][0])}
    wrong = [
        word
        for word in found
        if not any(name == owners[word[0]] and start < word[2] and word[1] < end for name, start, end in truth)
        and any(start < word[2] and word[1] < end for _, start, end in truth)
    ]
    # Whoever has only just begun to speak may be taken for the other; nobody is later on. (Word times, and with them a word or
    # two at either side of a change, differ with how a processor rounds.)
    assert [word for word in wrong if any(start + 1.0 <= word[1] < end for _, start, end in truth)] == []
    assert len(wrong) <= 0.1 * len(found)


@pytest.mark.slow
def test_a_word_that_the_end_cuts_is_answered_whole_with_the_next_piece(spoken: Spoken) -> None:
    cut = [state.held_from for state in spoken.states if state.held_from is not None]
    assert len(cut) >= 3
    for begins in cut:
        near = [word for word in spoken.words if abs(word.start - begins) < 0.5]
        assert near
    assert spoken.answers[-1].session.held_from is None


@pytest.mark.slow
def test_segments_are_the_words(spoken: Spoken) -> None:
    for answer in spoken.answers:
        assert [word for part in answer.segments for word in part.words] == list(answer.words)
        for part in answer.segments:
            assert part.text.split() == [word.word for word in part.words]
            assert {word.speaker for word in part.words} == {part.speaker}


@pytest.mark.slow
def test_a_session_stays_small(spoken: Spoken) -> None:
    assert max(len(state.to_bytes()) for state in spoken.states) < 400_000


def test_a_chunk_alone_is_answered_to_its_last_word(runtime: RuntimeOptions) -> None:
    params = CALL.model_copy(update={"diarize": False, "align": False})
    answer = transcribe_chunk(media.speech()[int(10.8 * SAMPLE_RATE) : 15 * SAMPLE_RATE], None, params, runtime)
    text = " ".join(part.text for part in answer.segments)
    assert "New Jersey" in text
    assert answer.session.held_from is None
    assert answer.words == ()
    assert all(part.words == () and part.speaker is None for part in answer.segments)


def test_the_same_chunk_again_has_the_same_text(runtime: RuntimeOptions) -> None:
    params = CALL.model_copy(update={"diarize": False})
    samples, session, texts = media.speech()[10 * SAMPLE_RATE : 17 * SAMPLE_RATE], Session(params), []
    for number in range(3):
        answer = transcribe_chunk(samples, session, params, runtime, final=True)
        session = answer.session
        texts.append([word.word for word in answer.words])
        assert all(7.0 * number <= word.start <= 7.0 * (number + 1) for word in answer.words)
    assert texts[0] == texts[1] == texts[2] and texts[0][-1].startswith("originally")


@pytest.mark.parametrize("samples", [0, 1, 160, PIECE])
def test_silence_and_scraps_of_it_are_no_words(samples: int, runtime: RuntimeOptions) -> None:
    session = Session(CALL)
    for _ in range(2):
        answer = transcribe_chunk(np.zeros(samples, dtype=np.float32), session, CALL, runtime)
        session = answer.session
        assert answer.segments == ()
    assert session.samples == 2 * samples
    assert session.voices == ()


# -- what is refused ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("samples", "says"),
    [
        (np.zeros((2, 100), dtype=np.float32), "one channel"),
        (np.full(100, np.nan, dtype=np.float32), "NaN"),
        (np.full(100, -np.inf, dtype=np.float32), "infinite"),
        (np.full(100, 20_000, dtype=np.float32), "divide 16-bit samples by 32768"),
    ],
)
def test_what_is_no_sound_is_refused(samples: np.ndarray, says: str) -> None:
    with pytest.raises(InvalidOption, match=says):
        pcm(samples)


def test_samples_a_little_too_loud_are_clipped() -> None:
    assert pcm(np.asarray([1.3, -1.3, 0.5], dtype=np.float32)).tolist() == [32767, -32768, 16384]


@pytest.mark.parametrize(
    "change", [{"language": "fr"}, {"diarize": False}, {"max_speakers": 3}, {"model": "base"}, {"task": "translate"}]
)
def test_a_session_keeps_its_options(change: dict[str, object]) -> None:
    session = Session(CALL, language="en", language_settled=True)
    with pytest.raises(InvalidOption, match=next(iter(change))):
        session.accepting(CALL.model_copy(update=change))


def test_hints_may_change_and_the_language_that_was_found_may_be_said() -> None:
    session = Session(CALL, language="en", language_settled=True)
    hinted = session.accepting(CALL.model_copy(update={"language": "en", "hotwords": "Diane", "initial_prompt": "A call."}))
    assert (hinted.params.hotwords, hinted.params.initial_prompt) == ("Diane", "A call.")


@pytest.mark.parametrize("data", [b"", b"no archive", b"PK\x03\x04 and no more"])
def test_a_state_that_is_none_is_said_to_be_none(data: bytes) -> None:
    with pytest.raises(InvalidOption, match="start a new session"):
        Session.from_bytes(data)


def test_a_state_comes_back_as_it_was() -> None:
    session = Session(
        CALL,
        samples=99,
        tail=np.arange(-50, 49, dtype=np.int16),
        words=(SentWord("Grüße", 0.1, 0.4),),
        held_from=0.5,
        language="de",
        voices=(Voice(np.asarray([0.6, 0.8], dtype=np.float32), 2.5),),
    )
    again = Session.from_bytes(session.to_bytes())
    assert again.tail.tolist() == session.tail.tolist()
    assert again.voices[0].centroid.tolist() == session.voices[0].centroid.tolist()
    assert again._replace(tail=session.tail, voices=session.voices) == session


# -- text at a border ---------------------------------------------------------------------------------------------------


def heard(text: str, start: float = 0.0) -> list[Word]:
    """Words of half a second each."""
    return [
        Word(word=word, start=start + i / 2, end=start + (i + 1) / 2, score=1.0, timing="attention")
        for i, word in enumerate(text.split())
    ]


def said(text: str, start: float = 0.0) -> list[SentWord]:
    return [SentWord(word.word, word.start, word.end) for word in heard(text, start)]


@pytest.mark.parametrize(
    ("before", "now", "answered", "new"),
    [
        ("we went to", "we went to the sea", 1.5, "the sea"),
        ("We went.", "we went to the sea", 1.2, "to the sea"),
        ("so no no", "so no no no never", 1.5, "no never"),
        ("we want two", "we went to the sea", 1.5, "the sea"),
        ("", "the sea", 0.0, "the sea"),
        ("we went home", "we went home", 1.5, ""),
    ],
)
def test_words_that_were_answered_are_not_answered_again(before: str, now: str, answered: float, new: str) -> None:
    words = heard(now)
    assert [word.word for word in words[first_unanswered(said(before), words, answered) :]] == new.split()


def test_the_same_word_a_minute_ago_is_another_one() -> None:
    assert first_unanswered(said("sea"), heard("the sea", 60.0), 60.0) == 0


@pytest.mark.parametrize(("voice_ends", "cut"), [(1.98, True), (1.7, False)])
def test_a_word_is_cut_when_the_voice_goes_on_to_the_end(voice_ends: float, cut: bool) -> None:
    word = heard("sea", 1.5)[0]
    assert is_cut(word, [Region(start=0.2, end=voice_ends)], 2.0) is cut


def test_the_decoder_is_told_what_came_before_the_audio_but_not_what_is_in_it() -> None:
    assert decoder_prompt("A walk.", said("we went to the sea"), 1.5, "en") == "A walk. we went to"
    assert decoder_prompt(None, [], 1.5, "en") is None


@pytest.mark.parametrize(("task", "prompt"), [("transcribe", "今日は海"), ("translate", "to the sea")])
def test_words_of_a_translation_are_joined_with_spaces_whatever_was_spoken(
    task: Literal["transcribe", "translate"], prompt: str
) -> None:
    session = Session(ChunkParams(task=task), language="ja")
    words = said(prompt if task == "translate" else "今日 は 海")
    assert decoder_prompt(None, words, 9.0, text_language_of(session)) == prompt


def test_the_decoder_is_not_told_a_text_that_repeats_itself() -> None:
    assert decoder_prompt(None, said("again and " * 20), 60.0, "en") is None


# -- voices -------------------------------------------------------------------------------------------------------------

FRAMES, STEP = 589, 0.0169


def one_window(*spans: tuple[float, float]) -> Segmentation:
    """A window of ten seconds, each of whose speakers is active in one span of it."""
    activity = np.zeros((1, FRAMES, len(spans)), dtype=bool)
    for speaker, (start, end) in enumerate(spans):
        activity[0, round(start / STEP) : round(end / STEP), speaker] = True
    return Segmentation(activity, activity[0].any(axis=1).astype(np.float32), STEP, 0.0, 10 * SAMPLE_RATE)


def voice(direction: int, seconds: float = 10.0) -> Voice:
    return Voice(np.eye(8, dtype=np.float32)[direction], seconds)


def between(one: int, other: int, similarity: float) -> np.ndarray:
    """A unit vector that is so similar to one direction, and leans to the other."""
    axes = np.eye(8, dtype=np.float32)
    return similarity * axes[one] + np.sqrt(1 - similarity**2) * axes[other]


def matched(
    segmentation: Segmentation, vectors: list[np.ndarray], known: list[Voice], **limits: int
) -> tuple[list[int], tuple[Voice, ...]]:
    labels, voices = recognised(segmentation, np.asarray([vectors], np.float32), known, 0.0, ClusterParams(**limits))
    return labels[0].tolist(), voices


def test_known_voices_are_recognised_and_remembered_better() -> None:
    labels, voices = matched(one_window((0, 4), (5, 9)), [between(1, 5, 0.8), between(0, 6, 0.8)], [voice(0), voice(1)])
    assert labels == [1, 0]
    assert voices[0].seconds == pytest.approx(14.0, abs=0.1)
    assert voices[0].centroid[6] > 0.1


def test_a_voice_unlike_all_others_is_a_new_speaker() -> None:
    labels, voices = matched(one_window((0, 4), (5, 9)), [between(0, 5, 0.9), between(2, 0, 0.95)], [voice(0), voice(1)])
    assert labels == [0, 2]
    assert len(voices) == 3


def test_a_short_voice_is_taken_for_the_likeliest_speaker_known() -> None:
    labels, voices = matched(one_window((2, 3)), [between(2, 1, 0.95)], [voice(0), voice(1)])
    assert labels == [1]
    assert len(voices) == 2


def test_no_more_speakers_than_allowed() -> None:
    labels, _ = matched(
        one_window((0, 4), (5, 9)), [between(3, 0, 0.9), between(4, 1, 0.9)], [voice(0), voice(1)], max_speakers=2
    )
    assert sorted(labels) == [0, 1]
    labels, voices = matched(one_window((0, 4), (5, 9)), [between(3, 0, 0.9), between(4, 1, 0.9)], [], max_speakers=1)
    assert labels == [0, 0]
    assert len(voices) == 1
    crowd = [voice(0)] * MOST_VOICES
    assert len(matched(one_window((0, 4)), [between(3, 0, 0.9)], crowd)[1]) == MOST_VOICES


def test_a_second_speaker_who_must_be_there_is_found_sooner() -> None:
    likeness = [between(0, 5, 0.6)]
    assert matched(one_window((0, 4)), likeness, [voice(0)])[0] == [0]
    assert matched(one_window((0, 4)), likeness, [voice(0)], min_speakers=2)[0] == [1]


def test_who_first_said_one_syllable_is_no_speaker_for_good() -> None:
    _, voices = matched(one_window((2, 2.3)), [between(2, 1, 0.95)], [])
    labels, voices = matched(one_window((0, 4)), [between(4, 1, 0.95)], list(voices))
    assert labels == [0]
    assert len(voices) == 1


def test_a_voice_without_an_embedding_spoils_none() -> None:
    nothing = np.full(8, np.nan, dtype=np.float32)
    labels, voices = matched(one_window((0, 0.03)), [nothing], [voice(0)])
    assert labels == [0]
    assert voices[0].centroid.tolist() == voice(0).centroid.tolist()
    _, unknown = matched(one_window((0, 0.03)), [nothing], [])
    assert matched(one_window((0, 4)), [between(4, 1, 0.95)], list(unknown))[0] == [0]


@pytest.mark.slow
def test_two_speakers_of_a_longer_talk_stay_apart(segmenter: Segmenter, embedder: Embedder) -> None:
    samples, truth = long_talk()
    voices: tuple[Voice, ...] = ()
    found = []
    for border in range(0, len(samples), PIECE):
        begin, end = max(0, border - 2 * PIECE), border + PIECE
        audio = InMemoryRecording(pcm(samples[begin:end]))
        segmentation = segment(audio, segmenter, lambda fraction: None)
        vectors, _ = embed(audio, segmentation, embedder, lambda fraction: None)
        labels, voices = recognised(segmentation, vectors, voices, (border - begin) / SAMPLE_RATE, ClusterParams())
        turns, _ = labelled_turns(segmentation, labels, len(voices), ClusterParams())
        shifted = [(name, start + begin / SAMPLE_RATE, stop + begin / SAMPLE_RATE) for start, stop, name in turns]
        found += [
            (f"{name}", max(start, border / SAMPLE_RATE), stop) for name, start, stop in shifted if stop > border / SAMPLE_RATE
        ]
    assert len(voices) == 2
    errors = diarization_errors(truth, found, len(samples) / SAMPLE_RATE)
    assert errors.confusion <= 0.08 * errors.total


def long_talk() -> tuple[np.ndarray, list[tuple[str, float, float]]]:
    """A minute and a quarter of the call's two people, in another order and with other pauses."""
    chance = np.random.default_rng(5)
    alone = [turn for turn in activity() if turn[2] - turn[1] > 1.5 and turn[0]]
    parts: list[np.ndarray] = []
    truth: list[tuple[str, float, float]] = []
    at = 0.0
    while at < 75.0:
        name, start, end = alone[int(chance.integers(len(alone)))]
        pause = float(chance.uniform(0.1, 1.0))
        parts += [
            media.speech()[int(start * SAMPLE_RATE) : int(end * SAMPLE_RATE)],
            np.zeros(int(pause * SAMPLE_RATE), np.float32),
        ]
        truth.append((name, at, at + end - start))
        at += end - start + pause
    samples = np.concatenate(parts)
    return samples + chance.normal(0.0, 5e-4, len(samples)).astype(np.float32), truth
