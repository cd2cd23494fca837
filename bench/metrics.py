"""What only the benchmark counts: words that no system should leave as it does. The scores are `speech.scoring`'s."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from speech.scoring import Spoken
from speech.scoring.times import matched


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


def wrong_speakers(reference: Sequence[Spoken], hypothesis: Sequence[Spoken], language: str) -> tuple[int, int]:
    """Matched words with another speaker than the one paired with theirs, or none, and how many match; paired so that the fewest are wrong."""
    import numpy as np
    from scipy.optimize import linear_sum_assignment

    pairs = [(true.speaker, heard.speaker) for true, heard in matched(reference, hypothesis, language)]
    true = list(dict.fromkeys(speaker for speaker, _ in pairs))
    found = list(dict.fromkeys(speaker for _, speaker in pairs if speaker is not None))
    counts = np.zeros((len(true), len(found)), dtype=int)
    for speaker, name in pairs:
        if name is not None:
            counts[true.index(speaker), found.index(name)] += 1
    return len(pairs) - int(counts[linear_sum_assignment(counts, maximize=True)].sum()), len(pairs)
