"""How a transcript is rendered, where a format leaves a choice."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from stenoflow.types import Frozen


class RenderOptions(Frozen):
    layout: Literal["readable", "whisperx"] = Field(
        default="readable",
        description="`readable`: paragraphs in txt, subtitles by broadcasters' rules, speakers by name; `whisperx`: as WhisperX writes.",
    )
    speaker_names: str | None = Field(
        default=None,
        description="Names of the speakers in the order in which they first speak (`Anna, Ben`), or by label (`SPEAKER_01=Ben`).",
    )
    highlight_words: bool = Field(
        default=False, description="srt, vtt: underline each word as it is spoken; lrc: give each its time."
    )
    max_line_width: int | None = Field(
        default=None, ge=1, description="srt, vtt, lrc: characters per line, the speaker's name included."
    )
    max_line_count: int | None = Field(
        default=None, ge=1, description="srt, vtt: lines per subtitle; in WhisperX's layout it needs max_line_width."
    )
    uri: str = Field(
        default="recording", description="rttm, lrc: what the recording is called; whitespace becomes `_` in rttm."
    )
    audio: str | None = Field(default=None, description="html, eaf: the recording, as a path from the file that is written.")
