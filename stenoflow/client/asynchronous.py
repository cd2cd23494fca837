"""The client for event loops (asyncio or trio)."""

from __future__ import annotations

import contextlib
import inspect
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

import anyio
import anyio.to_thread
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


class AsyncStenoClient:
    """`StenoClient` for asyncio and trio. `on_progress` may be a coroutine function.

    ```python
    async with AsyncStenoClient("https://steno.example.org", key="…") as steno:
        transcript = await steno.transcribe("meeting.m4a", diarize=True)
    ```
    """

    def __init__(
        self,
        url: str | None = None,
        key: str | None = None,
        *,
        patience: float = PATIENCE,
        verify: Verify = True,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """As `StenoClient`."""
        self._connection = Connection.of(url, key)
        self._core = Following(patience)
        self._http = httpx.AsyncClient(**self._connection.options, verify=verify, transport=transport)

    @property
    def url(self) -> str:
        """Address of the service."""
        return self._connection.url

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    # -- jobs ---------------------------------------------------------------------------------------------------------

    async def submit(
        self, source: Recording, *, name: str | None = None, idempotency_key: str | None = None, **fields: Unpack[JobFields]
    ) -> JobAccepted:
        """As `StenoClient.submit`."""
        return await self._taken(self._core.submit(source, name, idempotency_key, fields))

    async def transcribe(
        self,
        source: Recording,
        *,
        name: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109  of the job, which goes on
        on_progress: Callable[[Progress], object] | None = None,
        **fields: Unpack[JobFields],
    ) -> Transcript:
        """As `StenoClient.transcribe`."""
        return await self._taken(self._core.transcribe(source, name, timeout, on_progress, fields))

    async def job(self, job: JobRef, *, wait: float = 0.0) -> Job:
        """As `StenoClient.job`."""
        return await self._taken(self._core.job(job_id_of(job), wait))

    async def wait(
        self,
        job: JobRef,
        *,
        timeout: float | None = None,  # noqa: ASYNC109  of the job, which goes on
        on_progress: Callable[[Progress], object] | None = None,
    ) -> Job:
        """As `StenoClient.wait`."""
        return await self._taken(self._core.wait(job_id_of(job), timeout, on_progress))

    def events(self, job: JobRef) -> AsyncIterator[Event]:
        """As `StenoClient.events`."""
        return self._emitted(self._core.events(job_id_of(job)))

    async def jobs(self, **filters: Unpack[Filters]) -> AsyncIterator[JobSummary]:
        """As `StenoClient.jobs`."""
        cursor: str | None = None
        while True:
            page = await self.page(limit=100, cursor=cursor, **filters)
            for job in page.jobs:
                yield job
            if (cursor := page.next_cursor) is None:
                return

    async def page(self, *, limit: int = 20, cursor: str | None = None, **filters: Unpack[Filters]) -> JobList:
        """As `StenoClient.page`."""
        return await self._taken(self._core.page(filters, limit, cursor))

    async def retry(self, job: JobRef, from_: RetryFrom | None = None, **changes: Unpack[Changes]) -> JobAccepted:
        """As `StenoClient.retry`."""
        return await self._taken(self._core.retry(job_id_of(job), from_, changes))

    async def delete(self, job: JobRef) -> JobRemoved:
        """As `StenoClient.delete`."""
        return await self._taken(self._core.delete(job_id_of(job)))

    # -- results ------------------------------------------------------------------------------------------------------

    async def transcript(self, job: JobRef) -> Transcript:
        """As `StenoClient.transcript`."""
        return await self._taken(self._core.transcript(job_id_of(job)))

    async def text(self, job: JobRef, format: Format, *, revision: int | None = None) -> str:
        """As `StenoClient.text`."""
        return await self._taken(self._core.text(job_id_of(job), format, revision))

    async def save(
        self, job: JobRef, target: str | Path, formats: Sequence[Format] | None = None, *, name: str | None = None
    ) -> list[Path]:
        """As `StenoClient.save`."""
        kinds = None if formats is None else tuple(formats)
        return await self._taken(self._core.save(job_id_of(job), Path(target), kinds, name))

    # -- corrections --------------------------------------------------------------------------------------------------

    async def segments(self, job: JobRef, *, revision: int | None = None) -> AsyncIterator[EditedSegment]:
        """As `StenoClient.segments`."""
        first = 0
        while True:
            page = await self._taken(self._core.segments(job_id_of(job), first, 1000, revision))
            for segment in page.segments:
                yield segment
            first, revision = first + len(page.segments), page.revision
            if first >= page.total or not page.segments:
                return

    async def edit(self, job: JobRef, base: int, *operations: Operation) -> EditResult:
        """As `StenoClient.edit`."""
        return await self._taken(self._core.edit(job_id_of(job), base, operations))

    async def revisions(self, job: JobRef) -> Revisions:
        """As `StenoClient.revisions`."""
        return await self._taken(self._core.revisions(job_id_of(job)))

    async def difference(self, job: JobRef, revision: int, *, since: int = 0) -> EditResult:
        """As `StenoClient.difference`."""
        return await self._taken(self._core.difference(job_id_of(job), revision, since))

    async def audio(self, job: JobRef) -> bytes:
        """As `StenoClient.audio`."""
        return await self._taken(self._core.audio(job_id_of(job)))

    async def peaks(self, job: JobRef) -> Peaks:
        """As `StenoClient.peaks`."""
        return await self._taken(self._core.peaks(job_id_of(job)))

    # -- voices -------------------------------------------------------------------------------------------------------

    async def enrol_voice(self, name: str, source: Recording, *, consent: str, diarization_model: str | None = None) -> Voice:
        """Enrol a person's voice, so that jobs with `voices=True` name this speaker; a further recording of the same name adds to it.

        Args:
            name: Name of the person.
            source: A path, an open binary file or bytes: a recording of this person alone.
            consent: How the person consented to be recognised by voice, and where that is recorded.
            diarization_model: As in the jobs that are to recognise the voice.
        """
        return await self._taken(self._core.enrol_voice(name, source, consent, diarization_model))

    async def voices(self) -> list[Voice]:
        """Return the enrolled voices."""
        return await self._taken(self._core.voices())

    async def forget_voice(self, voice: Voice | str) -> Voice:
        """Delete all that is stored of a voice, given as it was returned or by its id."""
        return await self._taken(self._core.forget_voice(voice if isinstance(voice, str) else voice.voice_id))

    # -- glossaries ---------------------------------------------------------------------------------------------------

    async def set_glossary(self, name: str, text: str) -> GlossaryInfo:
        """Keep a glossary, in place of one of that name: a line each, a hot word or `heard => written`. Jobs choose it with `glossary`."""
        return await self._taken(self._core.set_glossary(name, text))

    async def glossaries(self) -> list[GlossaryInfo]:
        """Return the glossaries."""
        return await self._taken(self._core.glossaries())

    async def remove_glossary(self, name: str) -> None:
        """Remove a glossary; transcripts that were made with it stay."""
        await self._taken(self._core.remove_glossary(name))

    # -- without jobs -------------------------------------------------------------------------------------------------

    async def chunk(
        self, samples: Any, session_id: str | None = None, *, final: bool | None = None, **options: Unpack[ChunkOptions]
    ) -> ChunkResult:
        """As `StenoClient.chunk`."""
        return await self._taken(self._core.chunk(samples, session_id, options, final=final))

    def session(self, session_id: str | None = None, **options: Unpack[ChunkOptions]) -> AsyncChunkSession:
        """As `StenoClient.session`."""
        return AsyncChunkSession(self, session_id or uuid.uuid4().hex, options)

    async def health(self) -> Health:
        """As `StenoClient.health`."""
        return await self._taken(self._core.health())

    # -- taking steps -------------------------------------------------------------------------------------------------

    async def _taken(self, steps: Steps[T]) -> T:
        taking = _Taking(self._http, steps)
        async with contextlib.aclosing(taking.emitted()) as emitted:
            async for _ in emitted:
                pass
        result: T = taking.result
        return result

    async def _emitted(self, steps: Steps[None]) -> AsyncIterator[Any]:
        async with contextlib.aclosing(_Taking(self._http, steps).emitted()) as emitted:
            async for value in emitted:
                yield value


class AsyncChunkSession:
    """One conversation, sent in pieces."""

    def __init__(self, client: AsyncStenoClient, session_id: str, options: ChunkOptions) -> None:
        self._client = client
        self._options = options
        self.session_id = session_id

    async def send(self, samples: Any, *, final: bool = False) -> ChunkResult:
        """As `ChunkSession.send`."""
        return await self._client.chunk(samples, self.session_id, final=final, **self._options)

    async def finish(self) -> ChunkResult:
        """As `ChunkSession.finish`."""
        return await self.send(b"", final=True)


class _Taking:
    """Takes the steps of an operation; `emitted` gives what it emits, and afterwards `result` is what it returned."""

    result: Any

    def __init__(self, http: httpx.AsyncClient, steps: Steps[Any]) -> None:
        self._http = http
        self._steps = steps
        self._streams: dict[int, tuple[contextlib.AsyncExitStack, AsyncIterator[str]]] = {}

    async def emitted(self) -> AsyncGenerator[Any, None]:
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
                    came = await self._take(step)
                except Exception as error:
                    failed = error
        finally:
            with anyio.CancelScope(shield=True):
                for opened, _ in self._streams.values():
                    await opened.aclose()
            self._steps.close()

    async def _take(self, step: Step) -> Any:
        match step:
            case Send(call):
                async with self._sent(call, stream=False) as response:
                    return response
            case Open(call):
                return await self._open(call)
            case NextLine(stream):
                return await anext(self._streams[id(stream)][1], None)
            case Close(stream):
                await self._streams.pop(id(stream))[0].aclose()
            case Sleep(seconds):
                await anyio.sleep(seconds)
            case Work(function):
                return await anyio.to_thread.run_sync(function)
            case Notify(listener, argument):
                told = listener(argument)
                if inspect.isawaitable(told):
                    await told
        return None

    @contextlib.asynccontextmanager
    async def _sent(self, call: Call, *, stream: bool) -> AsyncIterator[httpx.Response]:
        async with contextlib.AsyncExitStack() as opened:
            form: dict[str, Any] = {}
            if call.upload is not None:
                file = opened.enter_context(call.upload.opened())
                form = {"data": call.upload.fields, "files": {"file": (call.upload.name, file)}}
            request = self._http.build_request(**request_options(call), **form)
            if call.upload is not None:
                assert isinstance(request.stream, httpx.SyncByteStream)
                request.stream = _InThreads(request.stream)
            response = await self._http.send(request, stream=stream)
            opened.push_async_callback(response.aclose)
            yield response

    async def _open(self, call: Call) -> httpx.Response:
        opened = contextlib.AsyncExitStack()
        response = await opened.enter_async_context(self._sent(call, stream=True))
        self._streams[id(response)] = (opened, response.aiter_lines())
        return response


class _InThreads(httpx.AsyncByteStream):
    """A form whose file is read beside the event loop: httpx reads it there, however slow the disk."""

    def __init__(self, form: httpx.SyncByteStream) -> None:
        self._form = form

    async def __aiter__(self) -> AsyncIterator[bytes]:
        pieces: Iterator[bytes] = iter(self._form)
        while (piece := await anyio.to_thread.run_sync(next, pieces, None)) is not None:
            yield piece
