"""Rich Transcription Time Marked: the speaker turns, as NIST defined it and pyannote writes it."""

from __future__ import annotations

import re

from speech.formats.options import RenderOptions
from stenoflow.types import Transcript


def rttm(transcript: Transcript, options: RenderOptions) -> str:
    """One `SPEAKER <uri> 1 <start> <duration> <NA> <NA> <speaker> <NA> <NA>` per turn, in seconds."""
    uri = _field(options.uri) or "recording"
    lines: list[str] = []
    for turn in transcript.turns:
        start, end = round(turn.start, 3), round(turn.end, 3)
        if end > start:
            lines.append(f"SPEAKER {uri} 1 {start:.3f} {end - start:.3f} <NA> <NA> {_field(turn.speaker)} <NA> <NA>\n")
    return "".join(lines)


def _field(text: str) -> str:
    """Fields are separated by spaces, so that none may hold one."""
    return re.sub(r"\s+", "_", text.strip())
