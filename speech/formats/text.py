"""Plain text."""

from __future__ import annotations

from speech.formats.lines import whisperx_txt
from speech.formats.options import RenderOptions
from speech.formats.paragraphs import reading
from stenoflow.types import Transcript


def txt(transcript: Transcript, options: RenderOptions) -> str:
    """A paragraph per turn, `Speaker 1 [0:14] text`; in WhisperX's layout a line per segment, as whisperx.utils.WriteTXT."""
    if options.layout == "whisperx":
        return whisperx_txt(transcript)
    return "".join(f"{paragraph}\n\n" for paragraph in reading(transcript)).removesuffix("\n")
