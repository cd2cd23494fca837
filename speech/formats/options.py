"""How a transcript is rendered, where a format leaves a choice."""

from __future__ import annotations

from pydantic import Field

from stenoflow.types import Frozen


class RenderOptions(Frozen):
    highlight_words: bool = Field(
        default=False, description="srt, vtt: underline each word as it is spoken; lrc: give each its time."
    )
    max_line_width: int | None = Field(
        default=None, ge=1, description="srt, vtt, lrc: characters per line, the speaker's name included."
    )
    max_line_count: int | None = Field(
        default=None, ge=1, description="srt, vtt: lines per subtitle; has no effect without max_line_width."
    )
    uri: str = Field(
        default="recording", description="rttm, lrc: what the recording is called; whitespace becomes `_` in rttm."
    )
