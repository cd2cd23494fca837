"""A transcript as text, in each format there is. Pure rendering: no model, no file, no clock."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from speech.formats.document import docx
from speech.formats.eaf import eaf
from speech.formats.lines import aud, csv, tsv
from speech.formats.lrc import lrc
from speech.formats.markdown import md
from speech.formats.options import RenderOptions
from speech.formats.page import html
from speech.formats.rttm import rttm
from speech.formats.speakers import with_names
from speech.formats.subtitles import srt, vtt
from speech.formats.text import txt
from speech.formats.whisperx_json import json
from stenoflow.errors import InvalidOption
from stenoflow.types import Transcript

__all__ = ["FORMATS", "Format", "RenderOptions", "render", "render_text"]


class Format(NamedTuple):
    """One kind of file."""

    render: Callable[[Transcript, RenderOptions], str | bytes]
    media_type: str = "text/plain"
    binary: bool = False
    labels: bool = False
    """Speakers stand in it as labels, which other programs join on, whatever they are called."""

    @property
    def opens_elsewhere(self) -> bool:
        """Not shown by a browser as a part of the site that it comes from: a page would run as the site's."""
        return self.binary or self.media_type in ("text/html", "application/xml")


FORMATS: dict[str, Format] = {
    "json": Format(json, "application/json", labels=True),
    "srt": Format(srt, "application/x-subrip"),
    "vtt": Format(vtt, "text/vtt"),
    "txt": Format(txt),
    "tsv": Format(tsv, "text/tab-separated-values"),
    "rttm": Format(rttm, labels=True),
    "aud": Format(aud),
    "lrc": Format(lrc),
    "md": Format(md, "text/markdown"),
    "docx": Format(docx, "application/vnd.openxmlformats-officedocument.wordprocessingml.document", binary=True),
    "html": Format(html, "text/html"),
    "csv": Format(csv, "text/csv"),
    "eaf": Format(eaf, "application/xml"),
}
"""By name, which is the file's extension. Every door offers what stands here."""


def render(transcript: Transcript, format: str, options: RenderOptions | None = None) -> bytes:
    """The transcript as a file in `format`; texts are UTF-8. Raises InvalidOption for a format that is not in FORMATS."""
    if format not in FORMATS:
        raise InvalidOption(f"Unknown format {format!r}: choose from {', '.join(FORMATS)}.")
    known, options = FORMATS[format], options or RenderOptions()
    content = known.render(transcript if known.labels else with_names(transcript, options), options)
    return content if isinstance(content, bytes) else content.encode()


def render_text(transcript: Transcript, format: str, options: RenderOptions | None = None) -> str:
    """The same as text, of a format that is text. Raises InvalidOption as `render`."""
    return render(transcript, format, options).decode()
