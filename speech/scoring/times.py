"""Word times: their distance from the reference, for correct words.

A wrong word is counted once, in the word error rate: times are compared only for words that the edit distance pairs as
equal.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence

from speech.scoring.normaliser import normalise
from speech.scoring.types import Spoken, TimeErrors

_CLOSE = 0.2
"""Seconds: the tolerance that the WhisperX paper (Bain et al., 2023) scores word times with."""


def time_errors(reference: Sequence[Spoken], hypothesis: Sequence[Spoken], language: str = "en") -> TimeErrors | None:
    """Word-time errors over words that match and have times on both sides; None when there is none."""
    starts: list[float] = []
    ends: list[float] = []
    for true, heard in matched(reference, hypothesis, language):
        if true.start is None or true.end is None or heard.start is None or heard.end is None:
            continue
        starts.append(heard.start - true.start)
        ends.append(heard.end - true.end)
    if not starts:
        return None
    return TimeErrors(
        matched=len(starts),
        start_mae=statistics.fmean(map(abs, starts)),
        start_median=statistics.median(map(abs, starts)),
        start_bias=statistics.fmean(starts),
        end_mae=statistics.fmean(map(abs, ends)),
        within_200ms=sum(max(abs(start), abs(end)) <= _CLOSE + 1e-9 for start, end in zip(starts, ends, strict=True)),
    )


def matched(reference: Sequence[Spoken], hypothesis: Sequence[Spoken], language: str) -> Iterator[tuple[Spoken, Spoken]]:
    """Words of which all parts are paired as equal with the parts of one word ("I'm" has two parts)."""
    from rapidfuzz.distance import Levenshtein

    true, heard = _parts(reference, language), _parts(hypothesis, language)
    steps = Levenshtein.opcodes([part for part, _ in true], [part for part, _ in heard])
    partners: dict[int, list[int]] = {}
    for step in steps:
        if step.tag == "equal":
            for offset in range(step.src_end - step.src_start):
                partners.setdefault(true[step.src_start + offset][1], []).append(heard[step.dest_start + offset][1])
    sizes = [len(normalise(word.word, language)) for word in reference]
    for index, others in partners.items():
        if len(others) == sizes[index] and len(set(others)) == 1:
            yield reference[index], hypothesis[others[0]]


def _parts(words: Sequence[Spoken], language: str) -> list[tuple[str, int]]:
    return [(part, index) for index, word in enumerate(words) for part in normalise(word.word, language)]
