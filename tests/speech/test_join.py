"""Several channels become one transcript: a speaker each, overlaps kept, what bled over left out."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from speech.bleed import FRAME
from speech.formats import RenderOptions, render
from speech.join import Stream, join
from speech.schema import AlignResult, AsrResult, Diarization, StreamParams
from stenoflow.types import Segment, Stretch, Transcript, Turn
from tests.speech.test_merge import aligned, asr_of, diarized, sentence

Words = tuple[tuple[str, float, float], ...]
LONG = 30.0


def loud(*spans: tuple[float, float, float]) -> np.ndarray:
    """(frames,) levels: dBFS in the spans, noise elsewhere."""
    levels = np.full(round(LONG / FRAME), -90.0, np.float32)
    for start, end, level in spans:
        part = slice(round(start / FRAME), round(end / FRAME))
        levels[part] = np.maximum(levels[part], level)
    return levels


def stream(
    channel: int,
    *segments: Segment,
    levels: np.ndarray | None = None,
    name: str | None = None,
    diarization: Diarization | None = None,
    warnings: tuple[str, ...] = (),
    untranscribed: tuple[Stretch, ...] = (),
) -> Stream:
    spans = [(word.start, word.end, -20.0) for segment in segments for word in segment.words]
    asr: AsrResult = asr_of(*(segment.text for segment in segments), warnings=warnings).model_copy(
        update={"untranscribed": untranscribed}
    )
    asr = asr.model_copy(
        update={
            "segments": tuple(
                part.model_copy(
                    update={
                        "start": segment.start,
                        "end": segment.end,
                        "words": tuple({"word": w.word, "start": w.start, "end": w.end, "score": 1.0} for w in segment.words),
                    }
                )
                for part, segment in zip(asr.segments, segments, strict=True)
            )
        }
    )
    alignment: AlignResult | None = aligned(*segments) if segments else None
    about = StreamParams(channel=None if name else channel, name=name)
    return Stream(about, asr, alignment, diarization, LONG, loud(*spans) if levels is None else levels)


def joined(*streams: Stream) -> Transcript:
    return join(LONG, streams, {})


def said(transcript: Transcript) -> list[tuple[str | None, str]]:
    return [(segment.speaker, segment.text) for segment in transcript.segments]


ASKS = sentence(("How", 1.0, 1.2), ("are", 1.2, 1.4), ("you?", 1.4, 1.8))
ANSWERS = sentence(("Fine,", 2.2, 2.6), ("thanks.", 2.6, 3.0))


def test_channels_take_turns_in_one_transcript_with_a_speaker_for_each() -> None:
    transcript = joined(stream(1, ASKS), stream(2, ANSWERS))
    assert said(transcript) == [("SPEAKER_00", "How are you?"), ("SPEAKER_01", "Fine, thanks.")]
    assert [segment.channel for segment in transcript.segments] == [1, 2]
    assert transcript.turns == (Turn(start=1.0, end=1.8, speaker="SPEAKER_00"), Turn(start=2.2, end=3.0, speaker="SPEAKER_01"))
    assert [word.word for word in transcript.word_segments] == ["How", "are", "you?", "Fine,", "thanks."]
    assert all(word.speaker == segment.speaker for segment in transcript.segments for word in segment.words)


def test_a_channel_without_a_word_keeps_its_number() -> None:
    transcript = joined(stream(1, levels=loud()), stream(2, ANSWERS))
    assert said(transcript) == [("SPEAKER_01", "Fine, thanks.")]
    assert transcript.warnings == ()


def test_silence_on_all_channels_is_said_once() -> None:
    silent = [stream(number, levels=loud(), warnings=("No speech was found.",)) for number in (1, 2)]
    transcript = joined(*silent)
    assert (transcript.segments, transcript.speakers, transcript.warnings) == ((), (), ("No speech was found.",))


def test_overlapping_speech_is_kept_whole() -> None:
    tells = sentence(
        *((word, 1 + i * 0.5, 1.4 + i * 0.5) for i, word in enumerate(["so", "then", "we", "went", "down", "to", "the", "sea"]))
    )
    yes = sentence(("Really?", 2.6, 3.0))
    transcript = joined(stream(1, tells), stream(2, yes))
    assert said(transcript) == [("SPEAKER_00", tells.text), ("SPEAKER_01", "Really?")]


def test_a_sentence_is_cut_in_a_pause_in_which_somebody_else_begins() -> None:
    tells = sentence(("Well", 1.0, 1.4), ("then,", 1.4, 1.8), ("we", 3.4, 3.6), ("left.", 3.6, 4.0))
    transcript = joined(stream(1, tells), stream(2, sentence(("Yes?", 2.2, 2.6))))
    assert said(transcript) == [("SPEAKER_00", "Well then,"), ("SPEAKER_01", "Yes?"), ("SPEAKER_00", "we left.")]


def test_speakers_within_a_channel_are_numbered_on() -> None:
    two = diarized((0.9, 1.35, "SPEAKER_00"), (1.35, 1.9, "SPEAKER_01"))
    transcript = joined(stream(1, ASKS, diarization=two), stream(2, ANSWERS))
    assert transcript.speakers == ("SPEAKER_00", "SPEAKER_01", "SPEAKER_02")
    assert said(transcript)[-1] == ("SPEAKER_02", "Fine, thanks.")


def test_tracks_have_their_names() -> None:
    transcript = joined(stream(1, ASKS, name="alice"), stream(2, ANSWERS, name="bob"))
    assert transcript.speaker_names == {"SPEAKER_00": "alice", "SPEAKER_01": "bob"}
    assert b"alice" in render(transcript, "txt", RenderOptions())
    assert "channel" not in json.loads(transcript.model_dump_json())["segments"][0]


def test_a_warning_of_one_channel_says_whose_it_is() -> None:
    transcript = joined(stream(1, ASKS, warnings=("The language is unclear.",)), stream(2, ANSWERS))
    assert transcript.warnings == ("Channel 1: The language is unclear.",)


def test_speech_without_words_is_named_only_where_it_is_the_loudest() -> None:
    lost = Stretch(start=10.0, end=13.0)
    here, there = loud((1, 1.8, -20), (10, 13, -20)), loud((2.2, 3, -20), (10, 13, -40))
    transcript = joined(
        stream(1, ASKS, levels=here, untranscribed=(lost,)), stream(2, ANSWERS, levels=there, untranscribed=(lost,))
    )
    assert transcript.untranscribed == (lost,)
    assert transcript.warnings == ("Someone seems to speak, but no words were recognized, at 10.0–13.0 s.",)


# -- bleed --------------------------------------------------------------------------------------------------------------

BLED = {
    "word for word": sentence(("How", 1.02, 1.2), ("are", 1.2, 1.42), ("you?", 1.45, 1.8)),
    "misheard": sentence(("Now", 1.02, 1.2), ("or", 1.2, 1.42), ("two.", 1.45, 1.8)),
}


@pytest.mark.parametrize("case", BLED)
def test_words_that_bled_over_are_left_out(case: str) -> None:
    here = loud((1, 1.8, -20), (2.2, 3, -42))
    there = loud((1, 1.8, -40), (2.2, 3, -22))
    transcript = joined(stream(1, ASKS, levels=here), stream(2, BLED[case], ANSWERS, levels=there))
    assert said(transcript) == [("SPEAKER_00", "How are you?"), ("SPEAKER_01", "Fine, thanks.")]
    assert [(turn.start, turn.speaker) for turn in transcript.turns] == [(1.0, "SPEAKER_00"), (2.2, "SPEAKER_01")]


def test_a_word_of_ones_own_that_is_timed_into_another_voice_stays() -> None:
    """Recognizers place the last word of a sentence up to half a second late."""
    here = loud((1, 1.4, -20), (1.4, 4, -42))
    there = loud((1.4, 4, -20), (1, 1.4, -42))
    tells = sentence(*((word, 1.4 + i * 0.4, 1.8 + i * 0.4) for i, word in enumerate(["so", "then", "we", "went", "down"])))
    transcript = joined(stream(1, ASKS, levels=here), stream(2, tells, levels=there))
    assert said(transcript) == [("SPEAKER_00", "How are you?"), ("SPEAKER_01", tells.text)]


def test_both_are_kept_where_two_speak_at_once_over_the_bleed() -> None:
    tells = sentence(
        *((word, 1 + i * 0.4, 1.4 + i * 0.4) for i, word in enumerate(["so", "then", "we", "went", "down", "to", "the", "sea"]))
    )
    here, there = loud((1, 4.2, -20)), loud((1, 4.2, -40), (2.0, 2.6, -26))
    transcript = joined(stream(1, tells, levels=here), stream(2, sentence(("No", 2.0, 2.3), ("way", 2.3, 2.6)), levels=there))
    assert said(transcript) == [("SPEAKER_00", tells.text), ("SPEAKER_01", "No way")]


def test_two_who_say_the_same_at_once_as_loudly_both_did() -> None:
    yes = sentence(("Yes!", 1.0, 1.4))
    transcript = joined(stream(1, yes), stream(2, yes))
    assert said(transcript) == [("SPEAKER_00", "Yes!"), ("SPEAKER_01", "Yes!")]


def test_a_quiet_party_is_not_taken_for_bleed_of_a_loud_one() -> None:
    """The telephone's other side is often 20 dB quieter."""
    here, there = loud((1, 1.8, -12)), loud((2.2, 3, -34))
    transcript = joined(stream(1, ASKS, levels=here), stream(2, ANSWERS, levels=there))
    assert len(transcript.segments) == 2


