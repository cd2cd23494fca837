"""Speaker errors: who was said to speak when, against who did."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from speech.scoring.types import Activity, DiarizationErrors, ScoringOptions, Span

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def diarization_errors(
    reference: Iterable[Activity],
    hypothesis: Iterable[Activity],
    duration: float,
    *,
    scored: Sequence[Span] | None = None,
    options: ScoringOptions | None = None,
) -> DiarizationErrors:
    """DER's parts, as NIST's md-eval and pyannote.metrics count them: hypothesis speakers are mapped to true ones one to one,
    whatever they are called, so that they agree for as long as possible.

    `scored` are the stretches that count, in seconds; by default the whole recording. Without `options` there is no
    forgiveness collar and overlap counts. The collar is on each side of a boundary, as md-eval has it (`-c 0.25`).
    """
    import numpy as np
    from scipy.optimize import linear_sum_assignment

    options = options or ScoringOptions()
    true, said = _by_speaker(reference), _by_speaker(hypothesis)
    edges = [edge for spans in true for start, end in spans for edge in (start, end)]
    collars = [(edge - options.collar, edge + options.collar) for edge in edges]
    counted = list(scored) if scored else [(0.0, duration)]
    moments = np.unique([edge for spans in (*true, *said, collars, counted) for span in spans for edge in span])
    # Between two moments nothing changes.
    speaking, claimed = _active(true, moments), _active(said, moments)
    counts = _active([counted], moments)[0] & ~_active([collars], moments)[0]
    if options.skip_overlap:
        counts &= speaking.sum(axis=0) < 2
    seconds = np.where(counts, np.diff(moments), 0.0)
    speakers, voices = speaking.sum(axis=0), claimed.sum(axis=0)
    together = (speaking * seconds) @ claimed.T
    right = float(together[linear_sum_assignment(together, maximize=True)].sum())
    return DiarizationErrors(
        missed=float(seconds @ np.maximum(speakers - voices, 0)),
        false_alarm=float(seconds @ np.maximum(voices - speakers, 0)),
        confusion=max(0.0, float(seconds @ np.minimum(speakers, voices)) - right),
        total=float(seconds @ speakers),
    )


def _by_speaker(activity: Iterable[Activity]) -> list[list[Span]]:
    """Each speaker's stretches, in order, those that overlap or touch as one."""
    stretches: dict[str, list[Span]] = {}
    for speaker, start, end in sorted(activity, key=lambda turn: turn[1]):
        own = stretches.setdefault(speaker, [])
        if end <= start:
            continue
        if own and start <= own[-1][1]:
            own[-1] = (own[-1][0], max(own[-1][1], end))
        else:
            own.append((start, end))
    return list(stretches.values())


def _active(rows: Sequence[Sequence[Span]], moments: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(rows, intervals): whether a row's stretches cover the interval between two moments; the stretches begin and end at moments."""
    import numpy as np

    changes = np.zeros((len(rows), len(moments)), dtype=np.int64)
    for row, spans in enumerate(rows):
        for start, end in spans:
            changes[row, np.searchsorted(moments, start)] += 1
            changes[row, np.searchsorted(moments, end)] -= 1
    covered: NDArray[np.bool_] = changes.cumsum(axis=1)[:, :-1] > 0
    return covered
