"""`steno submit`: recordings handed to a REST API elsewhere, followed, and their transcripts written here."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

import click

from stenoflow.cli.errors import INTERRUPTED, Problem, report, worst
from stenoflow.cli.options import TranscribeCommand, display_parameters, field_options, given_options
from stenoflow.cli.session import Display, Session, drawn, interruptible

if TYPE_CHECKING:
    from flows.request import TranscribeRequest
    from stenoflow.cli.submitting import Recording

EPILOG = """\b
steno submit --server https://steno.example.org meeting.m4a -f srt,txt -o transcripts
steno submit *.wav --detach                    returns immediately and prints the job IDs
steno submit --job 3f2a91c7-… -f srt           waits for a job and writes its transcript
\b
The API key is read from STENO_API_KEY, the server's address from STENO_API_URL unless --server gives it.
Ctrl-C leaves submitted jobs running and prints how to resume waiting for them.
Exit codes are those of `steno transcribe`.
"""
_PLACES = ("output_dir", "output_file")
"""Options about where the transcript that the service gives is written, which is here."""


def submit(
    sources: tuple[str, ...],
    server: str | None,
    job: tuple[str, ...],
    detach: bool,
    tag: tuple[str, ...],
    metadata: tuple[str, ...],
    as_json: bool,
    quiet: bool,
    debug: bool,
    **options: Any,
) -> int:
    """Transcribe recordings on another machine, through its REST API.

    SOURCE is a path to upload, - for standard input, or an http(s) or s3 URL that the service fetches. Several sources are
    submitted concurrently. The transcripts are written here, as by `steno transcribe`.
    """
    import asyncio

    if bool(sources) == bool(job):
        raise click.UsageError("Give either recordings to submit or jobs to resume with --job, not both.")
    if detach and job:
        raise click.UsageError("--detach applies to recordings; use --job without it.")
    given = given_options(options)
    display = Display(as_json, quiet, verbose=False, debug=debug)
    fields = _fields(given, tag, metadata)
    recordings = _recordings(sources, job, given)
    session = Session(display, display.console())
    codes = asyncio.run(_run(session, recordings, server, fields, detach))
    left = [recording.job_id for recording in recordings if recording.job_id and recording.code is None]
    if INTERRUPTED in codes:
        return _interrupted(left, server, given, display)
    failed = sum(bool(code) for code in codes)
    if failed and len(codes) > 1 and not as_json:
        click.echo(f"steno: {len(codes) - failed} of {len(codes)} recordings done, {failed} failed.", err=True)
    return worst(codes)


class SubmitCommand(TranscribeCommand):
    """The options of `steno transcribe` that a service takes, and its own."""

    heading = "Service"

    def parameters(self) -> list[click.Parameter]:
        from flows.doors import Door, options_of
        from flows.request import TranscribeRequest

        taken = {*options_of(TranscribeRequest, Door.API), *_PLACES}
        others = tuple(name for name in TranscribeRequest.model_fields if name not in taken)
        return [
            click.Argument(["sources"], nargs=-1, metavar="[SOURCE...]"),
            click.Option(
                ["--server"], metavar="URL", envvar="STENO_API_URL", help="URL of the API; this machine's by default."
            ),
            click.Option(["--detach"], is_flag=True, help="Return once the recordings are submitted."),
            click.Option(["--job"], metavar="ID", multiple=True, help="Wait for this job instead of submitting. Repeatable."),
            click.Option(["--tag"], metavar="TAG", multiple=True, help="Tag of the job, for filtering. Repeatable."),
            click.Option(["--metadata"], metavar="KEY=VALUE", multiple=True, help="Metadata stored with the job. Repeatable."),
            *field_options(TranscribeRequest, others, door=Door.API),
            *(parameter for parameter in display_parameters() if parameter.name != "verbose"),
        ]


command = SubmitCommand("submit", submit, help=submit.__doc__, epilog=EPILOG)


async def _run(
    session: Session, recordings: list[Recording], server: str | None, fields: dict[str, Any], detach: bool
) -> list[int]:
    """Exit codes, in order; of those that were interrupted, INTERRUPTED."""
    from asyncio import CancelledError

    from stenoflow.cli.submitting import JobsTable, Submitting
    from stenoflow.client import AsyncStenoClient

    utf8 = session.console is None or "utf" in session.console.encoding.lower()
    async with AsyncStenoClient(server) as client:
        session.table = table = JobsTable(client.url, recordings, utf8=utf8)
        work = Submitting(client, session.display, table, fields, detach=detach, at_once=session.console is None)
        with interruptible(session):
            try:
                with drawn(session, table, keep=False):
                    await work.all(recordings)
            except CancelledError:
                pass
            for recording in recordings:
                if recording.said is not None:
                    recording.said()
    return [INTERRUPTED if recording.code is None else recording.code for recording in recordings]


def _fields(given: dict[str, Any], tags: tuple[str, ...], metadata: tuple[str, ...]) -> dict[str, Any]:
    """What a submission says beside the recording, with the defaults of `steno transcribe`. Raises click.UsageError."""
    from flows.doors import Door, default_at, options_of
    from flows.request import TranscribeRequest

    pairs = [pair.partition("=") for pair in metadata]
    if any(not key or not separator for key, separator, _ in pairs):
        raise click.UsageError("Write --metadata as KEY=VALUE.")
    fields = {name: TranscribeRequest.model_fields[name] for name in options_of(TranscribeRequest, Door.API) if name != "name"}
    defaults = {name: field.default for name, field in fields.items() if default_at(field, Door.API) != field.default}
    options = defaults | {name: value for name, value in given.items() if name in fields}
    if tags:
        options["tags"] = list(tags)
    if pairs:
        options["metadata"] = {key: value for key, _, value in pairs}
    return options


def _recordings(sources: tuple[str, ...], jobs: tuple[str, ...], given: dict[str, Any]) -> list[Recording]:
    """What is to be done, refused where it cannot be. Raises pydantic's ValidationError and StenoError."""
    from stenoflow.cli.checks import check_output, check_source, check_together
    from stenoflow.cli.submitting import Recording

    if len(jobs) > 1 and given.get("output_file"):
        raise click.UsageError("--output-file applies to one job; with several, give --output-dir and --format.")
    requests = [_request(source, given) for source in sources] or [_request(job, given) for job in jobs]
    check_output(requests[0].output_dir, requests[0].output_file)
    if jobs:
        return [Recording(request, job, job_id=job) for job, request in zip(jobs, requests, strict=True)]
    check_together(requests)
    for source in sources:
        check_source(source)
    return [Recording(request, request.shown_as) for request in requests]


def _request(source: str, given: dict[str, Any]) -> TranscribeRequest:
    from flows.request import TranscribeRequest

    return TranscribeRequest(source=source, **given)


def _interrupted(jobs: list[str], server: str | None, given: dict[str, Any], display: Display) -> int:
    """Say what goes on, and how to pick it up."""
    if not jobs:
        message = "Interrupted; no job is running on the service."
    else:
        again = ["steno", "submit", *(["--server", server] if server else [])]
        again += [word for job in jobs for word in ("--job", job)] + _written(given)
        many = "The job continues" if len(jobs) == 1 else f"{len(jobs)} jobs continue"
        message = f"Interrupted. {many} on the service; resume with: {shlex.join(again)}"
    return report(Problem("interrupted", message, INTERRUPTED), as_json=display.as_json)


def _written(given: dict[str, Any]) -> list[str]:
    """The options about files, as they were given."""
    from flows.options import LAYOUT

    words = ["--format", ",".join(given["formats"])] if "formats" in given else []
    for name in (*_PLACES, "name", *sorted(LAYOUT)):
        if name in given and name != "highlight_words":
            words += [f"--{name.replace('_', '-')}", str(given[name])]
    return [*words, *(["--highlight-words"] if given.get("highlight_words") else [])]
