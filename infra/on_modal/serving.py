"""What a container does with a call: find the inputs, run each stage as any backend does, go on with what follows, keep the outputs."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from infra.artifacts import StageOutcome
from infra.jobs import StageJob
from infra.local import LocalCompute
from infra.on_modal.channel import Channel
from infra.on_modal.contract import (
    WEIGHTS_PATH,
    RemoteAnswer,
    RemoteAnswers,
    RemoteCall,
    RemoteError,
    calls_name,
    claim,
    code_fingerprint,
    events_name,
    weights_name,
)
from infra.on_modal.worker import gpu_name, url_store, volume_store
from infra.prices import region_factor, shared_seconds
from infra.settings import StenoSettings, get_settings
from stenoflow.errors import ModalNotDeployed, OutOfMemory, StenoError, WorkerLost

GRACE = 2.0
"""Seconds that a cancelled call waits for its stage to reach the next batch; the stage then ends by itself."""


async def serve(payload: dict[str, Any]) -> dict[str, Any]:
    """Run the stages of one call and return `RemoteAnswers`. Nothing is raised but cancellation: an error's own text and
    traceback could quote anything, and Modal keeps both.
    """
    import modal

    call = RemoteCall.model_validate(payload)
    queue = modal.Queue.from_name(events_name(get_settings().modal), create_if_missing=True)
    async with Channel(queue, modal.current_function_call_id() or "") as channel:
        return (await Serving(call, channel).answers()).model_dump(mode="json", exclude_none=True)


class Serving:
    """One call: its recordings one after the other, what follows a stage at the same time."""

    def __init__(self, call: RemoteCall, channel: Channel) -> None:
        self.call = call
        self.channel = channel
        self.settings = get_settings()
        self.given: dict[str, RemoteAnswer] = {}
        self.store = url_store(call.store) if call.store else volume_store()
        self.compute = LocalCompute(self.store, grace=GRACE)
        self.finished: asyncio.Queue[tuple[str, RemoteAnswer]] = asyncio.Queue()
        self.running: dict[str, asyncio.Task[StageOutcome]] = {}
        self.stopped: set[str] = set()
        self.spans: dict[str, tuple[float, float]] = {}
        """By key: from when to when each stage was at work in this container."""
        self.execution = 1

    async def answers(self) -> RemoteAnswers:
        try:
            await self._accept()
        except StenoError as error:
            return RemoteAnswers(rest=RemoteAnswer(error=_remote_error(error)))
        self.channel.stopping(self._stop)
        publishing = asyncio.create_task(self._publish())
        try:
            for job in self.call.jobs:
                await self._with_following(job)
            await self.finished.join()
        finally:
            publishing.cancel()
        await self._forget_executions()
        return RemoteAnswers(answers=self.given)

    async def _accept(self) -> None:
        """Raise why no stage of the call is begun."""
        if self.call.code != code_fingerprint():
            raise ModalNotDeployed("The deployed app has another version than this machine", cure="run `steno modal deploy`")
        self.execution = await self._note_execution()
        if self.execution > self.call.executions:
            stage = self.call.jobs[0].stage
            raise WorkerLost(
                f"The containers of the {stage} stage died {self.execution - 1} times in a row",
                cure="raise STENO_MODAL__MEMORY, or use a smaller batch",
            )

    async def _with_following(self, job: StageJob) -> None:
        if job.key in self.stopped:
            return
        answer = await self._answer(job)
        following = job.following(answer.outcome.artifact) if answer.outcome is not None else ()
        answer = answer.model_copy(update={"next": tuple(each.key for each in following)})
        self.finished.put_nowait((job.key, answer))
        await asyncio.gather(*(self._with_following(each) for each in following))

    async def _publish(self) -> None:
        """Answers leave when the artifacts that they name can be seen by others. One commit is for all that wait for it: it takes
        longer than short stages, which go on meanwhile."""
        while True:
            finished = [await self.finished.get()]
            while not self.finished.empty():
                finished.append(self.finished.get_nowait())
            error: RemoteError | None = None
            try:
                await asyncio.to_thread(self.store.commit)
            except StenoError as refused:
                error = _remote_error(refused)
            await self._claim(*(key for _, answer in finished for key in answer.next))
            for key, answer in finished:
                self.given[key] = RemoteAnswer(error=error) if error is not None and answer.outcome is not None else answer
                self.channel.answer(key, self.given[key])
                self.finished.task_done()

    async def _answer(self, job: StageJob) -> RemoteAnswer:
        task = self.running[job.key] = asyncio.create_task(self._computed(job))
        try:
            return RemoteAnswer(outcome=await task)
        except StenoError as error:
            if isinstance(error, OutOfMemory):
                _release_memory()
            return RemoteAnswer(error=_remote_error(error))
        except asyncio.CancelledError:
            if job.key not in self.stopped:
                raise
            return RemoteAnswer(error=RemoteError(code="cancelled", message=f"The {job.stage} stage was cancelled."))
        except Exception as error:
            places = traceback.extract_tb(error.__traceback__)
            where = "\n".join(f"  {place.filename}:{place.lineno} in {place.name}" for place in places)
            message = f"The {job.stage} stage failed on Modal with an unexpected {type(error).__name__}; please report it with the log of this run."
            return RemoteAnswer(error=RemoteError(code="stage_failed", message=message, where=where))
        finally:
            del self.running[job.key]

    def _stop(self, key: str) -> None:
        """The orchestrator no longer wants that stage."""
        self.stopped.add(key)
        if key in self.running:
            self.running[key].cancel()

    async def _computed(self, job: StageJob) -> StageOutcome:
        gpu, again = await asyncio.to_thread(gpu_name), f", execution {self.execution}" if self.execution > 1 else ""
        container = os.environ.get("MODAL_TASK_ID", "?")
        self.channel.log(job.key, f"{job.stage} began in container {container} on {gpu or 'CPUs'}{again}")
        await _see_weights(job.params, self.settings)
        began = time.perf_counter()
        self.spans[job.key] = began, math.inf
        outcome = await self.compute.run(_here(job, self.settings), lambda fraction: self.channel.progress(job.key, fraction))
        self.spans[job.key] = began, time.perf_counter()
        told = f"{job.stage} ended after {outcome.seconds:.1f} s, {outcome.load_seconds:.1f} s of them loading models"
        self.channel.log(job.key, told)
        rented = {
            "gpu": gpu,
            "cores": self.settings.modal.cpu,
            "memory": self.settings.modal.memory / 1024,
            "price_factor": region_factor(self.settings.modal.region),
        }
        paid = {} if len(self.spans) == 1 else {"worker_seconds": self._share(job.key)}
        return outcome.model_copy(update={"backend": "modal", "device": gpu or outcome.device, **rented, **paid})

    def _share(self, key: str) -> float:
        """The stage's part of the container's time, of which there is one price."""
        now = time.perf_counter()
        spans = {each: (began, min(ended, now)) for each, (began, ended) in self.spans.items()}
        return round(shared_seconds(spans)[key], 3)

    # -- what containers note of calls -----------------------------------------------------------------------------------

    async def _note_execution(self) -> int:
        """How often this call has been begun, this time included; 1 when unknown."""
        with contextlib.suppress(Exception):
            count = int(await _notes().get.aio(self.channel.call_id, 0)) + 1
            await self._claim(*(job.key for job in self.call.jobs), **{self.channel.call_id: count})
            return count
        return 1

    async def _claim(self, *keys: str, **more: int) -> None:
        """Note which call computes these stages: the orchestrator may be killed before it could record that, or asked for them."""
        notes: dict[str, Any] = {claim(key, self.call.owner): self.channel.call_id for key in keys} | more
        with contextlib.suppress(Exception):
            if notes:
                await _notes().update.aio(notes)

    async def _forget_executions(self) -> None:
        with contextlib.suppress(Exception):
            await _notes().pop.aio(self.channel.call_id, None)


def _notes() -> Any:
    import modal

    return modal.Dict.from_name(calls_name(get_settings().modal), create_if_missing=True)


def _remote_error(error: StenoError) -> RemoteError:
    what = error.happened.removesuffix(".") if error.cure else error.happened
    tried = error.tried if isinstance(error, OutOfMemory) else None
    return RemoteError(code=error.code, message=what, cure=error.cure, tried=tried)


async def _see_weights(params: dict[str, Any], settings: StenoSettings) -> None:
    """Have this container see the weights that the call names: they may have been uploaded or fetched after it started."""
    name = str(params.get("model", ""))
    uploaded = name.startswith(f"{WEIGHTS_PATH}/")
    if await asyncio.to_thread(Path(name).exists if uploaded else lambda: _is_at_hand(name, settings)):
        return
    import modal

    try:
        await asyncio.to_thread(modal.Volume.from_name(weights_name(settings.modal)).reload)
    except Exception as error:
        # Volumes cannot be reloaded while a file of theirs is open: another call of this container is loading its model.
        if uploaded:
            raise WorkerLost("A container could not see weights that were uploaded after it started.") from error


def _is_at_hand(name: str, settings: StenoSettings) -> bool:
    """Whether nothing has to be fetched for a model of the registry."""
    from speech.host import Host

    return Host(settings.models_path, settings.offline).has(name)


def _here(job: StageJob, settings: StenoSettings) -> StageJob:
    """The job with this container's device, folders and threads in place of the orchestrator's."""
    runtime = job.runtime.model_copy(
        update={
            "device": "auto",
            "threads": 0 if settings.modal.inputs == 1 else max(1, int(settings.modal.cpu / settings.modal.inputs)),
            "workers": settings.modal.inputs,
            "models_dir": str(settings.models_path),
            "offline": settings.offline,
        }
    )
    return job.model_copy(update={"runtime": runtime})


def _release_memory() -> None:
    """Give back what torch keeps for itself, so that half the batch has room."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
