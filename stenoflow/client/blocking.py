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
from stenoflow.client.options import Changes, ChunkOptions, Format
from stenoflow.client.steps import Call, Close, Emit, NextLine, Open, Send, Sleep, Step, Steps, Tell, Work
from stenoflow.client.uploads import Recording
from stenoflow.client.values import Event, Filters, JobFields, JobRef, Progress, job_id_of
from stenoflow.jobs import ChunkResult, Health, Job, JobAccepted, JobList, JobRemoved, JobSummary, RetryFrom
from stenoflow.types import Transcript

T = TypeVar("T")


class StenoClient:
    """Stenoflow's REST API. Every method raises `stenoflow.client.errors.ClientError`; one client may be used by many threads.

    with StenoClient("https://steno.example.org", key="…") as steno:
        transcript = steno.transcribe("meeting.m4a", diarize=True, max_speakers=4)
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
        """`url` and `key` are those of `STENO_API_URL` and `STENO_API_KEY` when left out.

        A service that is away, restarting, or says "later" is asked again for `patience` seconds.
        """
        self._connection = Connection.of(url, key)
        self._core = Following(patience)
        self._http = httpx.Client(**self._connection.options, verify=verify, transport=transport)

    @property
    def url(self) -> str:
        """Where the service is."""
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
        """Submit a path, an open file or bytes, which are uploaded, or an address (`https://…`, `s3://…`), which is fetched.

        However often the request has to be sent, one job is made; with an `idempotency_key` of your own also if you ask again.
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
        """Submit, wait, and the transcript. Raises JobFailed as well."""
        return self._taken(self._core.transcribe(source, name, timeout, on_progress, fields))

    def job(self, job: JobRef, *, wait: float = 0.0) -> Job:
        """The job as it is now; or, with `wait`, once it has ended or so many seconds have passed."""
        return self._taken(self._core.job(job_id_of(job), wait))

    def wait(
        self, job: JobRef, *, timeout: float | None = None, on_progress: Callable[[Progress], object] | None = None
    ) -> Job:
        """The job once it has ended, in whatever way, also over restarts of the service. Raises WaitTimeout."""
        return self._taken(self._core.wait(job_id_of(job), timeout, on_progress))

    def events(self, job: JobRef) -> Iterator[Event]:
        """What happens to the job, as it happens, until it has ended."""
        return self._emitted(self._core.events(job_id_of(job)))

    def jobs(self, **filters: Unpack[Filters]) -> Iterator[JobSummary]:
        """All jobs of this key that the filters let through, the newest first."""
        cursor: str | None = None
        while True:
            page = self.page(limit=100, cursor=cursor, **filters)
            yield from page.jobs
            if (cursor := page.next_cursor) is None:
                return

    def page(self, *, limit: int = 20, cursor: str | None = None, **filters: Unpack[Filters]) -> JobList:
        """One page of them; its `next_cursor` leads to the next."""
        return self._taken(self._core.page(filters, limit, cursor))

    def retry(self, job: JobRef, from_: RetryFrom | None = None, **changes: Unpack[Changes]) -> JobAccepted:
        """Run what failed once more; with changes, or from a finished stage on, as a new job, which the answer names."""
        return self._taken(self._core.retry(job_id_of(job), from_, changes))

    def delete(self, job: JobRef) -> JobRemoved:
        """Cancel the job if it is under way, and have all that it left removed."""
        return self._taken(self._core.delete(job_id_of(job)))

    # -- results ------------------------------------------------------------------------------------------------------

    def transcript(self, job: JobRef) -> Transcript:
        """The transcript. Raises JobConflict while there is none."""
        return self._taken(self._core.transcript(job_id_of(job)))

    def text(self, job: JobRef, format: Format) -> str:
        """The transcript in a format."""
        return self._taken(self._core.text(job_id_of(job), format))

    def save(
        self, job: JobRef, target: str | Path, formats: Sequence[Format] | None = None, *, name: str | None = None
    ) -> list[Path]:
        """Write a file whose extension names its format; or, with `formats`, one for each into the folder `target`.

        In a folder they are called `name`, or as the job's id. None is ever half there. Raises OSError.
        """
        kinds = None if formats is None else tuple(formats)
        return self._taken(self._core.save(job_id_of(job), Path(target), kinds, name))

    # -- without jobs -------------------------------------------------------------------------------------------------

    def chunk(
        self, samples: Any, session_id: str | None = None, *, final: bool | None = None, **options: Unpack[ChunkOptions]
    ) -> ChunkResult:
        """The text of some seconds of audio: float32 at 16 kHz, a numpy array of shape (samples,) or raw bytes.

        A chunk of a session that is not `final` holds back a word that its end cuts, for the next chunk.
        """
        return self._taken(self._core.chunk(samples, session_id, options, final=final))

    def session(self, session_id: str | None = None, **options: Unpack[ChunkOptions]) -> ChunkSession:
        """Chunks that continue one another: one clock, and speakers that keep their names."""
        return ChunkSession(self, session_id or uuid.uuid4().hex, options)

    def health(self) -> Health:
        """Whether the service is there."""
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
    """One conversation, sent in pieces."""

    def __init__(self, client: StenoClient, session_id: str, options: ChunkOptions) -> None:
        self._client = client
        self._options = options
        self.session_id = session_id

    def send(self, samples: Any, *, final: bool = False) -> ChunkResult:
        """What was said in the next piece; a word that its end cuts comes with the next one, unless this is the `final` one."""
        return self._client.chunk(samples, self.session_id, final=final, **self._options)

    def finish(self) -> ChunkResult:
        """The word that the last piece's end cut, if it did."""
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
            case Tell(listener, argument):
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
