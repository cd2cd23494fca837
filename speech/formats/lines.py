"""Formats with one line per segment: plain text, tab-separated values, Audacity labels."""

from __future__ import annotations

import re

from speech.formats.options import RenderOptions
from stenoflow.types import Transcript

_BREAKS = re.compile("[\x00-\x20\x7f-\x9f\u2028\u2029]+")


def one_line(text: str) -> str:
    """The text without line breaks, tabs and control characters, which would end a line or a field."""
    return _BREAKS.sub(" ", text).strip()


def txt(transcript: Transcript, options: RenderOptions) -> str:
    """`[SPEAKER_00]: text`, as whisperx.utils.WriteTXT."""
    lines: list[str] = []
    for segment in transcript.segments:
        if text := one_line(segment.text):
            lines.append(f"[{one_line(segment.speaker)}]: {text}\n" if segment.speaker is not None else f"{text}\n")
    return "".join(lines)


def tsv(transcript: Transcript, options: RenderOptions) -> str:
    """Start and end in whole milliseconds and the text, under a header, as whisperx.utils.WriteTSV."""
    lines = ["start\tend\ttext\n"]
    for segment in transcript.segments:
        if text := one_line(segment.text):
            lines.append(f"{round(1000 * segment.start)}\t{round(1000 * segment.end)}\t{text}\n")
    return "".join(lines)


def aud(transcript: Transcript, options: RenderOptions) -> str:
    """Start and end in seconds and `[[SPEAKER_00]]text`, which Audacity imports as labels; whisperx.utils.WriteAudacity."""
    lines: list[str] = []
    for segment in transcript.segments:
        if text := one_line(segment.text):
            speaker = f"[[{one_line(segment.speaker)}]]" if segment.speaker is not None else ""
            lines.append(f"{round(segment.start, 3)}\t{round(segment.end, 3)}\t{speaker}{text}\n")
    return "".join(lines)
