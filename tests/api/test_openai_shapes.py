"""OpenAI's forms read, and transcripts in OpenAI's shapes."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel

from api.openai import forms, shapes
from api.openai.schemas import TranscriptionForm
from stenoflow.types import Segment, Transcript, VoiceMatch, Word


def spoken(*parts: tuple[str, str | None], language: str = "en", **fields: Any) -> Transcript:
    """A transcript of one second per part."""
    segments = tuple(
        Segment(
            start=number,
            end=number + 1,
            text=text,
            speaker=speaker,
            words=(Word(word=text, start=number, end=number + 1, score=0.9, timing="attention", speaker=speaker),),
        )
        for number, (text, speaker) in enumerate(parts)
    )
    words = tuple(word for segment in segments for word in segment.words)
    return Transcript(language=language, duration=float(len(parts)), segments=segments, word_segments=words, **fields)


def form(**fields: Any) -> TranscriptionForm:
    """As the parts of a form give it."""
    given = {"model": ["whisper-1"]} | {name: value if isinstance(value, list) else [value] for name, value in fields.items()}
    return forms.transcription(given, has_file=True)


def test_recognised_speakers_have_their_names_and_the_others_letters() -> None:
    transcript = spoken(
        ("one", "SPEAKER_00"),
        ("two", "SPEAKER_01"),
        ("three", "SPEAKER_02"),
        speaker_matches={"SPEAKER_01": VoiceMatch(name="Ben", score=0.8)},
    )
    assert [segment.speaker for segment in shapes.diarized(transcript).segments] == ["A", "Ben", "B"]


@pytest.mark.parametrize(
    ("asked", "there"), [([], {"segments"}), (["segment"], {"segments"}), (["word"], {"words"}), (["word", "segment"], None)]
)
@pytest.mark.parametrize("name", ["timestamp_granularities[]", "timestamp_granularities"])
def test_only_the_granularities_asked_for_are_there(name: str, asked: list[str], there: set[str] | None) -> None:
    found = shapes.rendered(spoken(("Hello.", None)), form(response_format="verbose_json", **({name: asked} if asked else {})))
    assert isinstance(found, BaseModel)
    assert {"segments", "words"} & set(found.model_dump(exclude_none=True)) == (there or {"segments", "words"})


def test_text_has_no_speakers_and_subtitles_have() -> None:
    talk = spoken(("Hello.", "SPEAKER_00"), ("Good day.", "SPEAKER_01"))
    assert shapes.rendered(talk, form(response_format="text")) == "Hello. Good day.\n"
    subtitles = shapes.rendered(talk, form(response_format="vtt"))
    assert isinstance(subtitles, str) and "[SPEAKER_01]: Good day." in subtitles


@pytest.mark.parametrize(
    ("asked", "diarize", "align", "on_failure"),
    [
        ({}, False, False, "degrade"),
        ({"response_format": "vtt"}, False, True, "degrade"),
        ({"stream": "true"}, False, True, "degrade"),
        ({"model": "gpt-4o-transcribe-diarize"}, True, True, "degrade"),
        ({"response_format": "diarized_json"}, True, True, "fail"),
    ],
)
def test_no_more_is_computed_than_is_shown(asked: dict[str, str], diarize: bool, align: bool, on_failure: str) -> None:
    job = forms.job_of(form(**asked))
    assert (job.diarize, job.align, job.on_diarization_failure, job.model) == (diarize, align, on_failure, "auto")


def test_several_speakers_and_scripts_without_spaces() -> None:
    talk = spoken(("你好", "SPEAKER_01"), ("早上好", None), ("再见", "SPEAKER_00"), language="zh")
    diarized = shapes.diarized(talk)
    assert [segment.speaker for segment in diarized.segments] == ["A", "unknown", "B"]
    assert diarized.text == "你好早上好再见"
    assert shapes.text_of(talk.model_copy(update={"options": {"task": "translate"}})) == "你好 早上好 再见"
    events = [event.model_dump() for event in shapes.events(talk, form(response_format="diarized_json"))]
    assert [event.get("segment_id") or event.get("id") for event in events] == [
        *("seg_000", "seg_000", "seg_001", "seg_001", "seg_002", "seg_002"),
        None,
    ]
    crowd = spoken(*(("So.", f"SPEAKER_{number:02d}") for number in range(28)))
    assert [part.speaker for part in shapes.diarized(crowd).segments][24:] == ["Y", "Z", "AA", "AB"]


def test_silence_has_no_text_and_one_event() -> None:
    silence = spoken()
    assert shapes.verbose(silence, form()).segments == []
    assert [event.model_dump() for event in shapes.events(silence, form())] == [{"type": "transcript.text.done", "text": ""}]


def test_voice_activity_detection_without_thresholds_is_what_there_is() -> None:
    assert form(**{"chunking_strategy[type]": "server_vad"}).chunking_strategy == "auto"
