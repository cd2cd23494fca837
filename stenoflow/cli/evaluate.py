"""`steno evaluate`: recordings with known truth, transcribed with one or more models, and what each is worth."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import click

from stenoflow.cli.errors import INTERRUPTED, describe, report, worst
from stenoflow.cli.options import (
    TranscribeCommand,
    display_parameters,
    field_options,
    given_options,
    machine_parameters,
)
from stenoflow.cli.progress import Row, StageTable
from stenoflow.cli.session import (
    Display,
    Session,
    drawn,
    interruptible,
    leave_unfinished_stages,
    mark_cancelled,
    ready,
    settled,
)
from stenoflow.cli.transcribe import quieten, use_machine_options

if TYPE_CHECKING:
    from flows.evaluation.request import EvaluateRequest
    from flows.evaluation.result import Evaluation
    from infra.progress import StageEvent

EPILOG = """\b
steno evaluate calls --model tiny.en --model base     compare two models
steno evaluate calls --hotwords "Stenoflow Prefect"   compare with the previous evaluation
steno evaluate s3://bucket/calls --collar 0.25 --skip-overlap
steno evaluate set.csv --variant "hints: hotwords=Stenoflow" --variant "plain:"
\b
Exit codes are those of `steno transcribe`: 0 if every recording was scored,
otherwise that of the first failure.
"""


def evaluate(references: str, as_json: bool, quiet: bool, verbose: bool, debug: bool, **options: Any) -> int:
    """Transcribe recordings that have reference transcripts, and score the results.

    REFERENCES is a folder or s3:// prefix with a reference next to each recording (call.wav with call.stm,
    call.rttm, call.ctm, call.uem, call.json or call.txt), or a .csv or .jsonl manifest with the columns `source` and
    `reference`. Finished stages are reused, with the speed measured when they were computed.
    """
    import asyncio

    display = Display(as_json, quiet, verbose, debug)
    use_machine_options(options)
    quieten(verbose=verbose)
    from flows.request import TranscribeRequest
    from infra.settings import get_settings
    from stenoflow.cli.checks import check_models, check_output

    request = for_storage(_request(references, options))
    _check_there(request.references)
    check_output(request.output_dir, None)
    for system in request.systems.values():
        check_models(TranscribeRequest(source="recording", **system.model_dump(exclude_unset=True)), get_settings())
    session = Session(display, display.console())
    table = EvaluationTable(request.series, utf8=session.console is None or "utf" in session.console.encoding.lower())
    code = asyncio.run(_run(session, request, table))
    if code == INTERRUPTED:
        leave_unfinished_stages(session)
    return code


class EvaluateCommand(TranscribeCommand):
    """The options of `steno transcribe` that are not about one recording's files, and its own."""

    heading = "Evaluation"

    def parameters(self) -> list[click.Parameter]:
        from flows.evaluation.request import EvaluateRequest
        from flows.options import RENDERED, TranscribeOptions
        from speech.scoring import ScoringOptions

        own = EvaluateRequest.model_fields
        return [
            click.Argument(["references"], metavar="REFERENCES"),
            click.Option(
                ["models", "-m", "--model"], multiple=True, metavar="MODEL", help=f"{own['models'].description} Repeatable."
            ),
            click.Option(
                ["variants", "--variant"],
                multiple=True,
                metavar="NAME:OPTION=VALUE,…",
                help="Named set of options to compare: `hints: hotwords=Stenoflow, batch_size=4`. Repeatable.",
            ),
            *field_options(EvaluateRequest, ("references", "models", "variants", "options", "scoring"), group="Evaluation"),
            *field_options(ScoringOptions, group="Scoring"),
            *field_options(TranscribeOptions, ("model", *RENDERED)),
            *machine_parameters(),
            *display_parameters(),
        ]


command = EvaluateCommand("evaluate", evaluate, help=evaluate.__doc__, epilog=EPILOG)


class EvaluationTable(StageTable):
    """The stages of the recording at work, under how many are done."""

    def __init__(self, name: str, *, utf8: bool) -> None:
        super().__init__(title=name, utf8=utf8)
        self.name = name
        self.run = ""
        """The evaluation's flow run, once there is one."""

    def __call__(self, event: StageEvent) -> None:
        if event.stage != "evaluate":
            super().__call__(event)
            return
        self.run = event.run
        if event.state == "started":
            with self._guard:
                self.title = f"{self.name}: {event.fraction:.0%} done, {event.detail}"
                self.rows = {stage: Row() for stage in self.rows}


def _request(references: str, options: dict[str, Any]) -> EvaluateRequest:
    """Raises pydantic's ValidationError, and click's for what is no variant."""
    from flows.evaluation.request import EvaluateRequest
    from flows.options import TranscribeOptions
    from speech.scoring import ScoringOptions

    variants = dict(_variant(text) for text in options.pop("variants") or ())
    given = given_options(options)
    scoring = {name: given.pop(name) for name in ScoringOptions.model_fields if name in given}
    own = {name: given.pop(name) for name in EvaluateRequest.model_fields if name in given}
    return EvaluateRequest(
        references=references,
        options=TranscribeOptions(**given),
        scoring=ScoringOptions(**scoring),
        variants=variants,
        **own,
    )


