"""Recordings on their way through a service: uploaded, followed, written. What `steno submit` does and shows."""

from __future__ import annotations

import asyncio
import io
import json
import os
import sys
import uuid
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flows.options import LAYOUT
from flows.request import TranscribeRequest
from infra import outputs
from infra.names import STDIN, output_stem, scheme_of
from infra.settings import get_settings
from speech.formats import RenderOptions, render
from speech.languages import language_names
from stenoflow.cli.errors import PARTIAL, Problem, describe, report
from stenoflow.cli.progress import StageTable
from stenoflow.cli.report import counted, duration, near, print_text
from stenoflow.client import (
    AsyncStenoClient,
    ClientError,
    Job,
    JobFailed,
    KeyRefused,
    LimitReached,
    Progress,
    Transcript,
    errors,
)
from stenoflow.errors import OutputNotWritable

if TYPE_CHECKING:
    from rich.table import Table

    from stenoflow.cli.session import Display

_UPLOADS = 2
"""Recordings that are uploaded at the same time: more share the same line."""
_FOLLOWED = 16
_STATES = {"running": "started", "computed": "completed"}
"""A stage's state as the other commands call it."""


@dataclass
class Recording:
    """One recording, or one job, and what has become of it."""

    request: TranscribeRequest
    """As it would be transcribed here: its name, and what is written of it."""
    shown_as: str
    job_id: str = ""
    status: str = "waiting"
    percent: float = 0.0
    message: str = ""
    code: int | None = None
    """The exit code, once it has one."""
    said: Callable[[], None] | None = None
    """Says what came of it, when nothing is drawn any more."""


class JobsTable(StageTable):
    """What the terminal shows: a row for each recording under way."""

    def __init__(self, url: str, recordings: list[Recording], *, utf8: bool) -> None:
        super().__init__(title=url, utf8=utf8)
        self.recordings = recordings

    def stop(self) -> None:
        self.stopping, self.note = True, "stopping; press Ctrl-C again to stop immediately"

    def line(self) -> str:
        return ""  # each recording has a line when it ends

    def __rich__(self) -> Table:
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        outer, grid = Table.grid(), Table.grid(padding=(0, 1))
        outer.add_column(no_wrap=True, overflow="ellipsis")
        for options in ({"max_width": 40, "min_width": 16}, {"width": 11}, {"width": 18}, {"justify": "right", "min_width": 4}):
            grid.add_column(no_wrap=True, overflow="ellipsis", **options)
        grid.add_column(no_wrap=True, overflow="ellipsis")
        ended = Counter("failed" if one.code else "done" for one in self.recordings if one.code is not None)
        under_way = [one for one in self.recordings if one.code is None]
        head = Text(self.title, style="bold")
        for word, style in (("done", "green"), ("failed", "red")):
            if ended[word]:
                head.append(f"  {ended[word]} {word}", style=style)
        outer.add_row(head)
        under_way.sort(key=lambda one: one.status == "waiting")  # those at work first
        for one in under_way[:20]:
            bar = ProgressBar(total=100.0, completed=one.percent, width=18)
            grid.add_row(Text(one.shown_as), one.status, bar, f"{one.percent:.0f} %", Text(one.message, style="dim"))
        outer.add_row(grid)
        note = self.note or (f"and {len(under_way) - 20} more" if len(under_way) > 20 else "")
        if note:
            outer.add_row(Text(note, style="dim"))
        return outer


