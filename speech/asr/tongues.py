"""In which language each part of a chunk is spoken, from the probabilities that Whisper gives for what is said between two pauses.

The language of a recording holds unless the evidence against it is strong: what is short, or sounds like several languages, keeps it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from speech.asr.cuts import cut_at
from speech.asr.unworded import seconds
from speech.schema import Chunk, Region

Probabilities = Mapping[str, float]
"""By language."""

ALONE = 0.995
"""Probability of a language in a whole chunk with which nothing of it is taken for another. Of 24 s of Italian with a French sentence
in them it is 0.992."""
CLEAR = 0.8
"""Probability of a language in a part of a chunk with which it is one of the chunk's; and among these, in a part that is taken for it."""
HEARD = 0.25
"""Its least probability among all languages."""
LIKELY, AGAINST = 0.5, 0.9
"""Probability of a language in a part that is taken for it without being known in the chunk, and its share of what it and the recording's
have: of Spanish amid English, which sounds like Portuguese and Galician as well, but not like English."""
PLAUSIBLE = 0.02
"""Share of a language in the chunks with most speech with which it may be one of any chunk."""
PAUSE = 0.25
"""Seconds without voice at which the language may change."""
LEAST = 1.5
"""Seconds of voice; less tells no language."""


class Part(NamedTuple):
    """What is decoded in one language."""

    chunk: Chunk
    language: str


def utterances(chunk: Chunk) -> list[Chunk]:
    """The chunk cut at its pauses, each part with LEAST seconds of voice where there is as much."""
    rest, parts = chunk, list[Chunk]()
    while (pause := _first_pause(rest)) is not None:
        part, rest = cut_at(rest, pause)
        parts.append(part)
    return [*parts, rest]


def _first_pause(chunk: Chunk) -> Region | None:
    """The first pause of the chunk with enough voice before it and after."""
    before, whole = 0.0, voice(chunk)
    for region, following in zip(chunk.regions, chunk.regions[1:], strict=False):
        before += region.end - region.start
        if following.start - region.end >= PAUSE and min(before, whole - before) >= LEAST:
            return Region(start=region.end, end=following.start)
    return None


def voice(chunk: Chunk) -> float:
    """Seconds of voice in the chunk."""
    return seconds(chunk.regions)


def likeliest(found: Probabilities, allowed: Sequence[str]) -> tuple[str, float]:
    """The likeliest language, of those that are allowed where some are named, and its share of their probability."""
    among = {code: found.get(code, 0.0) for code in allowed} if allowed else found
    language = max(among, key=lambda code: among[code])
    return language, among[language] / (sum(among.values()) or 1.0)


def plausible(total: Probabilities) -> list[str]:
    """The languages that a recording may be in, from the sum of its chunks' probabilities."""
    return [language for language, share in total.items() if share >= PLAUSIBLE * sum(total.values())]


def in_languages(parts: Sequence[Chunk], found: Sequence[Probabilities], usual: str, among: Sequence[str]) -> list[Part]:
    """The parts of a chunk with their languages, neighbours in one language together again. `among` may be spoken in it, and what is
    clear in one of its parts."""
    clear = [language for language, probability in (likeliest(one, ()) for one in found) if probability >= CLEAR]
    candidates = list(dict.fromkeys([usual, *among, *clear]))
    return together([Part(part, _language(part, one, usual, candidates)) for part, one in zip(parts, found, strict=True)])


def in_allowed(parts: Sequence[Chunk], found: Sequence[Probabilities], usual: str, allowed: Sequence[str]) -> list[Part]:
    """The same where the languages are known."""
    languages = [likeliest(one, allowed) for one in found]
    clear = [share >= CLEAR and voice(part) >= LEAST for part, (_, share) in zip(parts, languages, strict=True)]
    spoken = [one[0] if sure else usual for one, sure in zip(languages, clear, strict=True)]
    return together([Part(part, language) for part, language in zip(parts, spoken, strict=True)])


def _language(part: Chunk, found: Probabilities, usual: str, candidates: Sequence[str]) -> str:
    if voice(part) < LEAST:
        return usual
    known, share = likeliest(found, candidates)
    if share >= CLEAR and found.get(known, 0.0) >= HEARD:
        return known
    language, probability = likeliest(found, ())
    return language if probability >= max(LIKELY, AGAINST * (probability + found.get(usual, 0.0))) else usual


def together(parts: Sequence[Part]) -> list[Part]:
    """Neighbours in one language as one part."""
    said: list[Part] = []
    for part in parts:
        if said and said[-1].language == part.language:
            said[-1] = Part(_joined(said[-1].chunk, part.chunk), part.language)
        else:
            said.append(part)
    return said


def _joined(first: Chunk, second: Chunk) -> Chunk:
    return Chunk(start=first.start, end=second.end, regions=(*first.regions, *second.regions))
