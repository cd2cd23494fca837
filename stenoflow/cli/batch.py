"""`steno batch`: everything that a folder, a bucket, a manifest or a feed lists."""

from __future__ import annotations

import json
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import click

from stenoflow.cli.errors import describe, report
from stenoflow.cli.options import (
    TranscribeCommand,
    display_parameters,
    field_options,
    given_options,
    machine_parameters,
)
from stenoflow.cli.session import Display, Session, interruptible, leave_unfinished_stages, mark_cancelled, settled
from stenoflow.cli.transcribe import quieten, use_machine_options

if TYPE_CHECKING:
    from flows.batch import BatchRequest, BatchResult
    from flows.batching.drive import BatchEvent
    from stenoflow.cli.batch_progress import BatchTable

EPILOG = """\b
steno batch recordings --recursive -o transcripts   new recordings in a folder and its subfolders
steno batch 's3://bucket/calls/2024-*/*.wav' -o s3://bucket/transcripts
steno batch interviews.csv -f srt,json                one source per row, with its own options
steno batch https://example.org/feed.xml --limit 5 --order newest
\b
Run the same command again to continue after an interruption.
Exit codes are those of `steno transcribe`: 0 if no recording failed, otherwise that of
the first failure; 8 if recordings were quarantined because they keep killing their process.
"""


def batch(source: str, as_json: bool, quiet: bool, verbose: bool, debug: bool, **options: Any) -> int:
    """Transcribe every new recording that SOURCE lists.

    SOURCE is a folder, a glob in quotes, an s3:// prefix or glob, a .csv or .jsonl manifest, or a podcast feed. Recordings
    that are done with the same options are skipped, and a failure does not stop the others. A table of the results is
    written to the output folder.
    """
    import asyncio

    from stenoflow.cli.batch_progress import BatchTable

    display = Display(as_json, quiet, verbose, debug)
    use_machine_options(options)
    quieten(verbose=verbose)
    from infra.names import display_name as shown
    from infra.settings import get_settings
    from stenoflow.cli.checks import check_models, check_output

    request = _request(source, options)
    _check_listed(request.source)
    check_output(request.output_dir, None)
    if request.run_on == "here":
        check_models(_sample(request), get_settings())
    session = Session(display, display.console())
    table = BatchTable(shown(source), utf8=session.console is None or "utf" in session.console.encoding.lower())
    code = asyncio.run(_run(session, request, table))
    if table.stopping:
        leave_unfinished_stages(session)
    return code


class BatchCommand(TranscribeCommand):
    def parameters(self) -> list[click.Parameter]:
        from flows.batching.request import BatchRequest
        from flows.options import TranscribeOptions

        return [
            click.Argument(["source"], required=True, metavar="SOURCE"),
            *field_options(BatchRequest, without=("source", "options")),
            *field_options(TranscribeOptions),
            *machine_parameters(),
            *display_parameters(),
        ]


command = BatchCommand("batch", batch, help=batch.__doc__, epilog=EPILOG)


def _request(source: str, options: dict[str, Any]) -> BatchRequest:
    """Raises pydantic's ValidationError."""
    from flows.batching.request import BatchRequest
    from flows.options import TranscribeOptions

    given = given_options(options)
    own = {name: value for name, value in given.items() if name in BatchRequest.model_fields}
    common = {name: value for name, value in given.items() if name not in own}
    return _for_storage(BatchRequest(source=source, options=TranscribeOptions(**common), **own))


def _check_listed(source: str) -> None:
    """Refuse at once what is not there. Raises SourceNotFound, SourceForbidden."""
    from pathlib import Path

    from infra.listing.folders import has_wildcard
    from infra.names import scheme_of
    from stenoflow.errors import SourceForbidden, SourceNotFound

    if Path(source).name == "-":
        raise SourceForbidden("A batch cannot be read from standard input; give a folder, a glob, a URL or a manifest.")
    if not scheme_of(source) and not has_wildcard(source) and not Path(source).exists():
        raise SourceNotFound(f"There is no folder or file {source}; check its spelling and the working folder.")


def _for_storage(request: BatchRequest) -> BatchRequest:
    """The request as Prefect may keep and show it, and as it can be retried from any folder.

    The address of a private feed becomes a handle, the same every time; paths become absolute.
    """
    from infra.handles import concealed
    from infra.names import expanded, scheme_of
    from infra.settings import get_settings

    def absolute(place: str) -> str:
        return place if scheme_of(place) else str(expanded(place).absolute())

    source = concealed(absolute(request.source), get_settings(), shared=True)
    return request.model_copy(update={"source": source, "output_dir": absolute(request.output_dir)})


def _sample(request: BatchRequest) -> Any:
    """A request for one of the recordings, to check what all have in common."""
    from flows.request import TranscribeRequest

    return TranscribeRequest(source="recording", **request.options.model_dump(exclude_unset=True))


async def _run(session: Session, request: BatchRequest, table: BatchTable) -> int:
    """The exit code of the batch."""
    from asyncio import CancelledError

    from stenoflow.cli.session import drawn
    from stenoflow.errors import StageCancelled

    session.table = table
    with interruptible(session):
        try:
            with drawn(session, table, keep=False):
                result = await _result(session, request, table)
        except (CancelledError, StageCancelled) as error:
            await mark_cancelled(table.batch)
            return report(describe(error), as_json=session.display.as_json)
        finally:
            await settled(session)
    print_batch(result, session.display, table.source)
    return result.exit_code


async def _result(session: Session, request: BatchRequest, table: BatchTable) -> BatchResult:
    """Run the flow. Raises its errors, apart from that some recordings failed."""
    from infra.progress import listening
    from stenoflow.cli.session import cleared, ready

    await ready(session, table)
    await cleared(session)
    from flows.batch import BatchIncomplete
    from flows.batch import batch as batch_flow
    from flows.batching.drive import watching
    from flows.execution import run_here

    assert session.ledger is not None
    shows = [watching(table.on_event)] + ([watching(print_ended)] if session.display.as_json else [])
    with ExitStack() as stack:
        for show in [listening(session.ledger), listening(table), *shows]:
            stack.enter_context(show)
        try:
            return await run_here(batch_flow, request)
        except BatchIncomplete as error:
            assert error.result is not None
            return error.result


def print_ended(event: BatchEvent) -> None:
    """A JSON line per recording that ended or was skipped."""
    if event.row is not None:
        line = {"type": "recording"} | event.row.model_dump(mode="json", exclude={"campaign", "retry"})
        click.echo(json.dumps(line, ensure_ascii=False))


def print_batch(result: BatchResult, display: Display, source: str) -> None:
    """What came of it on standard output, what failed on standard error; or one JSON line."""
    if display.as_json:
        line = {"type": "batch", "source": source} | result.model_dump(mode="json", exclude={"problems"})
        click.echo(json.dumps(line, ensure_ascii=False))
        return
    for row in result.problems:
        where = f" (line {row.line})" if row.line else ""
        named = "" if row.detail.startswith(row.name) else f"{row.name}{where}: "
        click.echo(f"steno: error: {named}{row.detail}", err=True)
    if result.trouble:
        click.echo(f"steno: error: {result.trouble}", err=True)
    if display.quiet:
        return
    from stenoflow.cli.report import duration, near, pace

    taken = pace(result.duration, result.seconds)
    done = f" {duration(result.duration)} of recordings in {duration(result.seconds)}{taken}." if result.done else ""
    click.echo(f"{source}: {result.sentence}{done}")
    if result.table:
        click.echo(f"  {near(result.table)}")
