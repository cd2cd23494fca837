"""Formats with one line per segment: tab- and comma-separated values, Audacity labels, and WhisperX's plain text."""

from __future__ import annotations

import csv as _csv
import io
import re

from speech.formats.options import RenderOptions
from stenoflow.types import Transcript

_BREAKS = re.compile("[\x00-\x20\x7f-\x9f\u2028\u2029]+")
_NOT_IN_XML = re.compile("[\ud800-\udfff\ufffe\uffff]")


def one_line(text: str) -> str:
    """The text without line breaks, tabs and control characters, which would end a line or a field."""
    return _BREAKS.sub(" ", text).strip()


def xml_line(text: str) -> str:
    """The same without what XML cannot hold."""
    return _NOT_IN_XML.sub("\ufffd", one_line(text))


def whisperx_txt(transcript: Transcript) -> str:
    """`[SPEAKER_00]: text`, as whisperx.utils.WriteTXT."""
    lines: list[str] = []
    for segment in transcript.segments:
        if text := one_line(segment.text):
            lines.append(f"[{one_line(segment.speaker)}]: {text}\n" if segment.speaker is not None else f"{text}\n")
    return "".join(lines)


def tsv(transcript: Transcript, options: RenderOptions) -> str:
    """Start and end in whole milliseconds, the speaker if any is known, and the text, under a header.

    In WhisperX's layout without the speaker, as whisperx.utils.WriteTSV.
    """
    speakers = options.layout != "whisperx" and _speakers(transcript)
    lines = ["start\tend\tspeaker\ttext\n" if speakers else "start\tend\ttext\n"]
    for segment in transcript.segments:
        if text := one_line(segment.text):
            speaker = f"{one_line(segment.speaker or '')}\t" if speakers else ""
            lines.append(f"{round(1000 * segment.start)}\t{round(1000 * segment.end)}\t{speaker}{text}\n")
    return "".join(lines)


def csv(transcript: Transcript, options: RenderOptions) -> str:
    """Start and end in seconds, speaker and text, under a header, as RFC 4180 has it.

    A text that a spreadsheet would compute (it begins with `=`, `+`, `-` or `@`) is preceded by an apostrophe.
    """
    content = io.StringIO()
    writer = _csv.writer(content)
    writer.writerow(["start", "end", "speaker", "text"])
    for segment in transcript.segments:
        if text := one_line(segment.text):
            row = [_inert(one_line(segment.speaker or "")), _inert(text)]
            writer.writerow([f"{segment.start:.3f}", f"{segment.end:.3f}", *row])
    return content.getvalue()


def aud(transcript: Transcript, options: RenderOptions) -> str:
    """Start and end in seconds and the text after its speaker, which Audacity imports as labels.

    In WhisperX's layout `[[SPEAKER_00]]text`, as whisperx.utils.WriteAudacity.
    """
    before, after = ("[[", "]]") if options.layout == "whisperx" else ("", ": ")
    lines: list[str] = []
    for segment in transcript.segments:
        if text := one_line(segment.text):
            speaker = f"{before}{one_line(segment.speaker)}{after}" if segment.speaker is not None else ""
            lines.append(f"{round(segment.start, 3)}\t{round(segment.end, 3)}\t{speaker}{text}\n")
    return "".join(lines)


def _speakers(transcript: Transcript) -> bool:
    return any(segment.speaker is not None for segment in transcript.segments)


def _inert(text: str) -> str:
    return f"'{text}" if text[:1] in ("=", "+", "-", "@") else text