# -- files --------------------------------------------------------------------------------------------------------------


def test_subtitles_of_overlapping_speech_come_when_it_is_said() -> None:
    tells = sentence(
        *((word, 1 + i * 0.5, 1.4 + i * 0.5) for i, word in enumerate(("so then we went down to the sea and " * 3).split()))
    )
    transcript = joined(stream(1, tells), stream(2, sentence(("Really?", 6.0, 6.5))))
    lines = render(transcript, "srt", RenderOptions()).decode().splitlines()
    times = [line.split(" --> ") for line in lines if "-->" in line]
    assert [begin for begin, _ in times] == sorted(begin for begin, _ in times)
    shown = next(index for index, line in enumerate(lines) if "Really?" in line)
    begin = next(line for line in reversed(lines[:shown]) if "-->" in line)[:12]
    assert "00:00:04,000" <= begin <= "00:00:06,500"
    assert all(one[1] <= other[0] for one, other in pairwise(times))


def test_json_has_the_channel_and_leaves_it_out_elsewhere(tmp_path: Path) -> None:
    transcript = joined(stream(1, ASKS), stream(2, ANSWERS))
    shown = json.loads(render(transcript, "json", RenderOptions()))
    assert [segment["channel"] for segment in shown["segments"]] == [1, 2]
