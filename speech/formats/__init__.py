"""A transcript as text, in each format there is. Pure rendering: no model, no file, no clock."""

from __future__ import annotations

from collections.abc import Callable

from speech.errors import InvalidOption
from speech.formats.lines import aud, tsv, txt
from speech.formats.options import RenderOptions
from speech.formats.rttm import rttm
from speech.formats.subtitles import srt, vtt
from speech.formats.whisperx_json import json
from speech.schema import Transcript

__all__ = ["FORMATS", "RenderOptions", "render"]

Renderer = Callable[[Transcript, RenderOptions], str]

FORMATS: dict[str, Renderer] = {"json": json, "srt": srt, "vtt": vtt, "txt": txt, "tsv": tsv, "rttm": rttm, "aud": aud}


def render(transcript: Transcript, format: str, options: RenderOptions | None = None) -> str:
    """The transcript as the text of a file in `format`. Raises InvalidOption for a format that is not in FORMATS."""
    if format not in FORMATS:
        raise InvalidOption(f"Unknown format {format!r}: choose from {', '.join(FORMATS)}.")
    return FORMATS[format](transcript, options or RenderOptions())
