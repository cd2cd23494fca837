"""Markdown: a paragraph per turn, under the recording's name."""

from __future__ import annotations

import re

from speech.formats.lines import one_line
from speech.formats.options import RenderOptions
from speech.formats.paragraphs import clock, paragraphs, without_words
from stenoflow.types import Transcript


def md(transcript: Transcript, options: RenderOptions) -> str:
    """`**Speaker 1** [0:14]: text`; what is said is never markup."""
    blocks = [f"# {_plain(options.uri)}"]
    for paragraph in paragraphs(transcript):
        if not paragraph.segments:
            blocks.append(f"*\\[{clock(paragraph.start)}\\] {without_words(paragraph)}*")
            continue
        speaker = f"**{_plain(paragraph.speaker)}** " if paragraph.speaker is not None else ""
        blocks.append(f"{speaker}\\[{clock(paragraph.start)}\\] {_plain(paragraph.text)}")
    return "\n\n".join(blocks) + "\n"


def _plain(text: str) -> str:
    """Characters that could be markup anywhere, escaped; a paragraph begins with a speaker or a time, never with these."""
    return re.sub(r"([\\`*_\[\]<>|~&#])", r"\\\1", one_line(text))
