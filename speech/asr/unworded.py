"""Where someone speaks and the text has no words."""

from __future__ import annotations

from collections.abc import Sequence

from speech.schema import AsrSegment, AsrWord, Chunk, Region
from stenoflow.types import Stretch

LONGEST_WORD = 1.0
"""Seconds of voice that a word accounts for at most. Whisper's attention stretches a word over speech that it left out."""
A_LETTER, A_DIGIT = 0.15, 0.5
"""Seconds of a longer one: "www.example.org" and "555-0123" are words, too."""
LEAST = 2.0
"""Seconds of voice without a word that are worth a warning; hesitation and laughter are shorter."""
SCRAP = 0.25
"""Seconds of voice beside a word that are its own."""


def unworded(chunk: Chunk, words: Sequence[AsrWord]) -> list[Region]:
    """The stretches of the chunk, in order, in which LEAST seconds of voice or more pass between two words."""
    spoken = [(word.start, min(word.end, word.start + _longest(word.word))) for word in words]
    ends = [chunk.start, *(end for _, end in spoken)]
    starts = [*(start for start, _ in spoken), chunk.end]
    found: list[Region] = []
    for begin, finish in zip(ends, starts, strict=True):
        voiced = [(max(region.start, begin), min(region.end, finish)) for region in chunk.regions]
        voiced = [(start, end) for start, end in voiced if end - start > SCRAP]
        if sum(end - start for start, end in voiced) >= LEAST:
            found.append(Region(start=round(voiced[0][0], 3), end=round(voiced[-1][1], 3)))
    return found


def untranscribed(plan: Sequence[Chunk], segments: Sequence[AsrSegment]) -> tuple[Stretch, ...]:
    """The same of all chunks, of which the segments are the text."""
    found: list[Stretch] = []
    for chunk in plan:
        words = [word for part in segments if chunk.start <= part.start < chunk.end for word in part.words]
        found += [Stretch(start=region.start, end=region.end) for region in unworded(chunk, words)]
    return tuple(found)


def _longest(word: str) -> float:
    return max(LONGEST_WORD, sum(A_DIGIT if character.isdigit() else A_LETTER for character in word))


def seconds(regions: Sequence[Region]) -> float:
    return sum(region.end - region.start for region in regions)


def mostly_in(chunk: Chunk, stretches: Sequence[Region]) -> bool:
    """Whether most of the chunk's voice is in the stretches."""
    inside = sum(
        max(0.0, min(region.end, stretch.end) - max(region.start, stretch.start))
        for region in chunk.regions
        for stretch in stretches
    )
    return 2 * inside > seconds(chunk.regions)