def _variant(text: str) -> tuple[str, dict[str, str]]:
    """`hints: hotwords=Stenoflow, batch_size=4` → its name and options."""
    name, colon, options = text.partition(":")
    pairs = [part.partition("=") for part in options.split(",") if part.strip()]
    if not colon or not name.strip() or not all(equals for _, equals, _ in pairs):
        raise click.BadParameter(f"{text!r} is not NAME:OPTION=VALUE, such as `hints: hotwords=Stenoflow`.")
    return name.strip(), {option.strip().replace("-", "_"): value.strip() for option, _, value in pairs}


def for_storage(request: EvaluateRequest) -> EvaluateRequest:
    """The request as Prefect may keep and show it, and as it can be retried from any folder."""
    from pathlib import Path

    from infra.handles import concealed
    from infra.names import scheme_of
    from infra.settings import get_settings

    def absolute(place: str) -> str:
        return place if scheme_of(place) else str(Path(place).expanduser().absolute())

    references = concealed(absolute(request.references), get_settings(), shared=True)
    named = request.name or request.series
    return request.model_copy(update={"references": references, "output_dir": absolute(request.output_dir), "name": named})


def _check_there(references: str) -> None:
    """Raise SourceNotFound at once for a folder or manifest of this machine that does not exist; globs are left to the run."""
    from glob import has_magic

    from stenoflow.cli.checks import local_path
    from stenoflow.errors import SourceNotFound

    path = local_path(references)
    if path is not None and not path.exists() and not has_magic(references):
        raise SourceNotFound(f"There is no folder or manifest {path}; check its spelling and the working folder.")


async def _run(session: Session, request: EvaluateRequest, table: EvaluationTable) -> int:
    """The exit code of the evaluation."""
    from asyncio import CancelledError

    from stenoflow.errors import StageCancelled

    session.table = table
    with interruptible(session):
        try:
            with drawn(session, table, keep=False):
                found = await _evaluation(session, request, table)
        except (CancelledError, StageCancelled) as error:
            await mark_cancelled(table.run)
            report(describe(error), as_json=session.display.as_json)
            return INTERRUPTED
        finally:
            await settled(session)
    print_evaluation(found, session.display)
    return worst([row.exit_code or 1 for row in found.failed])


async def _evaluation(session: Session, request: EvaluateRequest, table: EvaluationTable) -> Evaluation:
    """Run the flow. Raises its errors, apart from that some recordings failed."""
    from infra.progress import listening

    await ready(session, table)
    from flows.evaluate import evaluate as evaluate_flow
    from flows.evaluation.result import EvaluationIncomplete
    from flows.execution import run_here

    assert session.ledger is not None
    listeners: list[Callable[[StageEvent], None]] = [
        session.ledger,
        table,
        *([_print_progress] if session.display.as_json else []),
    ]
    with ExitStack() as stack:
        for show in listeners:
            stack.enter_context(listening(show))
        try:
            return await run_here(evaluate_flow, request)
        except EvaluationIncomplete as error:
            assert error.evaluation is not None
            return error.evaluation


def _print_progress(event: StageEvent) -> None:
    if event.stage == "evaluate" and event.state == "progress":
        line = {"type": "progress", "fraction": round(event.fraction, 4), "detail": event.detail}
        click.echo(json.dumps(line, ensure_ascii=False))


def print_evaluation(found: Evaluation, display: Display) -> None:
    """What each system is worth and what has changed on standard output, what failed on standard error; or JSON lines."""
    from flows.evaluation.files import flat
    from flows.evaluation.report import described, summary, title
    from stenoflow.cli.report import counted, near

    if display.as_json:
        for row in found.rows:
            click.echo(json.dumps({"type": "row"} | flat(row), ensure_ascii=False))
        line = {"type": "evaluation"} | found.model_dump(mode="json", exclude={"rows"})
        click.echo(json.dumps(line, ensure_ascii=False))
        return
    for row in found.failed:
        click.echo(f"steno: error: {row.recording} ({row.system}): {row.error}", err=True)
    if display.quiet:
        return
    for warning in found.warnings:
        click.echo(f"steno: warning: {warning}", err=True)
    recordings = len({row.recording for row in found.rows})
    click.echo(f"{found.name}/{found.id}: {counted(recordings, 'recording')}")
    for one in found.overall:
        click.echo(f"  {summary(one)}")
    for comparison in found.comparisons:
        click.echo(f"{title(comparison)}:")
        for delta in comparison.deltas:
            click.echo(f"  {described(delta)}")
        for note in comparison.notes:
            click.echo(f"  {note}")
    for path in found.files.values():
        click.echo(f"  {near(path)}")
