"""What a report takes from the transcript itself: who speaks when, how it begins, and what it was made with."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from flows.report.timeline import Span
from infra.artifacts import ArtifactRef
from infra.compute import get_store
from infra.settings import get_settings

_LETTERS_PER_WORD = 8
"""Bounds the beginning of a text that has no spaces."""


class Utterance(NamedTuple):
    """What one speaker says until another does, or as much of it as is shown."""

    start: float
    speaker: str
    text: str


class Contents(NamedTuple):
    spans: tuple[Span, ...]
    beginning: tuple[Utterance, ...]
    models: dict[str, str]
    """Role to `name@revision`."""


NOTHING = Contents((), (), {})


def read_contents(transcript: ArtifactRef) -> Contents:
    """The transcript's contents as far as its report shows them. Call it from a worker thread."""
    with get_store().local(transcript) as path:
        # Not through the schema: validating the words of three hours takes a second, and nothing here looks at them.
        document = json.loads(path.read_bytes())
    words = get_settings().report.preview_words
    return Contents(
        spans=tuple(_spans(document)),
        beginning=tuple(beginning(document["segments"], words)) if words else (),
        models={role: f"{model['name']} ({model['revision']})" for role, model in document["models"].items()},
    )


def beginning(segments: Iterable[Mapping[str, Any]], words: int) -> Iterator[Utterance]:
    """The first `words` words by speaker; the last of them ends in an ellipsis when the text goes on."""
    said: list[Utterance] = []
    letters = words * _LETTERS_PER_WORD
    for segment in segments:
        if words <= 0 or letters <= 0:
            said[-1] = said[-1]._replace(text=said[-1].text + " …")
            break
        parts = segment["text"].split()
        text = " ".join(parts[:words])[:letters]
        cut = len(parts) > words or len(" ".join(parts)) > letters
        words, letters = words - len(parts), letters - len(text)
        text += " …" if cut else ""
        speaker = segment.get("speaker") or ""
        if said and said[-1].speaker == speaker:
            said[-1] = said[-1]._replace(text=f"{said[-1].text} {text}")
        else:
            said.append(Utterance(segment["start"], speaker, text))
        if cut:
            break
    yield from said


def _spans(document: Mapping[str, Any]) -> Iterator[Span]:
    """The turns, or where there are none, when anyone speaks."""
    if document["turns"]:
        yield from (Span(turn["start"], turn["end"], turn["speaker"]) for turn in document["turns"])
    else:
        yield from (Span(segment["start"], segment["end"], "speech") for segment in document["segments"])
