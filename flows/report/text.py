"""The report of one run in Markdown: what came of it, what each stage did, what to do when one failed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from flows.report.advice import HELPS, advice_for, retry_of
from flows.report.contents import Contents, Utterance
from flows.report.timeline import data_uri, timeline
from flows.report.words import code, link, plain, sentence, table
from flows.result import StageReport, TranscribeResult
from infra.prices import AS_OF, dollars
from infra.settings import StenoSettings
from speech.formats.paragraphs import clock
from speech.languages import language_names
from speech.stages import AROUND, STEPS

OUTCOMES = {"cached": "reused"}


class Failure(NamedTuple):
    """Why a run has no transcript, or one without speakers."""

    stage: str
    """Where it failed; empty when that was before the first stage."""
    code: str
    message: str


def headline(result: TranscribeResult) -> str:
    """`30.0 s of English (98 %), 2 speakers, 97 words`"""
    language = language_names(result.language, result.languages)
    sure = f" ({result.language_probability:.0%})".replace("%", " %") if result.language_probability is not None else ""
    who = "speakers unknown" if result.degraded else counted(result.speakers, "speaker")
    speakers = [who] if result.degraded or result.speakers else []
    spoken = f"{lasting(result.duration)} of {language}{sure}" if result.words else f"{lasting(result.duration)} without words"
    return ", ".join([spoken, *speakers, counted(result.words, "word")])


def finished(result: TranscribeResult, contents: Contents, settings: StenoSettings) -> str:
    """The report of a run that wrote a transcript."""
    failure = failure_in(result.stages) if result.degraded else None
    lines = [f"## {plain(result.source_name)}", "", f"**{headline(result)}**", "", _account(result, settings), ""]
    if failure is not None:
        lines += ["### Written without speakers", "", *_failure(failure, result.stages), ""]
    if contents.spans:
        lines += [f"![Who speaks when]({data_uri(timeline(contents.spans, result.duration))})", ""]
    if contents.beginning:
        lines += ["### Beginning", "", *_beginning(contents.beginning), ""]
    lines += ["### Files", "", *(f"- {name}: {link(target, settings.s3)}" for name, target in result.files.items()), ""]
    lines += [*_warnings(result.warnings), *_stages(result.stages, result.duration, result.total_seconds, result.cost), ""]
    made_with = [f"- {role}: {plain(model)}" for role, model in contents.models.items()]
    return "\n".join([*lines, *(["### Made with", "", *made_with] if made_with else [])])


def failed(
    name: str,
    failure: Failure,
    stages: Sequence[StageReport],
    duration: float | None,
    warnings: Iterable[str],
    cost: float | None,
) -> str:
    """The report of a run without a transcript."""
    lines = [f"## {plain(name)}", ""]
    lines += [f"### Failed: {failure.stage}" if failure.stage else "### Stopped before the first stage", ""]
    lines += [*_failure(failure, stages), "", *_warnings(tuple(warnings))]
    if stages:
        lines += _stages(stages, duration, None, cost)
    return "\n".join(lines)


def failure_in(stages: Iterable[StageReport]) -> Failure | None:
    """What failed first; a stage that was cancelled because another failed is not it."""
    broken = [stage for stage in stages if stage.state == "failed"]
    guilty = [stage for stage in broken if stage.code != "cancelled"] or broken
    return Failure(guilty[0].stage, guilty[0].code, guilty[0].detail) if guilty else None


def stage_rows(stages: Sequence[StageReport], duration: float | None) -> list[dict[str, Any]]:
    """The stages for a table artifact, which can be searched and read by programs."""
    columns = _columns(stages)
    return [{column.name: column.value(stage, duration) for column in columns} for stage in stages]


def costs(stages: Iterable[StageReport]) -> bool:
    """Whether anything was paid for: where nothing is rented and this machine has no price, there is nothing to say of it."""
    return any(stage.cost != 0 for stage in stages if stage.state != "skipped")


def where(stage: StageReport) -> str:
    """`local cpu`, `modal L4, 4 shards`"""
    place = " ".join(filter(None, (stage.backend, stage.gpu or stage.device)))
    return f"{place}, {stage.shards} shards" if stage.shards > 1 else place


def pace(stage: StageReport, duration: float | None) -> float | None:
    """Seconds of audio per second of work, in this run."""
    worked = stage.state == "computed" and duration and stage.seconds >= 0.001
    return round(duration / stage.seconds, 1) if worked and duration else None


def lasting(seconds: float) -> str:
    """`12.3 s`, `4 min 05 s` or `1 h 02 min`"""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, second = divmod(round(seconds), 60)
    return f"{minutes} min {second:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _account(result: TranscribeResult, settings: StenoSettings) -> str:
    """What it took: time, reuse, money."""
    times = f" ({result.duration / result.total_seconds:.1f} × real time)" if result.total_seconds > 0 else ""
    worked = [stage for stage in result.stages if stage.stage not in AROUND and stage.state in ("computed", "cached")]
    reused = sum(stage.state == "cached" for stage in worked)
    parts = [f"Took {lasting(result.total_seconds)}{times}"]
    parts += [f"{reused} of {len(worked)} stages reused"] if reused else []
    by = _by(result.stages, settings) if result.cost is not None else ""
    paid = f" Cost: {dollars(result.cost)}{by}." if costs(result.stages) else ""
    return f"{'; '.join(parts)}.{paid}"


def _by(stages: Iterable[StageReport], settings: StenoSettings) -> str:
    """Which prices were used."""
    rented = any(stage.state == "computed" and stage.gpu for stage in stages)
    price = settings.prices.machine_hour
    own = f"${price:g} per hour of this machine" if price else "this machine counts as free"
    return f" (list prices of {AS_OF.isoformat()}; {own})" if rented else f" ({own})"


def _failure(failure: Failure, stages: Sequence[StageReport]) -> Iterator[str]:
    attempts = next((stage.attempts for stage in stages if stage.stage == failure.stage), 0)
    tried = f" It was tried {counted(attempts, 'time')} here." if attempts > 1 else ""
    where_ = f" in the stage **{failure.stage}**" if failure.stage else ""
    yield f"> {sentence(failure.message)}"
    yield ""
    yield f"- **What**: {code(failure.code)}{where_}"
    yield f"- **Does a Retry help?** {HELPS[retry_of(failure.code)]}{tried}"
    yield f"- **What to do**: {advice_for(failure.code)}"
    yield f"- **A Retry** (the button, or `steno retry` with this run's id) {_retry(stages)}"


def _retry(stages: Sequence[StageReport]) -> str:
    kept = [stage.stage for stage in stages if stage.state in ("computed", "cached") and stage.stage not in AROUND]
    not_asked = [stage.stage for stage in stages if stage.state == "skipped"]
    again = [stage for stage in STEPS if stage not in kept and stage not in not_asked]
    # Merging with and without speakers leaves two transcripts: one does not stand for the other.
    if any(stage.state == "failed" for stage in stages) and "merge" in kept:
        kept.remove("merge")
        again = [stage for stage in STEPS if stage in again or stage == "merge"]
    reuse = f"takes {', '.join(kept)} from the cache and " if kept else ""
    return f"{reuse}runs {', '.join(again)}."


def _beginning(said: Iterable[Utterance]) -> Iterator[str]:
    for utterance in said:
        who = f"**{plain(utterance.speaker)}** " if utterance.speaker else ""
        yield f"{who}`{clock(utterance.start)}` {plain(utterance.text)}"
        yield ""


def _warnings(warnings: Sequence[str]) -> list[str]:
    return ["### Warnings", "", *(f"- {sentence(warning)}" for warning in warnings), ""] if warnings else []


def _stages(
    stages: Sequence[StageReport], duration: float | None, total_seconds: float | None, cost: float | None
) -> Iterator[str]:
    columns = [column for column in _columns(stages) if column.heading]
    rows = [[_shown(column, stage, duration) for column in columns] for stage in stages]
    if total_seconds is not None and duration:
        pace_of_all = f"{duration / max(total_seconds, 0.001):.1f}"
        of_all = {"stage": "**all**", "seconds": f"{total_seconds:.1f}", "x real time": pace_of_all, "cost $": dollars(cost)}
        rows.append([of_all.get(column.name, "") for column in columns])
    yield from ("### Stages", "")
    yield from table([column.heading for column in columns], rows)


def _shown(column: Column, stage: StageReport, duration: float | None) -> str:
    """The cell in the report; of a stage that was skipped only why."""
    if stage.state == "skipped" and column.name not in ("stage", "outcome"):
        return ""
    return column.text(stage, duration) if column.text else str(column.value(stage, duration))


def _columns(stages: Iterable[StageReport]) -> list[Column]:
    paid = costs(stages)
    return [column for column in _COLUMNS if paid or not column.paid]


def _outcome(stage: StageReport, _: float | None) -> str:
    outcome = OUTCOMES.get(stage.state, stage.state)
    return {"skipped": f"skipped: {plain(stage.detail)}", "failed": f"**{outcome}**"}.get(stage.state, outcome)


def _pace_text(stage: StageReport, duration: float | None) -> str:
    times = pace(stage, duration)
    return "" if times is None else f"{times:.1f}" if times < 100 else f"{times:.0f}"


class Column(NamedTuple):
    """What is said of each stage."""

    name: str
    """In the table artifact."""
    value: Callable[[StageReport, float | None], Any]
    """From the stage, and the recording's seconds."""
    heading: str = ""
    """In the report, `>` for numbers; empty: only the artifact has it."""
    text: Callable[[StageReport, float | None], str] | None = None
    """What the report says, where that is not the value."""
    paid: bool = False
    """Only where anything was paid for."""


_COLUMNS = (
    Column("stage", lambda stage, _: stage.stage, "stage"),
    Column("outcome", lambda stage, _: OUTCOMES.get(stage.state, stage.state), "outcome", _outcome),
    Column("seconds", lambda stage, _: round(stage.seconds, 2), ">seconds", lambda stage, _: f"{stage.seconds:.1f}"),
    Column("x real time", pace, ">× real time", _pace_text),
    Column("computed in", lambda stage, _: stage.compute_seconds),
    Column("attempts", lambda stage, _: stage.attempts or None, ">attempts", lambda stage, _: str(stage.attempts or "")),
    Column("with", lambda stage, _: stage.label or stage.detail),
    Column("batch", lambda stage, _: stage.batch_size),
    Column("where", lambda stage, _: where(stage), "where", lambda stage, _: plain(where(stage))),
    Column(
        "cost $",
        lambda stage, _: stage.cost if stage.cost is None else round(stage.cost, 6),
        ">cost",
        lambda stage, _: dollars(stage.cost),
        paid=True,
    ),
)
