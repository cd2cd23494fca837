"""`steno transcribe`: the recordings one after the other, each a run of the flow, in one process that keeps its models."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import click

from flows.cli.errors import INTERRUPTED, describe, report, worst
from flows.cli.options import MACHINE, TranscribeCommand
from flows.cli.session import Display, Session, interruptible, leave_unfinished_stages, mark_cancelled

if TYPE_CHECKING:
    from rich.console import Console

    from flows.cli.progress import StageTable
    from flows.request import TranscribeRequest
    from infra.progress import StageEvent

EPILOG = """\b
Exit codes: 0 done, 2 an option is wrong, 3 the recording or its address is, 4 a model
may not be had, 5 memory or disk ran out, 6 trying again may help, 7 written without
speakers, 130 interrupted, 1 anything else.
"""


def transcribe(sources: tuple[str, ...], as_json: bool, quiet: bool, verbose: bool, debug: bool, **options: Any) -> int:
    """Turn recordings into transcripts with speakers and word times.

    A SOURCE is a path, an http(s) or s3 URL, any fsspec URL, or - for standard input. Finished stages are kept: the same
    command again, or with other formats or another number of speakers, repeats only what that changes.
    """
    import asyncio

    display = Display(as_json, quiet, verbose, debug)
    _use_machine_options(options)
    quieten(verbose=verbose)
    from flows.cli.checks import check_together, refused_at_once
    from infra.settings import get_settings

    get_settings.cache_clear()
    settings = get_settings()
    requests = [_request(source, options) for source in sources]
    check_together(requests)
    refused = refused_at_once(requests, settings)
    codes = {position: _fail(error, requests[position], display, len(requests)) for position, error in refused.items()}
    if len(refused) < len(requests):
        session = Session(display, display.console())
        waiting = {position: request for position, request in enumerate(requests) if position not in refused}
        codes |= asyncio.run(_run_all(session, waiting, len(requests)))
        if INTERRUPTED in codes.values():
            leave_unfinished_stages(session)
    failed = [position for position in sorted(codes) if codes[position]]
    if failed and len(requests) > 1 and not as_json:
        click.echo(f"steno: {len(requests) - len(failed)} of {len(requests)} recordings done, {len(failed)} failed.", err=True)
    return worst([codes.get(position, INTERRUPTED) for position in range(len(requests))])


command = TranscribeCommand("transcribe", transcribe, help=transcribe.__doc__, epilog=EPILOG)


def quieten(*, verbose: bool) -> None:
    """Nothing phones home, and nothing but this command writes to the terminal, unless it is asked to.

    Prefect reads its logging configuration from the environment on import; its own records still reach its API.
    """
    from infra.telemetry import hush

    hush()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if verbose:
        return
    import logging
    import warnings

    os.environ["PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"] = "CRITICAL"
    os.environ["PREFECT_LOGGING_HANDLERS_DEBUG_LEVEL"] = "CRITICAL"
    os.environ["PREFECT_LOGGING_LOG_PRINTS"] = "false"
    os.environ.setdefault("PYTHONWARNINGS", "ignore")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("ORT_LOGGING_LEVEL", "4")
    warnings.simplefilter("ignore")
    logging.lastResort = None


def _use_machine_options(options: dict[str, Any]) -> None:
    """Hand on, as settings, the options that say how this machine is used."""
    for name, variable in MACHINE.items():
        value = options.pop(name, None)
        if value is not None:
            os.environ[variable] = str(value)
    if token := options.pop("hf_token", None):
        os.environ["HF_TOKEN"] = token


def _request(source: str, options: dict[str, Any]) -> TranscribeRequest:
    """The request for one source. Raises pydantic's ValidationError."""
    from flows.request import TranscribeRequest

    given = {name: value for name, value in options.items() if value is not None and value != ()}
    if "formats" in given:
        given["formats"] = tuple(name for group in given["formats"] for name in group)
    return TranscribeRequest(source=source, **given)


