"""Word times made good: from raw cross-attention, and into an order that never runs backwards."""

from __future__ import annotations

from collections.abc import Sequence

from speech.schema import AsrSegment, Timing, Word

MIN_WORD = 0.04
"""Seconds; the shortest time a word is given."""


def attention_words(segment: AsrSegment) -> list[Word]:
    """The chunk's words with their cross-attention times."""
    return [
        Word(
            word=word.word,
            start=word.start,
            end=word.end,
            score=word.score,
            timing="attention" if word.end > word.start else "interpolated",
        )
        for word in segment.words
    ]


def in_order(words: Sequence[Word], floor: float, ceiling: float) -> list[Word]:
    """The same words with starts that never run backwards, from `floor` seconds on, each at least MIN_WORD long.

    A word whose time is taken by its neighbours (several start at once, or an end precedes its start) shares their span in
    proportion to its length in characters, and says that it was interpolated.
    """
    out: list[Word] = []
    i = 0
    while i < len(words):
        j = i + 1
        # A run of words that begin at the same time, or before the one ahead of them, has only its outer times to go by.
        while j < len(words) and words[j].start < max(words[i].start, floor) + MIN_WORD:
            j += 1
        start = max(words[i].start, floor)
        following = words[j].start if j < len(words) else max(ceiling, start)
        end = max(words[k].end for k in range(i, j))
        end = min(max(end, start + MIN_WORD * (j - i)), max(following, start + MIN_WORD * (j - i)))
        out += _shared(words[i:j], start, end)
        floor = end if j - i > 1 else min(end, following) if j < len(words) else end
        i = j
    return out


def _shared(run: Sequence[Word], start: float, end: float) -> list[Word]:
    """One word keeps its time; several share it by their length."""
    timing: Timing = run[0].timing if len(run) == 1 and run[0].end > run[0].start else "interpolated"
    total = sum(len(word.word) for word in run)
    placed: list[Word] = []
    done = 0
    for word in run:
        begin = start + (end - start) * done / total
        done += len(word.word)
        finish = start + (end - start) * done / total
        placed.append(word.model_copy(update={"start": round(begin, 3), "end": round(finish, 3), "timing": timing}))
    return placed