class Submitting:
    """The work of one command."""

    def __init__(
        self,
        client: AsyncStenoClient,
        display: Display,
        table: JobsTable,
        fields: dict[str, Any],
        *,
        detach: bool,
        at_once: bool,
    ) -> None:
        self.client = client
        self.display = display
        self.table = table
        self.fields = fields
        self.detach = detach
        self.at_once = at_once
        """Whether nothing is drawn, which would be followed by all that is to be said."""
        self._uploads, self._followed = asyncio.Semaphore(_UPLOADS), asyncio.Semaphore(_FOLLOWED)

    async def all(self, recordings: list[Recording]) -> None:
        """Each of them; one that fails does not stop the others."""
        await asyncio.gather(*(self._one(recording) for recording in recordings))

    async def _one(self, recording: Recording) -> None:
        try:
            if not recording.job_id:
                async with self._uploads:
                    await self._submitted(recording)
                if self.detach:
                    recording.code = 0
                    return
            async with self._followed:
                job = await self.client.wait(recording.job_id, on_progress=self._listener(recording))
                await self._concluded(recording, job)
        except Exception as error:
            self._failed(recording, error)

    # -- submitting ---------------------------------------------------------------------------------------------------

    async def _submitted(self, recording: Recording) -> None:
        source, key = recording.request.source, uuid.uuid4().hex
        recording.status = "uploading" if not scheme_of(source) else "submitting"
        while True:
            try:
                accepted = await self._submit(recording, source, key)
                break
            except LimitReached as error:
                # As many jobs at once as the key may have: this one's turn comes when another has ended.
                if error.reason != "too_many_pending_jobs":
                    raise
                recording.status, recording.message = "waiting", error.message
                await asyncio.sleep(error.retry_after or 10.0)
        recording.job_id, recording.status = accepted.job_id, accepted.status
        recording.percent, recording.message = 0.0, accepted.message
        if self.display.as_json:
            self._line("job", recording, status=accepted.status)
        elif self.detach and not self.display.quiet:
            recording.said = lambda: click.echo(f"{recording.shown_as}: job {recording.job_id}")

    async def _submit(self, recording: Recording, source: str, key: str) -> Any:
        if source == STDIN:
            name = recording.request.name or "stdin"
            return await self.client.submit(sys.stdin.buffer, name=name, idempotency_key=key, **self.fields)
        if scheme_of(source) not in (None, "file"):
            return await self.client.submit(source, name=recording.request.name, idempotency_key=key, **self.fields)
        with _Counted(source, recording) as file:
            return await self.client.submit(file, name=recording.shown_as, idempotency_key=key, **self.fields)

    # -- following ----------------------------------------------------------------------------------------------------

    def _listener(self, recording: Recording) -> Callable[[Progress], None]:
        stages: dict[str, str] = {}
        percent = -1.0

        def listener(now: Progress) -> None:
            nonlocal percent
            recording.status, recording.percent, recording.message = now.status, now.percent, now.message
            if not self.display.as_json:
                return
            for stage in now.stages.values():
                if stages.get(stage.stage) != stage.state:
                    stages[stage.stage] = stage.state
                    seconds = stage.seconds if stage.state != "running" else None
                    state = _STATES.get(stage.state, stage.state)
                    self._line("stage", recording, stage=stage.stage, state=state, seconds=seconds, detail=stage.detail)
            if now.percent != percent:
                percent = now.percent
                self._line("progress", recording, percent=percent, message=now.message)

        return listener

    async def _concluded(self, recording: Recording, job: Job) -> None:
        """Write what the job left, and say so."""
        if not recording.request.name and recording.shown_as == recording.job_id:
            recording.shown_as = job.name or job.job_id
        error = errors.of_job(job)
        if error is None or job.error_code == "diarization_failed":
            transcript = await self.client.transcript(job)
            files = await asyncio.to_thread(self._write, recording, transcript)
            recording.said = lambda: self._result(recording, job, transcript, files)
        if error is not None:
            self._failed(recording, error)
        else:
            recording.code = 0
        self._say_at_once(recording)

    def _write(self, recording: Recording, transcript: Transcript) -> dict[str, str]:
        """Format to path, each written whole or not at all. Raises OutputNotWritable."""
        request, stem = recording.request, output_stem(recording.request.name or recording.shown_as)
        if request.output_file:
            kind = request.output_file.rpartition(".")[2].lower()
            targets = {kind: outputs.joined(request.output_dir, request.output_file)}
        else:
            targets = {kind: outputs.joined(request.output_dir, f"{stem}.{kind}") for kind in request.formats}
        shape = request.model_dump(include=set(LAYOUT))
        options = RenderOptions(uri=stem, **shape)
        for kind, target in targets.items():
            try:
                outputs.write(target, render(transcript, kind, options), get_settings())
            except OSError as error:
                why = error.strerror or type(error).__name__
                raise OutputNotWritable(f"{near(target)} is not writable ({why}); choose another --output-dir.") from error
        return targets

    # -- saying -------------------------------------------------------------------------------------------------------

    def _result(self, recording: Recording, job: Job, transcript: Transcript, files: Mapping[str, str]) -> None:
        words, speakers = len(transcript.word_segments), len(transcript.speakers)
        if self.display.as_json:
            facts = job.model_dump(
                mode="json", include={"status", "language", "duration", "stages", "warnings", "degraded", "cost"}
            )
            facts |= {"languages": list(transcript.languages)} if transcript.languages else {}
            facts |= {"language": transcript.language, "duration": transcript.duration, "words": words, "speakers": speakers}
            self._line("result", recording, files=dict(files), **facts)
            return
        if self.display.quiet:
            return
        print_text(files)
        for warning in job.warnings:
            click.echo(f"steno: warning: {recording.shown_as}: {warning}", err=True)
        said = [language_names(transcript.language, transcript.languages), duration(transcript.duration)]
        said += [counted(speakers, "speaker")] if speakers else []
        said += [counted(words, "word")] if words else []
        click.echo(f"{recording.shown_as}: {', '.join(said)}")
        for path in files.values():
            click.echo(f"  {near(path)}")

    def _failed(self, recording: Recording, error: Exception) -> None:
        problem = problem_of(error)
        result, named = recording.said, len(self.table.recordings) > 1 or self.display.as_json
        recording.code = problem.exit_code

        def said() -> None:
            if result is not None:
                result()
            if self.display.debug:
                import traceback

                traceback.print_exception(error)
            report(problem, as_json=self.display.as_json, source=recording.shown_as if named else None)

        recording.said = said
        self._say_at_once(recording)

    def _say_at_once(self, recording: Recording) -> None:
        if self.at_once and recording.said is not None:
            said, recording.said = recording.said, None
            said()

    def _line(self, kind: str, recording: Recording, **facts: Any) -> None:
        line = {"type": kind, "source": recording.shown_as, "job_id": recording.job_id} | facts
        click.echo(json.dumps(line, ensure_ascii=False))


def problem_of(error: Exception) -> Problem:
    """The error of the service, its message, and the matching exit code."""
    if not isinstance(error, ClientError):
        return describe(error)
    message = error.message
    if isinstance(error, KeyRefused):
        message += " Set STENO_API_KEY to a key that `steno keys make` printed on the service's machine."
    code = errors.exit_code(error)
    return Problem(
        error.reason, message, PARTIAL if isinstance(error, JobFailed) and error.reason == "diarization_failed" else code
    )


class _Counted(io.FileIO):
    """A file that reports how much of it has been read."""

    def __init__(self, source: str, recording: Recording) -> None:
        super().__init__(Path(source.removeprefix("file://")).expanduser())
        self._size = os.fstat(self.fileno()).st_size
        self._recording = recording

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        if self._size:
            self._recording.percent = 100.0 * self.tell() / self._size
        return data or b""
