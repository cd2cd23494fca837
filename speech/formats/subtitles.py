"""SubRip and WebVTT, as whisperx.utils.WriteSRT and WriteVTT lay them out."""

from __future__ import annotations

import re

from speech.formats.cues import Cue, cues
from speech.formats.options import RenderOptions
from stenoflow.types import Transcript


def srt(transcript: Transcript, options: RenderOptions) -> str:
    return "".join(
        f"{number}\n{_timestamp(cue.start, ',', hours=True)} --> {_timestamp(cue.end, ',', hours=True)}\n{_srt_text(cue)}\n\n"
        for number, cue in enumerate(cues(transcript, options), start=1)
    )


def vtt(transcript: Transcript, options: RenderOptions) -> str:
    return "WEBVTT\n\n" + "".join(
        f"{_timestamp(cue.start, '.')} --> {_timestamp(cue.end, '.')}\n{cue.text(escape=_vtt_escape)}\n\n"
        for cue in cues(transcript, options)
    )


def _srt_text(cue: Cue) -> str:
    """SubRip has no escapes; "-->" would be read as a time line."""
    return re.sub("-{2,}>", "->", cue.text())


def _vtt_escape(text: str) -> str:
    """WebVTT's cue text is markup, in which "-->" is forbidden: https://www.w3.org/TR/webvtt1/#webvtt-cue-text"""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _timestamp(milliseconds: int, marker: str, *, hours: bool = False) -> str:
    """`HH:MM:SS,mmm`; without `hours` they are only written where there are any. Hours take more digits from 100 on."""
    seconds, thousandths = divmod(milliseconds, 1000)
    minutes, seconds = divmod(seconds, 60)
    whole_hours, minutes = divmod(minutes, 60)
    prefix = f"{whole_hours:02d}:" if hours or whole_hours else ""
    return f"{prefix}{minutes:02d}:{seconds:02d}{marker}{thousandths:03d}"
