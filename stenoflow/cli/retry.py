"""`steno retry`: a run once more, in place or with other options; finished stages are reused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from speech.stages import STEPS
from stenoflow.cli.errors import INTERRUPTED, PARTIAL, Problem, describe, report
from stenoflow.cli.options import (
    TranscribeCommand,
    display_parameters,
    given_options,
    machine_parameters,
    request_options,
)
from stenoflow.cli.session import (
    Display,
    Session,
    cleared,
    displayed,
    drawn,
    interruptible,
    leave_unfinished_stages,
    mark_cancelled,
    ready,
    settled,
)
from stenoflow.cli.transcribe import for_storage, partial_result, quieten, use_machine_options

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import FlowRun

    from flows.retry import Retry
    from stenoflow.cli.progress import StageTable

NOT_CHANGED = ("source", "redo_from")
"""Fields of the request that make the run what it is, or have an option of their own."""
EPILOG = """\b
steno retry 3f2a91c7                       retry the failed stages of that run
steno retry meeting.wav --max-speakers 3   diarize again with at most three speakers
steno retry 3f2a91c7 --from asr            recompute the text although it is finished
\b
Exit codes are those of `steno transcribe`.
"""


@dataclass(frozen=True)
class RetryOptions:
    """What the user requested."""

    run: str
    redo_from: str | None
    here: bool
    wait: bool
    force: bool
    changes: dict[str, Any]


def retry(
    run: str,
    redo_from: str | None,
    here: bool,
    wait: bool,
    force: bool,
    as_json: bool,
    quiet: bool,
    verbose: bool,
    debug: bool,
    **options: Any,
) -> int:
    """Retry the failed stages of a run.

    RUN is the run's ID, the start of it, or its name. Without other options, the same run continues from its finished
    stages: on a worker if it belongs to a deployment, otherwise here. With changed options, or --from a finished stage, a
    new run reuses everything that does not change.
    """
    import asyncio

    use_machine_options(options)
    quieten(verbose=verbose)

    display = Display(as_json, quiet, verbose, debug)
    session = Session(display, display.console())
    code = asyncio.run(_retry(session, RetryOptions(run, redo_from, here, wait, force, given_options(options))))
    if code == INTERRUPTED:
        leave_unfinished_stages(session)
    return code


class RetryCommand(TranscribeCommand):
    """The options of `steno transcribe` that a retry can change, and its own."""

    heading = "Retry"

    def parameters(self) -> list[click.Parameter]:
        return [
            click.Argument(["run"], metavar="RUN"),
            click.Option(
                ["redo_from", "--from"],
                type=click.Choice(STEPS[:-1]),
                help="Recompute this stage and everything after it, even if cached.",
            ),
            click.Option(["--here"], is_flag=True, help="Execute the run in this process even if a worker could."),
            click.Option(
                ["--wait/--no-wait"], default=True, help="Follow a worker's run until it ends, or return immediately."
            ),
            click.Option(
                ["--force"], is_flag=True, help="Retry a run that is still marked as running although its process is gone."
            ),
            *request_options(NOT_CHANGED),
            *machine_parameters(),
            *display_parameters(),
        ]


command = RetryCommand("retry", retry, help=retry.__doc__, epilog=EPILOG)


async def _retry(session: Session, options: RetryOptions) -> int:
    """Retry the run and say what came of it; the exit code."""
    from asyncio import CancelledError

    from stenoflow.cli.progress import StageTable

    table = StageTable(options.run, utf8=session.console is None or "utf" in session.console.encoding.lower())
    session.table = table
    with interruptible(session):
        try:
            with drawn(session, table, keep=True):
                await ready(session, table)
                await cleared(session)
                conclude = await _started(session, options, table)
            code = conclude()
        except CancelledError as error:
            await mark_cancelled(session.run_id)
            code = _interrupted(session, error)
        except Exception as error:
            from stenoflow.cli.report import print_result

            if partial := partial_result(error):
                print_result(partial, as_json=session.display.as_json, quiet=session.display.quiet)
            code = _fail(session.display, error)
        await settled(session)
    return code


def _interrupted(session: Session, error: BaseException) -> int:
    if not session.elsewhere:
        return _fail(session.display, error)
    problem = Problem("interrupted", "Interrupted. The run continues on its worker.", INTERRUPTED)
    return report(problem, as_json=session.display.as_json)


def _fail(display: Display, error: BaseException) -> int:
    if display.debug:
        import traceback

        traceback.print_exception(error)
    return report(describe(error), as_json=display.as_json)


async def _started(session: Session, options: RetryOptions, table: StageTable) -> Callable[[], int]:
    """Find the run and have it retried; what is left to do when nothing is drawn any more."""
    from prefect.client.orchestration import get_client

    from flows.retry import find_run, planned

    async with get_client() as client:
        run = await find_run(client, options.run, failed=not options.changes and not options.redo_from)
        plan = await planned(run, options.changes, options.redo_from, force=options.force)
        table.title = plan.request.shown_as
        # A temporary server has no workers.
        if options.here or run.deployment_id is None or session.server is not None:
            return await _executed(session, client, plan, table)
        return await _by_a_worker(session, client, plan, options, table)


async def _executed(session: Session, client: PrefectClient, plan: Retry, table: StageTable) -> Callable[[], int]:
    """The run, executed in this process. Raises what the run raises."""
    from flows.execution import execute_here
    from flows.retry import new_run
    from stenoflow.cli.checks import check_source
    from stenoflow.cli.report import print_result

    for source in plan.request.sources:
        check_source(source)
    run = await new_run(client, plan.request_as(for_storage), here=True) if plan.changed else plan.run
    with displayed(session, plan.request.shown_as, table):
        state = await execute_here(run, by_hand=not plan.changed)
    result = await state.aresult()
    display = session.display

    def conclude() -> int:
        print_result(result, as_json=display.as_json, quiet=display.quiet)
        return 0

    return conclude


async def _by_a_worker(
    session: Session, client: PrefectClient, plan: Retry, options: RetryOptions, table: StageTable
) -> Callable[[], int]:
    """The run, handed to a worker, and followed unless that is not wanted."""
    from flows.following import followed
    from flows.retry import new_run, set_going
    from stenoflow.cli.progress import print_event

    display, name = session.display, plan.request.shown_as
    if plan.changed:
        run = await new_run(client, plan.request_as(for_storage), here=False)
    else:
        run = plan.run
        await set_going(client, run, force=options.force)
    if not options.wait:
        return lambda: _say_scheduled(run, name, display)
    table.note = "waiting for a worker"
    session.elsewhere = True
    ended = await followed(client, run.id, print_event(name) if display.as_json else table)
    from flows.outcome import read_outcome

    outcome = await read_outcome(str(run.id))
    return lambda: _say_ended(ended, outcome, display)


def _say_scheduled(run: FlowRun, name: str, display: Display) -> int:
    import json

    if display.as_json:
        click.echo(json.dumps({"type": "scheduled", "source": name, "run": str(run.id)}, ensure_ascii=False))
    elif not display.quiet:
        click.echo(f"{name}: run {run.id} is waiting for a worker")
    return 0


def _say_ended(run: FlowRun, outcome: Any, display: Display) -> int:
    """The result or the error of a run that another process executed, as far as this one can see the store."""
    from stenoflow.cli.report import print_result

    state = run.state
    assert state is not None
    if state.is_cancelled():
        return report(Problem("cancelled", "The run was cancelled.", INTERRUPTED), as_json=display.as_json)
    known = None if state.is_crashed() else outcome
    if known is not None and known.result is not None:
        print_result(known.result, as_json=display.as_json, quiet=display.quiet)
    if state.is_completed():
        if known is None and not display.quiet and not display.as_json:
            click.echo(f"{run.name}: done; the result is in the worker's store")
        return 0
    if known is not None and known.error is not None:
        problem = Problem(known.error.code, known.error.message, known.error.exit_code)
    else:
        problem = Problem(
            (state.name or "failed").lower(),
            state.message or f"The run ended as {state.name}; its log in Prefect says why.",
            PARTIAL if state.name == "Partial" else 1,
        )
    return report(problem, as_json=display.as_json)
