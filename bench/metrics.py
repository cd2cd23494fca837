"""What only the benchmark counts: words that no system should leave as it does. The scores are `speech.scoring`'s."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from speech.scoring import Spoken


def backwards(words: Sequence[Spoken]) -> int:
    """How many words end before they start, or start before the word before them that has a time."""
    count, before = 0, 0.0
    for word in words:
        if word.start is None:
            continue
        count += word.start < before - 1e-6 or (word.end is not None and word.end < word.start - 1e-6)
        before = word.start
    return count


def without_time(words: Iterable[Spoken]) -> int:
    return sum(word.start is None or word.end is None for word in words)


def without_speaker(words: Iterable[Spoken]) -> int:
    return sum(word.speaker is None for word in words)
