"""Following a job: by its events while they come, by asking where they do not, over restarts of the service."""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import httpx

from stenoflow.client import errors
from stenoflow.client.core import Core, path_of
from stenoflow.client.errors import JobDeleted, RequestRefused, ServiceBroken, ServiceUnavailable, WaitTimeout
from stenoflow.client.options import FORMATS
from stenoflow.client.steps import Call, Close, Emit, NextLine, Notify, Open, Sleep, Steps, Work
from stenoflow.client.uploads import Recording
from stenoflow.client.values import ENDED, Event, EventLines, Progress
from stenoflow.jobs import Job
from stenoflow.types import Transcript

_SILENCE = 40.0
"""Seconds; a service that is there sends something every 15."""
_LONG_POLL = 15.0
_BREATH = 0.5
"""Seconds before a stream that broke is opened again."""
_FRUITLESS = 2
"""Streams without an event after which a proxy is taken to hold them back, and the job is asked for instead."""


class Following(Core):
    """Operations that take as long as a job does."""

    def wait(self, job_id: str, timeout: float | None, on_progress: Callable[[Progress], Any] | None) -> Steps[Job]:
        """The job once it has ended. Raises WaitTimeout, and ClientError as `job`."""
        until = math.inf if timeout is None else time.monotonic() + timeout
        last_sent, fruitless = Progress(job_id), 0

        def notify(now: Progress) -> Steps[None]:
            nonlocal last_sent
            if now != last_sent and on_progress is not None:
                yield Notify(on_progress, now)
            last_sent = now

        def on_event(event: Event) -> Steps[None]:
            yield from notify(last_sent.after(event))

        while True:
            if listens := fruitless < _FRUITLESS:
                events = yield from self._listened(job_id, until, on_event)
                fruitless = 0 if events else fruitless + 1
            left = until - time.monotonic()
            job = yield from self.job(job_id, 0.0 if listens else max(0.0, min(_LONG_POLL, left)))
            yield from notify(Progress.of(job))
            if job.status in ENDED:
                return job
            if time.monotonic() >= until:
                raise WaitTimeout(
                    f"The job has not ended after {timeout:g} s ({job.message}) It is still running; wait again, or delete it."
                )
            yield Sleep(_BREATH)

    def events(self, job_id: str) -> Steps[None]:
        """Emits the events of the job until it has ended; after a broken connection, the current state is repeated."""
        last: list[Event] = []

        def on_event(event: Event) -> Steps[None]:
            last[:] = [event]
            yield Emit(event)

        failed_at: float | None = None
        while not (last and last[0].last):
            if (yield from self._listened(job_id, math.inf, on_event)):
                failed_at = None
            else:
                yield from self.job(job_id)  # raises what is wrong, once patience has run out
                failed_at = failed_at or time.monotonic()
                if time.monotonic() - failed_at > self.patience:
                    raise ServiceUnavailable("The service sends no events; check for a proxy that buffers them.")
            if not (last and last[0].last):
                yield Sleep(_BREATH)

    def _listened(self, job_id: str, until: float, on_event: Callable[[Event], Steps[None]]) -> Steps[int]:
        """The number of events that came before the stream ended, or broke. Raises JobDeleted, and for a refusal ClientError."""
        left = until - time.monotonic()
        call = Call("GET", f"{path_of(job_id)}/events", timeout=max(0.1, min(_SILENCE, left)))
        try:
            stream = yield Open(call)
        except httpx.TransportError:
            return 0
        events, lines = 0, EventLines()
        try:
            while time.monotonic() < until and _streams(stream):
                line = yield NextLine(stream)
                if line is None:
                    break
                if (event := lines.after(line)) is not None:
                    events += 1
                    _check(event)
                    yield from on_event(event)
                    if event.last:
                        break
        except httpx.TransportError:
            pass
        yield Close(stream)
        return events

    def transcribe(
        self,
        source: Recording,
        name: str | None,
        timeout: float | None,
        on_progress: Callable[[Progress], Any] | None,
        fields: Mapping[str, Any],
    ) -> Steps[Transcript]:
        """Submit, wait, and fetch. Raises JobFailed."""
        accepted = yield from self.submit(source, name, None, fields)
        job = yield from self.wait(accepted.job_id, timeout, on_progress)
        if (error := errors.of_job(job)) is not None:
            raise error
        return (yield from self.transcript(job.job_id))

    def save(self, job_id: str, target: Path, formats: tuple[str, ...] | None, name: str | None) -> Steps[list[Path]]:
        """The files, each written whole or not at all. Raises RequestRefused, ClientError as `text`, and OSError."""
        target = target.expanduser()
        if formats is None:
            format_ = target.suffix.removeprefix(".").lower()
            if format_ not in FORMATS:
                raise RequestRefused(f"{target} must end in one of .{', .'.join(FORMATS)}, or give `formats` and a folder.")
            targets: dict[str, Path] = {format_: target}
        else:
            targets = {format_: target / f"{name or job_id}.{format_}" for format_ in formats}
        for format_, path in targets.items():
            content = yield from self.file(job_id, format_)
            yield Work(lambda path=path, content=content: _write(path, content))  # type: ignore[misc]
        return list(targets.values())


def _streams(stream: Any) -> bool:
    """Whether it is a stream of events; what else it may be is found out by asking for the job."""
    return stream.status_code == 200 and str(stream.headers.get("content-type", "")).startswith("text/event-stream")


def _check(event: Event) -> None:
    if event.name == "deleted":
        raise JobDeleted("The job was deleted while waiting for it.")
    if event.name == "error":
        raise ServiceBroken(
            str(event.data.get("detail", "The service stopped following the job.")), reason=event.data.get("code")
        )


def _write(path: Path, content: bytes) -> None:
    """Whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name[:100]}.{uuid.uuid4().hex[:8]}.part")
    try:
        aside.write_bytes(content)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
