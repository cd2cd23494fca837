"""A document for Word and its kin, by python-docx: a paragraph per turn, under the recording's name."""

from __future__ import annotations

import io
from datetime import UTC, datetime

from speech.formats.lines import xml_line
from speech.formats.options import RenderOptions
from speech.formats.paragraphs import clock, paragraphs, without_words
from stenoflow.types import Transcript


def docx(transcript: Transcript, options: RenderOptions) -> bytes:
    """The speaker in bold, the time in grey, then what is said."""
    from docx import Document
    from docx.shared import RGBColor

    document = Document()
    document.core_properties.created = document.core_properties.modified = datetime(2000, 1, 1, tzinfo=UTC)
    document.core_properties.author = ""
    document.core_properties.title = xml_line(options.uri)[:255]
    document.add_heading(xml_line(options.uri), level=1)
    for paragraph in paragraphs(transcript):
        written = document.add_paragraph()
        if paragraph.speaker is not None:
            written.add_run(f"{xml_line(paragraph.speaker)} ").bold = True
        written.add_run(f"[{clock(paragraph.start)}] ").font.color.rgb = RGBColor(0x66, 0x66, 0x66)
        if paragraph.segments:
            written.add_run(xml_line(paragraph.text))
        else:
            written.add_run(without_words(paragraph)).italic = True
    content = io.BytesIO()
    document.save(content)
    return content.getvalue()
