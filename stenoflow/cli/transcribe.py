"""`steno transcribe`: the recordings one after the other, each a run of the flow, in one process that keeps its models."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stenoflow.cli.errors import INTERRUPTED, describe, report, worst
from stenoflow.cli.options import MACHINE, GroupedOption, TranscribeCommand, given_options
from stenoflow.cli.session import (
    Display,
    Session,
    displayed,
    drawn,
    interruptible,
    leave_unfinished_stages,
    mark_cancelled,
    ready,
    reused,
    settled,
)

if TYPE_CHECKING:
    from flows.request import TranscribeRequest

EPILOG = """\b
Exit codes: 0 success, 2 invalid option, 3 unusable recording or source, 4 model not
available, 5 out of memory or disk space, 6 temporary error, 7 written without speakers,
8 quarantined because its process keeps dying, 130 interrupted, 1 other error.
"""


def transcribe(
    sources: tuple[str, ...], together: bool, as_json: bool, quiet: bool, verbose: bool, debug: bool, **options: Any
) -> int:
    """Turn recordings into transcripts with speakers and word times.

    SOURCE is a path, an http(s), s3 or other fsspec URL, or - for standard input. Finished stages are cached: running the
    command again, with other formats or another number of speakers for instance, recomputes only what changed.
    """
    import asyncio

    display = Display(as_json, quiet, verbose, debug)
    use_machine_options(options)
    quieten(verbose=verbose)
    from infra.settings import get_settings
    from stenoflow.cli.checks import check_together, refused_at_once
    from stenoflow.cli.models import offered_weights

    settings = get_settings()
    if together:
        requests = [_session(sources, options)]
    else:
        requests = [_request(source, options, alone=len(sources) == 1) for source in sources]
    check_together(requests)
    refused = refused_at_once(requests, settings)
    if not as_json and offered_weights(refused.values(), settings):
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


class _Command(TranscribeCommand):
    def parameters(self) -> list[click.Parameter]:
        text = "The recordings are tracks of one session that begin at the same time, one speaker's each: one transcript, with the files' names."
        together = GroupedOption(["--together"], group="Sound", is_flag=True, help=text)
        return [*super().parameters(), together]


command = _Command("transcribe", transcribe, help=transcribe.__doc__, epilog=EPILOG)


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


def use_machine_options(options: dict[str, Any]) -> None:
    """Take out the options that say how this machine is used: they are settings of this process and of its children."""
    from infra.settings import get_settings

    said = {name: value for name in MACHINE if (value := options.pop(name, None)) is not None}
    get_settings.use(compute=said)
    if token := options.pop("hf_token", None):
        os.environ["HF_TOKEN"] = token  # which is where libraries of the hub read it


def _request(source: str, options: dict[str, Any], *, alone: bool) -> TranscribeRequest:
    """The request for one source. Raises pydantic's ValidationError.

    Of several, each keeps the name of its address, by which they were checked: servers may call them all `audio.mp3`.
    """
    from flows.request import TranscribeRequest
    from infra.names import WEB, display_name, scheme_of

    if not alone and scheme_of(source) in WEB and not options.get("name"):
        options = options | {"name": display_name(source)}
    return TranscribeRequest(source=source, **given_options(options))


def _session(sources: tuple[str, ...], options: dict[str, Any]) -> TranscribeRequest:
    """The request for tracks of one session. Raises pydantic's ValidationError."""
    from flows.request import TranscribeRequest

    return TranscribeRequest(source=sources[0], together=sources[1:], **given_options(options))


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
        await settled(session)
    return codes


async def _run(session: Session, request: TranscribeRequest, total: int) -> int:
    """Transcribe one recording and print what came of it; its exit code."""
    from stenoflow.cli.progress import StageTable, last_words
    from stenoflow.cli.report import print_result

    display = session.display
    table = StageTable(request.shown_as, utf8=session.console is None or "utf" in session.console.encoding.lower())
    if session.console is not None:
        table.text_of = last_words
    session.table = table
    try:
        with drawn(session, table, keep=total == 1):
            stored = for_storage(request)
            result = await reused(session, table, stored)
            if result is None:
                transcribe_flow = await ready(session, table, request)
                from flows.execution import run_here

                with displayed(session, request.shown_as, table):
                    result = await run_here(transcribe_flow, stored)
    except Exception as error:
        if partial := partial_result(error):
            print_result(partial, as_json=display.as_json, quiet=display.quiet)
        return _fail(error, request, display, total)
    finally:
        if session.ahead is not None:
            session.ahead.stop()
    print_result(result, as_json=display.as_json, quiet=display.quiet)
    return 0


def for_storage(request: TranscribeRequest) -> TranscribeRequest:
    """The request as Prefect may keep and show it, and as it can be retried from any folder.

    An address with credentials or a signature becomes a handle, paths become absolute.
    """
    from infra.handles import concealed
    from infra.names import STDIN, expanded, scheme_of
    from infra.settings import get_settings

    def stored(source: str) -> str:
        source = concealed(source, get_settings())
        return source if source == STDIN or scheme_of(source) else str(expanded(source).absolute())

    source, *together = map(stored, request.sources)
    folder = request.output_dir if scheme_of(request.output_dir) else str(Path(request.output_dir).expanduser().absolute())
    changed = {"source": source, "output_dir": folder} | ({"together": tuple(together)} if together else {})
    return request.model_copy(update=changed)


def partial_result(error: BaseException) -> Any:
    """The transcript that was saved although the run failed."""
    from flows.result import DiarizationFailed

    return error.result if isinstance(error, DiarizationFailed) else None
