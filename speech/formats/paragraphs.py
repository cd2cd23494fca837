"""A transcript as a person reads it: a paragraph per turn, with who speaks and when it begins."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from speech.formats.lines import one_line
from speech.languages import WITHOUT_SPACES, language_of_text
from stenoflow.types import Segment, Stretch, Transcript

LONGEST = 60.0
"""Seconds after which a paragraph of one speaker ends with its sentence."""
PAUSE = 4.0
"""Seconds of silence that end a paragraph."""


class Paragraph(NamedTuple):
    """What one speaker says in one language without interruption; nothing where words are missing."""

    start: float
    end: float
    speaker: str | None
    segments: tuple[Segment, ...]
    language: str
    """Of its text."""

    @property
    def text(self) -> str:
        joint = "" if self.language in WITHOUT_SPACES else " "
        return joint.join(one_line(segment.text) for segment in self.segments)


def paragraphs(transcript: Transcript) -> list[Paragraph]:
    """In order of time; where nothing was recognized although someone seems to speak, a paragraph without segments."""
    found: list[list[Segment]] = []
    for segment in transcript.segments:
        if not one_line(segment.text):
            continue
        last = found[-1] if found else None
        same = last is not None and (last[-1].speaker, last[-1].language) == (segment.speaker, segment.language)
        if last and same and _goes_on(last, segment, transcript.untranscribed):
            last.append(segment)
        else:
            found.append([segment])
    spoken = [
        Paragraph(part[0].start, part[-1].end, part[0].speaker, tuple(part), language_of_text(transcript, part[0]))
        for part in found
    ]
    usual = language_of_text(transcript)
    missing = [Paragraph(stretch.start, stretch.end, None, (), usual) for stretch in transcript.untranscribed]
    return sorted([*spoken, *missing], key=lambda paragraph: paragraph.start)


def _goes_on(paragraph: list[Segment], segment: Segment, missing: tuple[Stretch, ...]) -> bool:
    pause = segment.start - paragraph[-1].end > PAUSE or segment.end - paragraph[0].start > LONGEST
    return not pause and not any(paragraph[-1].end <= stretch.start < segment.start for stretch in missing)


def clock(seconds: float) -> str:
    """`0:14`, `1:02:03`."""
    minutes, second = divmod(max(int(seconds), 0), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"


def without_words(paragraph: Paragraph) -> str:
    """What stands where words are missing."""
    return f"no words recognized until {clock(paragraph.end)}"


def reading(transcript: Transcript) -> Iterator[str]:
    """Each paragraph as plain text."""
    for paragraph in paragraphs(transcript):
        head = f"[{clock(paragraph.start)}]"
        if not paragraph.segments:
            yield f"{head} [{without_words(paragraph)}]"
        else:
            speaker = f"{one_line(paragraph.speaker)} " if paragraph.speaker is not None else ""
            yield f"{speaker}{head} {paragraph.text}"
