"""From rows to what a system is worth, and to how two systems differ."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from flows.evaluation.result import Comparison, Delta, Evaluation, Metric, Overall, Row
from infra.prices import total_cost
from speech.scoring import DiarizationErrors, WordErrors
from speech.scoring.significance import Parts, change, rate

METRICS: dict[Metric, str] = {"wer": "WER", "cpwer": "cpWER", "der": "DER", "word_times": "word start error"}


def overall(system: str, rows: Iterable[Row]) -> Overall:
    """The rows of one system, pooled."""
    rows = list(rows)
    scored = [(row, row.scores) for row in rows if row.scores is not None]
    turns = [scores.diarization for _, scores in scored if scores.diarization]
    counts = [scores.speakers for _, scores in scored if scores.speakers]
    times = [scores.times for _, scores in scored if scores.times]
    timed = sum(part.matched for part in times)
    worked = [row for row in rows if row.times_real_time is not None]
    seconds = sum(row.duration or 0.0 for row in worked)
    cost = total_cost(row.cost for row in worked)
    return Overall(
        system=system,
        model=next((row.model for row in rows if row.model), ""),
        recordings=len(scored),
        failed=sum(bool(row.error) for row in rows),
        duration=sum(row.duration or 0.0 for row, _ in scored),
        words=_pooled(scores.words for _, scores in scored),
        whisper_words=_pooled(scores.whisper_words for _, scores in scored),
        speaker_words=_pooled(scores.speaker_words for _, scores in scored),
        timed_words=_pooled(scores.timed_words for _, scores in scored),
        diarization=DiarizationErrors.pooled(turns) if turns else None,
        words_timed=timed,
        start_mae=sum(part.start_mae * part.matched for part in times) / timed if timed else None,
        within_200ms=sum(part.within_200ms for part in times) / timed if timed else None,
        speakers_right=sum(count.error == 0 for count in counts) if counts else None,
        speakers_counted=len(counts),
        speaker_count_error=sum(abs(count.error) for count in counts) / len(counts) if counts else None,
        times_real_time=seconds / sum(row.compute_seconds or 0.0 for row in worked) if worked else None,
        devices=tuple(dict.fromkeys(device for row in rows for device in row.devices)),
        cost_per_hour=cost / seconds * 3600 if cost is not None and seconds else None,
    )


def _pooled(parts: Iterable[WordErrors | None]) -> WordErrors | None:
    known = [part for part in parts if part is not None]
    return WordErrors.pooled(known) if known else None


# -- differences ----------------------------------------------------------------------------------------------------------


def _wer(row: Row) -> Parts | None:
    words = row.scores.words if row.scores else None
    return Parts(words.errors, words.reference_words) if words else None


def _cpwer(row: Row) -> Parts | None:
    words = row.scores.speaker_words if row.scores else None
    return Parts(words.errors, words.reference_words) if words else None


def _der(row: Row) -> Parts | None:
    turns = row.scores.diarization if row.scores else None
    return Parts(turns.errors, turns.total) if turns else None


def _word_times(row: Row) -> Parts | None:
    times = row.scores.times if row.scores else None
    return Parts(times.start_mae * times.matched, times.matched) if times else None


_PARTS: dict[Metric, Callable[[Row], Parts | None]] = {"wer": _wer, "cpwer": _cpwer, "der": _der, "word_times": _word_times}


def within(evaluation: Evaluation) -> list[Comparison]:
    """Every system of the evaluation against its first."""
    first, *others = evaluation.systems
    rows = _by_system(evaluation.rows)
    return [
        Comparison(system=system, baseline=first, deltas=tuple(deltas(rows.get(first, {}), rows.get(system, {}))))
        for system in others
    ]


def against(evaluation: Evaluation, earlier: Evaluation) -> list[Comparison]:
    """Every system of the evaluation against the same one of an earlier evaluation; the only one there, whatever its name."""
    now, then = _by_system(evaluation.rows), _by_system(earlier.rows)
    pairs = [(system, system) for system in now if system in then]
    if not pairs and len(then) == 1:
        pairs = [(system, next(iter(then))) for system in now]
    return [_comparison(evaluation, earlier, system, baseline, now[system], then[baseline]) for system, baseline in pairs]


def _comparison(
    evaluation: Evaluation, earlier: Evaluation, system: str, baseline: str, now: Mapping[str, Row], then: Mapping[str, Row]
) -> Comparison:
    notes: list[str] = []
    skipped: set[Metric] = set()
    if evaluation.version != earlier.version:
        notes.append("the scoring rules have changed since: not compared")
        skipped = set(METRICS)
    elif evaluation.scoring != earlier.scoring:
        notes.append("DER was scored with another collar or overlap rule: not compared")
        skipped = {"der"}
    common = {name for name in now if name in then}
    changed = {name for name in common if now[name].reference != then[name].reference}
    if changed:
        notes.append(f"the reference of {_some(changed)} has changed: excluded")
    if missing := set(now) ^ set(then):
        notes.append(f"{_some(missing)} in only one of the two: excluded")
    kept = common - changed
    found = deltas(
        {name: row for name, row in then.items() if name in kept}, {name: row for name, row in now.items() if name in kept}
    )
    return Comparison(
        system=system,
        baseline=baseline,
        evaluation=f"{earlier.name}/{earlier.id}",
        deltas=tuple(delta for delta in found if delta.metric not in skipped),
        notes=tuple(notes),
    )


def deltas(before: Mapping[str, Row], after: Mapping[str, Row]) -> list[Delta]:
    """Each measure's change over the recordings that have it on both sides; rows by recording."""
    found = []
    for metric, parts_of in _PARTS.items():
        pairs = [(parts_of(before[name]), parts_of(after[name])) for name in after if name in before]
        both = [(one, other) for one, other in pairs if one is not None and other is not None]
        if both:
            old, new = [one for one, _ in both], [other for _, other in both]
            _, low, high = change(old, new)
            found.append(Delta(metric=metric, recordings=len(both), before=rate(old), after=rate(new), low=low, high=high))
    return found


def worst(rows: Sequence[Row], count: int = 5) -> list[Row]:
    """The rows that cost most: by word errors, then by seconds given to no or the wrong speaker."""

    def errors(row: Row) -> tuple[float, float]:
        words, turns = _wer(row), _der(row)
        return words.errors if words else 0.0, turns.errors if turns else 0.0

    return [row for row in sorted(rows, key=errors, reverse=True) if errors(row) > (0, 0)][:count]


def _by_system(rows: Iterable[Row]) -> dict[str, dict[str, Row]]:
    systems: dict[str, dict[str, Row]] = {}
    for row in rows:
        systems.setdefault(row.system, {})[row.recording] = row
    return systems


def _some(names: set[str]) -> str:
    ordered = sorted(names)
    return ", ".join(ordered[:3]) + (f" and {len(ordered) - 3} more" if len(ordered) > 3 else "")
