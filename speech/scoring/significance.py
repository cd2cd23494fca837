"""Whether a change of a pooled rate is more than chance, given that other recordings might have been chosen.

Paired bootstrap over recordings, after Bisani and Ney, "Bootstrap estimates for confidence intervals in ASR performance
evaluation", 2004: recordings are drawn with replacement, both systems on the same draw. It knows nothing of recordings
that resemble one another (one speaker, one room), so its intervals are a hint and no proof.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

ENOUGH = 5
"""Fewest recordings for an interval: with fewer, the bootstrap means little."""
_DRAWS = 10_000
_SEED = 1


class Parts(NamedTuple):
    """A recording's share in a pooled rate: errors over words, seconds wrong over seconds of speech."""

    errors: float
    total: float


class Change(NamedTuple):
    """How a pooled rate changed: positive is more errors. `low` and `high` bound 95 % of the draws; None of too few recordings."""

    difference: float
    low: float | None = None
    high: float | None = None


def rate(parts: Sequence[Parts]) -> float:
    """Errors over totals, all recordings together."""
    return sum(part.errors for part in parts) / max(sum(part.total for part in parts), 1e-9)


def change(before: Sequence[Parts], after: Sequence[Parts]) -> Change:
    """From `before` to `after`, recording by recording the same. Deterministic: the draws are seeded."""
    difference = rate(after) - rate(before)
    if len(before) < ENOUGH:
        return Change(difference)
    import numpy as np

    chance = np.random.default_rng(_SEED)
    parts = np.array([[*one, *other] for one, other in zip(before, after, strict=True)], float)
    draws: list[float] = []
    even = np.full(len(parts), 1 / len(parts))
    for _ in range(10):  # in portions, so that memory stays small with thousands of recordings
        sums = chance.multinomial(len(parts), even, size=_DRAWS // 10) @ parts
        draws += list(sums[:, 2] / np.maximum(sums[:, 3], 1e-9) - sums[:, 0] / np.maximum(sums[:, 1], 1e-9))
    low, high = np.percentile(draws, [2.5, 97.5])
    return Change(difference, float(low), float(high))
