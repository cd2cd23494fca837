"""SubRip and WebVTT, by broadcasters' rules or as whisperx.utils.WriteSRT and WriteVTT lay them out."""

from __future__ import annotations

import re

from speech.formats import broadcast, whisperx_cues
from speech.formats.cues import Cue
from speech.formats.lines import one_line
from speech.formats.options import RenderOptions
from stenoflow.types import Transcript


def srt(transcript: Transcript, options: RenderOptions) -> str:
    return "".join(
        f"{number}\n{_timestamp(cue.start, ',', hours=True)} --> {_timestamp(cue.end, ',', hours=True)}\n{_srt_text(cue)}\n\n"
        for number, cue in enumerate(_cues(transcript, options), start=1)
    )


def vtt(transcript: Transcript, options: RenderOptions) -> str:
    voices = options.layout != "whisperx"
    return "WEBVTT\n\n" + "".join(
        f"{_timestamp(cue.start, '.')} --> {_timestamp(cue.end, '.')}\n{_vtt_text(cue, voices)}\n\n"
        for cue in _cues(transcript, options)
    )


def _cues(transcript: Transcript, options: RenderOptions) -> list[Cue]:
    return whisperx_cues.cues(transcript, options) if options.layout == "whisperx" else broadcast.cues(transcript, options)


def _srt_text(cue: Cue) -> str:
    """SubRip has no escapes; "-->" would be read as a time line."""
    return re.sub("-{2,}>", "->", cue.text())


def _vtt_text(cue: Cue, voices: bool) -> str:
    """With voices, who speaks is markup (`<v Name>`), not text."""
    if not voices:
        return cue.text(escape=_vtt_escape)
    parts: list[str] = []
    speaker: str | None = None
    for index, token in enumerate(cue.tokens):
        if token.speaker is not None and token.speaker != speaker:
            speaker = token.speaker
            dash = "- " if token.label.startswith("- ") else ""
            parts.append(f"{token.lead}<v {_vtt_escape(one_line(speaker))}>{dash}")
        else:
            parts.append(token.lead)
        text = _vtt_escape(token.text)
        parts.append(f"<u>{text}</u>" if index == cue.highlighted else text)
    return "".join(parts)


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
