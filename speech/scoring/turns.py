"""Speaker errors: who was said to speak when, against who did."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from speech.scoring.types import Activity, DiarizationErrors, ScoringOptions, Span


def diarization_errors(
    reference: Iterable[Activity],
    hypothesis: Iterable[Activity],
    duration: float,
    *,
    scored: Sequence[Span] | None = None,
    options: ScoringOptions | None = None,
) -> DiarizationErrors:
    """DER's parts, with pyannote.metrics: hypothesis speakers are mapped to true ones one to one, whatever they are called.

    `scored` are the stretches that count, in seconds; the whole recording when left out. Without `options` there is no
    forgiveness collar and overlap counts. The collar here is on each side of a boundary, as NIST's md-eval has it
    (`-c 0.25`); pyannote.metrics' own is the width of both sides together.
    """
    from pyannote.core import Segment, Timeline
    from pyannote.metrics.diarization import DiarizationErrorRate

    options = options or ScoringOptions()
    metric = DiarizationErrorRate(collar=2 * options.collar, skip_overlap=options.skip_overlap)
    regions = Timeline([Segment(start, end) for start, end in scored or [(0.0, duration)]]).support()
    parts = metric(_annotation(reference), _annotation(hypothesis), uem=regions, detailed=True)
    return DiarizationErrors(
        missed=float(parts["missed detection"]),
        false_alarm=float(parts["false alarm"]),
        confusion=float(parts["confusion"]),
        total=float(parts["total"]),
    )


def _annotation(activity: Iterable[Activity]) -> Any:
    from pyannote.core import Annotation, Segment

    annotation = Annotation()
    for track, (speaker, start, end) in enumerate(activity):
        if end > start:
            annotation[Segment(start, end), track] = speaker
    return annotation.support()