def _fail(error: BaseException, request: TranscribeRequest, display: Display, total: int) -> int:
    """Report why one recording failed; its exit code."""
    if display.debug:
        import traceback

        traceback.print_exception(error)
    named = total > 1 or display.as_json
    return report(describe(error), as_json=display.as_json, source=request.shown_as if named else None)


async def _run_all(session: Session, requests: dict[int, TranscribeRequest], total: int) -> dict[int, int]:
    """Exit codes by position. Ctrl-C ends the command after the batch at work; a second one ends it at once."""
    from asyncio import CancelledError

    codes: dict[int, int] = {}
    with interruptible(session):
        for position, request in requests.items():
            try:
                codes[position] = await _run(session, request, total)
            except CancelledError as error:
                await mark_cancelled(session.run_id)
                codes[position] = _fail(error, request, session.display, total)
                break
        if session.server is not None and session.ledger is not None:
            await session.ledger.settled()
    return codes


async def _run(session: Session, request: TranscribeRequest, total: int) -> int:
    """Transcribe one recording and print what came of it; its exit code."""
    from flows.cli.progress import StageTable
    from flows.cli.report import print_result

    display = session.display
    table = StageTable(request.shown_as, utf8=session.console is None or "utf" in session.console.encoding.lower())
    session.table = table
    try:
        with _drawn(session.console, table, keep=total == 1):
            transcribe_flow = await _ready(session, table)
            with _told(session, request, table):
                result = await transcribe_flow(_without_secrets(request))
    except Exception as error:
        if partial := _partial(error):
            print_result(partial, as_json=display.as_json, quiet=display.quiet)
        return _fail(error, request, display, total)
    print_result(result, as_json=display.as_json, quiet=display.quiet)
    return 0


async def _ready(session: Session, table: StageTable) -> Callable[[TranscribeRequest], Any]:
    """The flow, and a Prefect API for it to talk to. Prefect is imported while its server starts.

    Raises ApiUnreachable.
    """
    if session.ledger is None:
        import asyncio

        from flows.cli import server

        table.note = "starting"
        session.server = server.start(verbose=session.display.verbose)
        await asyncio.to_thread(_import_flow)
        if session.server is not None:
            table.note = "starting Prefect (the first time, its database is made)"
            await asyncio.to_thread(session.server.wait)
        from flows.settled import Ledger

        session.ledger = Ledger()
    return _import_flow()


def _import_flow() -> Callable[[TranscribeRequest], Any]:
    from flows.transcribe import transcribe as transcribe_flow

    return transcribe_flow


def _without_secrets(request: TranscribeRequest) -> TranscribeRequest:
    """The request as Prefect may keep and show it: an address with credentials or a signature becomes a handle."""
    from infra.handles import concealed
    from infra.settings import get_settings

    return request.model_copy(update={"source": concealed(request.source, get_settings())})


def _partial(error: BaseException) -> Any:
    """The transcript that was saved although the run failed."""
    from flows.result import DiarizationFailed

    return error.result if isinstance(error, DiarizationFailed) else None


@contextlib.contextmanager
def _drawn(console: Console | None, table: StageTable, *, keep: bool) -> Iterator[None]:
    if console is None:
        yield
        return
    from flows.cli.progress import live

    with live(console, table, keep=keep):
        yield


@contextlib.contextmanager
def _told(session: Session, request: TranscribeRequest, table: StageTable) -> Iterator[None]:
    """Have the display told of every stage event."""
    from flows.cli.progress import print_event
    from infra.progress import listening

    show: Callable[[StageEvent], None] = print_event(request.shown_as) if session.display.as_json else table

    def listener(event: StageEvent) -> None:
        session.run_id = event.run
        show(event)

    session.run_id = ""
    assert session.ledger is not None
    with listening(session.ledger), listening(listener):
        yield
