"""ELAN's annotation format: a tier per speaker, and under it one with the words. EXMARaLDA and others import it as well.

Schema: https://www.mpi.nl/tools/elan/EAFv3.0.xsd.
"""

from __future__ import annotations

from collections.abc import Iterable
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from speech.formats.lines import one_line, xml_line
from speech.formats.options import RenderOptions
from stenoflow.types import Segment, Transcript


def eaf(transcript: Transcript, options: RenderOptions) -> str:
    """Times in whole milliseconds. The words' tier is a subdivision of the speaker's."""
    root = Element(
        "ANNOTATION_DOCUMENT",
        {
            "AUTHOR": "Stenoflow",
            "DATE": "1970-01-01T00:00:00Z",
            "FORMAT": "3.0",
            "VERSION": "3.0",
            "xmlns:xsi": "http://www.w3.org/2001/XMLSchema-instance",
            "xsi:noNamespaceSchemaLocation": "http://www.mpi.nl/tools/elan/EAFv3.0.xsd",
        },
    )
    header = SubElement(root, "HEADER", {"MEDIA_FILE": "", "TIME_UNITS": "milliseconds"})
    if options.audio:
        SubElement(header, "MEDIA_DESCRIPTOR", {"MEDIA_URL": f"./{options.audio}", "MIME_TYPE": "unknown"})
    order = SubElement(root, "TIME_ORDER")
    counter = _Counter(order)
    speakers = dict.fromkeys(one_line(segment.speaker or "Speech") for segment in transcript.segments if one_line(segment.text))
    for speaker in speakers or ["Speech"]:
        said = [segment for segment in transcript.segments if one_line(segment.speaker or "Speech") == speaker]
        counter.tiers(root, speaker, [segment for segment in said if one_line(segment.text)])
    SubElement(root, "LINGUISTIC_TYPE", {"LINGUISTIC_TYPE_ID": "utterance", "TIME_ALIGNABLE": "true"})
    SubElement(
        root,
        "LINGUISTIC_TYPE",
        {"LINGUISTIC_TYPE_ID": "word", "TIME_ALIGNABLE": "true", "CONSTRAINTS": "Included_In"},
    )
    SubElement(
        root,
        "CONSTRAINT",
        {"STEREOTYPE": "Included_In", "DESCRIPTION": "Time alignable annotations within the parent annotation's time interval"},
    )
    indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + tostring(root, encoding="unicode") + "\n"


class _Counter:
    """Annotations and their times, numbered through the file."""

    def __init__(self, order: Element) -> None:
        self.order = order
        self.slots = self.annotations = 0

    def tiers(self, root: Element, speaker: str, segments: Iterable[Segment]) -> None:
        spoken = {"LINGUISTIC_TYPE_REF": "utterance", "TIER_ID": xml_line(speaker), "PARTICIPANT": xml_line(speaker)}
        utterances = SubElement(root, "TIER", spoken)
        words = Element(
            "TIER",
            {**spoken, "LINGUISTIC_TYPE_REF": "word", "TIER_ID": f"{xml_line(speaker)} words"}
            | {"PARENT_REF": xml_line(speaker)},
        )
        now = 0
        for segment in segments:
            start = max(round(segment.start * 1000), now)
            now = end = max(round(segment.end * 1000), start + 1)
            self._annotation(utterances, start, end, segment.text)
            inside = start
            for word in segment.words:
                begin = min(max(round(word.start * 1000), inside), end - 1)
                inside = min(max(round(word.end * 1000), begin + 1), end)
                if inside > begin:
                    self._annotation(words, begin, inside, word.word)
        if len(words):
            root.append(words)

    def _annotation(self, tier: Element, start: int, end: int, text: str) -> None:
        first, last = self._slot(start), self._slot(end)
        self.annotations += 1
        holder = SubElement(tier, "ANNOTATION")
        fields = {"ANNOTATION_ID": f"a{self.annotations}", "TIME_SLOT_REF1": first, "TIME_SLOT_REF2": last}
        SubElement(SubElement(holder, "ALIGNABLE_ANNOTATION", fields), "ANNOTATION_VALUE").text = xml_line(text)

    def _slot(self, time: int) -> str:
        self.slots += 1
        SubElement(self.order, "TIME_SLOT", {"TIME_SLOT_ID": f"ts{self.slots}", "TIME_VALUE": str(time)})
        return f"ts{self.slots}"
