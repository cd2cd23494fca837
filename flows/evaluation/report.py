"""An evaluation for people: tables and lists in Markdown, and its lines for a terminal. Never transcript text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from flows.evaluation.result import Comparison, Delta, Evaluation, Overall, Row
from flows.evaluation.summary import METRICS, worst
from infra.prices import dollars
from speech.scoring import DiarizationErrors, WordErrors

NONE = "–"
WHISPER = "WER, Whisper's normaliser"


def percent(value: float | None) -> str:
    return NONE if value is None else f"{value:.1%}".replace("%", " %")


def _rate(errors: WordErrors | None) -> str:
    return percent(None if errors is None else errors.rate)


def milliseconds(value: float | None) -> str:
    return NONE if value is None else f"{value * 1000:.0f} ms"


def pace(value: float | None) -> str:
    return NONE if value is None else f"{value:.1f}"


Column = tuple[str, Callable[[Overall], str]]

_OVERALL: tuple[Column, ...] = (
    ("system", lambda one: _cell(one.system)),
    ("recordings", lambda one: f"{one.recordings}{f' ({one.failed} failed)' if one.failed else ''}"),
    ("WER", lambda one: _rate(one.words)),
    (WHISPER, lambda one: _rate(one.whisper_words)),
    ("cpWER", lambda one: _rate(one.speaker_words)),
    ("tcpWER", lambda one: _rate(one.timed_words)),
    ("DER", lambda one: percent(one.diarization.rate if one.diarization else None)),
    ("missed / false alarm / confusion", lambda one: _kinds(one.diarization)),
    ("speakers right", lambda one: NONE if one.speakers_right is None else f"{one.speakers_right} of {one.speakers_counted}"),
    ("word start", lambda one: milliseconds(one.start_mae)),
    ("within 200 ms", lambda one: percent(one.within_200ms)),
    ("× real time", lambda one: pace(one.times_real_time)),
    ("$ per hour", lambda one: NONE if one.cost_per_hour is None else dollars(one.cost_per_hour)),
)


_LEGEND = (
    "Rates are pooled: all errors over all words, all wrong seconds over all seconds of speech. × real time is the recordings' "
    "length over the work of all stages as it was measured when they were computed, in this run or an earlier one, without "
    "loading models; stages that run side by side are added up. An interval is where 95 % of 10,000 draws of the "
    "recordings lie; it knows nothing of how alike they are."
)


def markdown(evaluation: Evaluation) -> str:
    """The report: what each system is worth, how they differ, what went wrong, where most errors are, every recording."""
    parts = [
        f"# Evaluation {evaluation.name}/{evaluation.id}",
        f"{_counted(evaluation)} from {_cell(evaluation.references)}. {_rules(evaluation)}",
        _table(_columns(evaluation.overall), evaluation.overall),
        *(_side_by_side(one) for one in evaluation.comparisons),
        _failures(evaluation.failed),
        "\n".join(f"- {_cell(warning)}" for warning in evaluation.warnings),
        _worst(evaluation) if any(one.recordings > 1 for one in evaluation.overall) else "",
        "## Recordings\n\n" + _recordings(evaluation.rows),
        _LEGEND,
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _columns(overall: Sequence[Overall]) -> Sequence[Column]:
    """Without the price where nothing was rented and this machine has none."""
    return _OVERALL if any(one.cost_per_hour for one in overall) else _OVERALL[:-1]


def summary(one: Overall) -> str:
    """A line for a terminal: `base: WER 12.6 % of 87 words, DER 5.6 %, …`."""
    facts = []
    if one.words is not None:
        facts.append(f"WER {percent(one.words.rate)} of {one.words.reference_words} words")
    if one.whisper_words is not None:
        facts.append(f"{percent(one.whisper_words.rate)} by Whisper's normaliser")
    if one.speaker_words is not None:
        facts.append(f"cpWER {percent(one.speaker_words.rate)}")
    if one.timed_words is not None:
        facts.append(f"tcpWER {percent(one.timed_words.rate)}")
    if one.diarization is not None:
        facts.append(f"DER {percent(one.diarization.rate)}")
    if one.start_mae is not None:
        facts.append(f"word starts {milliseconds(one.start_mae)} off")
    if one.times_real_time is not None:
        facts.append(f"{pace(one.times_real_time)} × real time")
    return f"{one.system}: {', '.join(facts) or 'nothing could be scored'}"


def described(delta: Delta) -> str:
    """`WER 12.6 % → 10.3 % (−2.3 points, 95 % between −4.0 and −0.6): better`."""
    if delta.metric == "word_times":
        scale, unit, digits = 1000.0, "ms", 0
    else:
        scale, unit, digits = 100.0, "points", 1
    show = milliseconds if delta.metric == "word_times" else percent
    change = f"{delta.difference * scale:+.{digits}f} {unit}".replace("-", "−")
    interval = ""
    if delta.low is not None and delta.high is not None:
        interval = f", 95 % between {delta.low * scale:+.{digits}f} and {delta.high * scale:+.{digits}f}".replace("-", "−")
    return f"{METRICS[delta.metric]} {show(delta.before)} → {show(delta.after)} ({change}{interval}): {delta.verdict}"


def title(comparison: Comparison) -> str:
    where = f" of {comparison.evaluation}" if comparison.evaluation else ""
    return f"{comparison.system} against {comparison.baseline}{where}"


def _side_by_side(comparison: Comparison) -> str:
    lines = [f"## {_cell(title(comparison))}", ""]
    lines += [f"- {described(delta)} ({_recordings_of(delta.recordings)})" for delta in comparison.deltas]
    lines += [f"- {_cell(note)}" for note in comparison.notes]
    return "\n".join(lines if len(lines) > 2 else [*lines, "- nothing in common to compare"])


def _counted(evaluation: Evaluation) -> str:
    recordings = len({row.recording for row in evaluation.rows})
    minutes = max((one.duration for one in evaluation.overall), default=0.0) / 60
    return f"{_recordings_of(recordings)} ({minutes:.1f} minutes scored)"


def _recordings_of(count: int) -> str:
    return f"{count} recording{'' if count == 1 else 's'}"


def _rules(evaluation: Evaluation) -> str:
    collar = (
        f"{evaluation.scoring.collar:g} s on each side of a turn's ends are not scored"
        if evaluation.scoring.collar
        else "No collar"
    )
    return f"DER: {collar}; overlap is {'left out' if evaluation.scoring.skip_overlap else 'scored'}."


def _failures(rows: Sequence[Row]) -> str:
    if not rows:
        return ""
    return "\n".join(
        ["## Failed", "", *(f"- **{_cell(row.recording)}** with {_cell(row.system)}: {_cell(row.error)}" for row in rows)]
    )


def _worst(evaluation: Evaluation) -> str:
    lines = []
    for one in evaluation.overall:
        rows = worst([row for row in evaluation.rows if row.system == one.system])
        names = [f"{_cell(row.recording)} ({_costs(row, one)})" for row in rows]
        if names:
            lines.append(f"- {_cell(one.system)}: {', '.join(names)}")
    return "\n".join(["## Where most errors are", "", *lines]) if lines else ""


def _costs(row: Row, one: Overall) -> str:
    """The recording's share of the system's errors."""
    facts = []
    words = row.scores.words if row.scores else None
    if words is not None and one.words is not None and one.words.errors:
        facts.append(f"WER {percent(words.rate)}, {percent(words.errors / one.words.errors)} of all word errors")
    turns = row.scores.diarization if row.scores else None
    if turns is not None:
        facts.append(f"DER {percent(turns.rate)}")
    return ", ".join(facts)


def _kinds(turns: DiarizationErrors | None) -> str:
    if turns is None or not turns.total:
        return NONE
    return " / ".join(percent(part / turns.total) for part in (turns.missed, turns.false_alarm, turns.confusion))


# -- rows ---------------------------------------------------------------------------------------------------------------


def _recordings(rows: Sequence[Row]) -> str:
    """One row per recording and system."""
    columns: tuple[tuple[str, Callable[[Row], str]], ...] = (
        ("recording", lambda row: _cell(row.recording)),
        ("system", lambda row: _cell(row.system)),
        ("seconds", lambda row: NONE if row.duration is None else f"{row.duration:.0f}"),
        ("WER", lambda row: _rate(row.scores.words if row.scores else None)),
        (WHISPER, lambda row: _rate(row.scores.whisper_words if row.scores else None)),
        ("cpWER", lambda row: _rate(row.scores.speaker_words if row.scores else None)),
        ("tcpWER", lambda row: _rate(row.scores.timed_words if row.scores else None)),
        ("DER", lambda row: percent(row.scores.diarization.rate if row.scores and row.scores.diarization else None)),
        ("speakers", _speakers),
        ("word start / median", _times),
        ("× real time", lambda row: pace(row.times_real_time)),
        ("", lambda row: "failed" if row.error else ""),
    )
    return _table(columns, rows)


def _speakers(row: Row) -> str:
    count = row.scores.speakers if row.scores else None
    return NONE if count is None else f"{count.found} of {count.true}"


def _times(row: Row) -> str:
    times = row.scores.times if row.scores else None
    return NONE if times is None else f"{milliseconds(times.start_mae)} / {milliseconds(times.start_median)}"


def _table(columns: Sequence[tuple[str, Callable[[Any], str]]], rows: Sequence[Any]) -> str:
    used = [
        (name, show)
        for name, show in columns
        if name in ("recording", "system") or any(show(row) not in (NONE, "") for row in rows)
    ]
    lines = [
        f"| {' | '.join(name for name, _ in used)} |",
        f"|{'|'.join('---' if place < 1 else '---:' for place, _ in enumerate(used))}|",
    ]
    return "\n".join([*lines, *(f"| {' | '.join(show(row) for _, show in used)} |" for row in rows)])


def _cell(text: str) -> str:
    """As part of a table or a line: without what Markdown would take for its own."""
    return "".join(f"\\{mark}" if mark in "\\|`*_[]<>#" else " " if mark in "\r\n" else mark for mark in text)
