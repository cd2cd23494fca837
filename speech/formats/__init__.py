"""A transcript as text, in each format there is. Pure rendering: no model, no file, no clock."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from speech.formats.lines import aud, tsv, txt
from speech.formats.lrc import lrc
from speech.formats.options import RenderOptions
from speech.formats.rttm import rttm
from speech.formats.subtitles import srt, vtt
from speech.formats.whisperx_json import json
from stenoflow.errors import InvalidOption
from stenoflow.types import Transcript

__all__ = ["FORMATS", "Format", "RenderOptions", "render"]


class Format(NamedTuple):
    """One kind of file."""

    render: Callable[[Transcript, RenderOptions], str]
    media_type: str = "text/plain"


FORMATS: dict[str, Format] = {
    "json": Format(json, "application/json"),
    "srt": Format(srt, "application/x-subrip"),
    "vtt": Format(vtt, "text/vtt"),
    "txt": Format(txt),
    "tsv": Format(tsv, "text/tab-separated-values"),
    "rttm": Format(rttm),
    "aud": Format(aud),
    "lrc": Format(lrc),
}
"""By name, which is the file's extension. Every door offers what stands here."""


def render(transcript: Transcript, format: str, options: RenderOptions | None = None) -> str:
    """The transcript as the text of a file in `format`. Raises InvalidOption for a format that is not in FORMATS."""
    if format not in FORMATS:
        raise InvalidOption(f"Unknown format {format!r}: choose from {', '.join(FORMATS)}.")
    return FORMATS[format].render(transcript, options or RenderOptions())
