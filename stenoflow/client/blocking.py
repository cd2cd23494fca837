"""The client for threads."""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

import httpx

from stenoflow.client.connection import PATIENCE, Connection, Verify, request_options
from stenoflow.client.following import Following
from stenoflow.client.options import Changes, ChunkOptions, Format, RetryFrom
from stenoflow.client.steps import Call, Close, Emit, NextLine, Notify, Open, Send, Sleep, Step, Steps, Work
from stenoflow.client.uploads import Recording
from stenoflow.client.values import Event, Filters, JobFields, JobRef, Progress, job_id_of
from stenoflow.edits import EditedSegment, EditResult, Operation, Peaks, Revisions
from stenoflow.jobs import ChunkResult, GlossaryInfo, Health, Job, JobAccepted, JobList, JobRemoved, JobSummary, Voice
from stenoflow.types import Transcript

T = TypeVar("T")


class StenoClient:
    """Client of the REST API. It is thread-safe; its methods raise `stenoflow.client.ClientError`.

    ```python
    with StenoClient("https://steno.example.org", key="…") as steno:
        transcript = steno.transcribe("meeting.m4a", diarize=True, max_speakers=4)
    ```
    """

    def __init__(
        self,
        url: str | None = None,
        key: str | None = None,
        *,
        patience: float = PATIENCE,
        verify: Verify = True,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """Create a client; it connects when it is first used.

        Args:
            url: Address of the service; `STENO_API_URL` by default, else this machine's.
            key: API key; `STENO_API_KEY` by default.
            patience: Seconds for which to retry while the service is unreachable, restarting or rate limiting.
            verify: TLS verification, as in httpx.
            transport: httpx transport, for tests and proxies.
        """
        self._connection = Connection.of(url, key)
        self._core = Following(patience)
        self._http = httpx.Client(**self._connection.options, verify=verify, transport=transport)

    @property
    def url(self) -> str:
        """Address of the service."""
        return self._connection.url

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    # -- jobs ---------------------------------------------------------------------------------------------------------

    def submit(
        self, source: Recording, *, name: str | None = None, idempotency_key: str | None = None, **fields: Unpack[JobFields]
    ) -> JobAccepted:
        """Submit a recording and return its job without waiting. Retries never create a second job.

        Args:
            source: A path, an open binary file or bytes to upload, or a URL (`https://…`, `s3://…`) for the service to fetch.
            name: Name of the recording; by default that of the file or URL.
            idempotency_key: Submitting again with the same key returns the same job.
            fields: Options of the transcription, and `metadata`, `tags`, `webhook_url`.
        """
        return self._taken(self._core.submit(source, name, idempotency_key, fields))

    def transcribe(
        self,
        source: Recording,
        *,
        name: str | None = None,
        timeout: float | None = None,
        on_progress: Callable[[Progress], object] | None = None,
        **fields: Unpack[JobFields],
    ) -> Transcript:
        """Submit a recording, wait for its job and return the transcript.

        Args:
            source: As for `submit`.
            name: As for `submit`.
            timeout: Seconds to wait before raising WaitTimeout; the job continues. Unlimited by default.
            on_progress: Called with the job's progress.
            fields: As for `submit`.

        Raises:
            JobFailed: The job ended without a transcript; its `job` has the reason.
        """
        return self._taken(self._core.transcribe(source, name, timeout, on_progress, fields))

    def job(self, job: JobRef, *, wait: float = 0.0) -> Job:
        """Return the current state of a job; with `wait`, wait up to that many seconds for it to end."""
        return self._taken(self._core.job(job_id_of(job), wait))

    def wait(
        self, job: JobRef, *, timeout: float | None = None, on_progress: Callable[[Progress], object] | None = None
    ) -> Job:
        """Wait until a job has ended, across restarts of the service, and return it. Raises WaitTimeout after `timeout` seconds."""
        return self._taken(self._core.wait(job_id_of(job), timeout, on_progress))

    def events(self, job: JobRef) -> Iterator[Event]:
        """Iterate over the events of a job until it has ended."""
        return self._emitted(self._core.events(job_id_of(job)))

    def jobs(self, **filters: Unpack[Filters]) -> Iterator[JobSummary]:
        """Iterate over this key's jobs that match the filters, newest first."""
        cursor: str | None = None
        while True:
            page = self.page(limit=100, cursor=cursor, **filters)
            yield from page.jobs
            if (cursor := page.next_cursor) is None:
                return

    def page(self, *, limit: int = 20, cursor: str | None = None, **filters: Unpack[Filters]) -> JobList:
        """Return one page of jobs; pass its `next_cursor` as `cursor` for the next one."""
        return self._taken(self._core.page(filters, limit, cursor))

    def retry(self, job: JobRef, from_: RetryFrom | None = None, **changes: Unpack[Changes]) -> JobAccepted:
        """Retry the failed stages of a job. With changed options, or from a finished stage, this creates a new job and returns it."""
        return self._taken(self._core.retry(job_id_of(job), from_, changes))

    def delete(self, job: JobRef) -> JobRemoved:
        """Cancel a job if it is running, and delete all of its data."""
        return self._taken(self._core.delete(job_id_of(job)))

    # -- results ------------------------------------------------------------------------------------------------------

    def transcript(self, job: JobRef) -> Transcript:
        """Return the transcript of a completed job. Raises JobConflict if the job has not completed."""
        return self._taken(self._core.transcript(job_id_of(job)))

    def text(self, job: JobRef, format: Format, *, revision: int | None = None) -> str:
        """Return the transcript rendered in a format, with its corrections; `revision` 0 is the original."""
        return self._taken(self._core.text(job_id_of(job), format, revision))

    def save(
        self, job: JobRef, target: str | Path, formats: Sequence[Format] | None = None, *, name: str | None = None
    ) -> list[Path]:
        """Write the transcript and return the paths. Files are written atomically.

        Args:
            job: A completed job.
            target: A file, whose extension determines the format; with `formats`, a folder.
            formats: Formats to write into the folder `target`.
            name: Base name of the files in a folder; the job's ID by default.

        Raises:
            OSError: A file cannot be written.
        """
        kinds = None if formats is None else tuple(formats)
        return self._taken(self._core.save(job_id_of(job), Path(target), kinds, name))

    # -- corrections --------------------------------------------------------------------------------------------------

    def segments(self, job: JobRef, *, revision: int | None = None) -> Iterator[EditedSegment]:
        """Iterate over the segments of a revision, by default the latest, with the ids that corrections name them by."""
        first = 0
        while True:
            page = self._taken(self._core.segments(job_id_of(job), first, 1000, revision))
            yield from page.segments
            first, revision = first + len(page.segments), page.revision
            if first >= page.total or not page.segments:
                return

    def edit(self, job: JobRef, base: int, *operations: Operation) -> EditResult:
        """Correct a transcript: make all operations as one new revision, and return what has changed.

        Args:
            job: A completed job.
            base: The revision that the operations were made on; 0 is the transcript as computed.
            operations: Classes of `stenoflow.edits`.

        Raises:
            JobConflict: The same words, segments or speakers were changed since.
        """
        return self._taken(self._core.edit(job_id_of(job), base, operations))

    def revisions(self, job: JobRef) -> Revisions:
        """Return the history of the corrections."""
        return self._taken(self._core.revisions(job_id_of(job)))

    def difference(self, job: JobRef, revision: int, *, since: int = 0) -> EditResult:
        """Return what differs between two revisions, by default from the original."""
        return self._taken(self._core.difference(job_id_of(job), revision, since))

    def audio(self, job: JobRef) -> bytes:
        """Return the recording as it was transcribed: FLAC, 16 kHz, one channel."""
        return self._taken(self._core.audio(job_id_of(job)))

    def peaks(self, job: JobRef) -> Peaks:
        """Return the recording's waveform."""
        return self._taken(self._core.peaks(job_id_of(job)))

    # -- voices -------------------------------------------------------------------------------------------------------

    def enrol_voice(self, name: str, source: Recording, *, consent: str, diarization_model: str | None = None) -> Voice:
        """Enrol a person's voice, so that jobs with `voices=True` name this speaker; a further recording of the same name adds to it.

        Args:
            name: Name of the person.
            source: A path, an open binary file or bytes: a recording of this person alone.
            consent: How the person consented to be recognised by voice, and where that is recorded.
            diarization_model: As in the jobs that are to recognise the voice.
        """
        return self._taken(self._core.enrol_voice(name, source, consent, diarization_model))

    def voices(self) -> list[Voice]:
        """Return the enrolled voices."""
        return self._taken(self._core.voices())

    def forget_voice(self, voice: Voice | str) -> Voice:
        """Delete all that is stored of a voice, given as it was returned or by its id."""
        return self._taken(self._core.forget_voice(voice if isinstance(voice, str) else voice.voice_id))

    # -- glossaries ---------------------------------------------------------------------------------------------------

    def set_glossary(self, name: str, text: str) -> GlossaryInfo:
        """Keep a glossary, in place of one of that name: a line each, a hot word or `heard => written`. Jobs choose it with `glossary`."""
        return self._taken(self._core.set_glossary(name, text))

    def glossaries(self) -> list[GlossaryInfo]:
        """Return the glossaries."""
        return self._taken(self._core.glossaries())

    def remove_glossary(self, name: str) -> None:
        """Remove a glossary; transcripts that were made with it stay."""
        self._taken(self._core.remove_glossary(name))

    # -- without jobs -------------------------------------------------------------------------------------------------

    def chunk(
        self, samples: Any, session_id: str | None = None, *, final: bool | None = None, **options: Unpack[ChunkOptions]
    ) -> ChunkResult:
        """Transcribe a few seconds of audio at once, without a job.

        Args:
            samples: Mono float32 at 16 kHz: a numpy array of shape (samples,), or its raw bytes.
            session_id: Chunks with the same ID continue one another.
            final: Whether this is the session's last chunk. A word cut off by the end of any other is returned with the next chunk.
            options: Options of the transcription.
        """
        return self._taken(self._core.chunk(samples, session_id, options, final=final))

    def session(self, session_id: str | None = None, **options: Unpack[ChunkOptions]) -> ChunkSession:
        """Start a session: chunks on one timeline, with stable speaker names."""
        return ChunkSession(self, session_id or uuid.uuid4().hex, options)

    def health(self) -> Health:
        """Return the health of the service."""
        return self._taken(self._core.health())

    # -- taking steps -------------------------------------------------------------------------------------------------

    def _taken(self, steps: Steps[T]) -> T:
        for _ in (taking := _Taking(self._http, steps)):
            pass
        result: T = taking.result
        return result

    def _emitted(self, steps: Steps[None]) -> Iterator[Any]:
        yield from _Taking(self._http, steps)


class ChunkSession:
    """A conversation sent chunk by chunk."""

    def __init__(self, client: StenoClient, session_id: str, options: ChunkOptions) -> None:
        self._client = client
        self._options = options
        self.session_id = session_id

    def send(self, samples: Any, *, final: bool = False) -> ChunkResult:
        """Transcribe the next chunk. A word cut off by its end is returned with the next one, unless this one is `final`."""
        return self._client.chunk(samples, self.session_id, final=final, **self._options)

    def finish(self) -> ChunkResult:
        """End the session and return the word that the last chunk's end cut off, if any."""
        return self.send(b"", final=True)


class _Taking:
    """Takes the steps of an operation; iterating gives what it emits, and afterwards `result` is what it returned."""

    result: Any

    def __init__(self, http: httpx.Client, steps: Steps[Any]) -> None:
        self._http = http
        self._steps = steps
        self._streams: dict[int, tuple[contextlib.ExitStack, Iterator[str]]] = {}

    def __iter__(self) -> Generator[Any, None, None]:
        came: Any = None
        failed: Exception | None = None
        try:
            while True:
                try:
                    step = self._steps.throw(failed) if failed is not None else self._steps.send(came)
                except StopIteration as end:
                    self.result = end.value
                    return
                came, failed = None, None
                if isinstance(step, Emit):
                    yield step.value
                    continue
                try:
                    came = self._take(step)
                except Exception as error:
                    failed = error
        finally:
            for opened, _ in self._streams.values():
                opened.close()
            self._steps.close()

    def _take(self, step: Step) -> Any:
        match step:
            case Send(call):
                with self._sent(call, stream=False) as response:
                    return response
            case Open(call):
                return self._open(call)
            case NextLine(stream):
                return next(self._streams[id(stream)][1], None)
            case Close(stream):
                self._streams.pop(id(stream))[0].close()
            case Sleep(seconds):
                time.sleep(seconds)
            case Work(function):
                return function()
            case Notify(listener, argument):
                listener(argument)
        return None

    @contextlib.contextmanager
    def _sent(self, call: Call, *, stream: bool) -> Iterator[httpx.Response]:
        with contextlib.ExitStack() as opened:
            form: dict[str, Any] = {}
            if call.upload is not None:
                file = opened.enter_context(call.upload.opened())
                form = {"data": call.upload.fields, "files": {"file": (call.upload.name, file)}}
            response = self._http.send(self._http.build_request(**request_options(call), **form), stream=stream)
            opened.callback(response.close)
            yield response

    def _open(self, call: Call) -> httpx.Response:
        opened = contextlib.ExitStack()
        response = opened.enter_context(self._sent(call, stream=True))
        self._streams[id(response)] = (opened, response.iter_lines())
        return response
