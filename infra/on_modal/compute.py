"""The compute backend that runs the stages with models on Modal; the others run here."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra.artifacts import StageOutcome
from infra.jobs import Compute, ProgressSink, StageJob
from infra.on_modal import about
from infra.on_modal.calls import Calls
from infra.on_modal.contract import CLASSES, RECORDINGS, RemoteAnswer, RemoteCall, code_fingerprint, machine_of
from infra.on_modal.departures import SHORT, Departures, Kind
from infra.on_modal.errors import rebuilt
from infra.on_modal.gpus import larger_gpu
from infra.on_modal.live import LiveCall
from infra.on_modal.transfer import Transfer
from infra.progress import log_line
from infra.settings import StenoSettings
from infra.storage import kind_of
from infra.store import Store
from stenoflow.errors import ArtifactMissing, ModalNotDeployed, TransientError

if TYPE_CHECKING:
    import modal


class ModalCompute:
    """Results, keys and errors are those of the local backend; where a stage ran is in its outcome."""

    def __init__(self, local: Compute, store: Store, settings: StenoSettings) -> None:
        self.local = local
        self.store = store
        self.settings = settings
        self.transfer = Transfer(store, settings.modal)
        self.calls = Calls(store, settings.modal)
        self.free = asyncio.Semaphore(settings.modal.calls)
        self.departures = Departures(self._spawn, settings.modal.recordings)
        self.shared = kind_of(store.url).in_containers
        self.fits = False
        """Whether the deployed app was seen to be of this code."""

    async def run(self, job: StageJob, progress: ProgressSink) -> StageOutcome:
        """Raises what the stage raises, and ModalDenied, ModalNotDeployed, WorkerLost, StageTimeout and TransientError."""
        if job.stage not in CLASSES or job.is_cheap:
            return await self.local.run(job, progress)
        answer = await self.calls.result(job.key, lambda: self._call(job), self._doing(job), progress, fresh=job.fresh)
        outcome = self._outcome(answer)
        if not self.shared:
            outcome = outcome.model_copy(update={"artifact": await self.transfer.download(outcome.artifact, job.key)})
        progress(1.0)
        return outcome

    async def _call(self, job: StageJob) -> LiveCall:
        """Have a container begin with it, in a call that may carry other recordings, too."""
        job = await self._with_weights(job)
        machine = machine_of(job, self.settings.modal)
        gpu = larger_gpu(job.stage, job.larger, self.settings.modal)
        together = machine == RECORDINGS and job.duration <= SHORT
        kind = Kind(machine, job.stage, gpu, str(job.params.get("model", "")) if together else job.key)
        return await self.departures.board(kind, job)

    async def _spawn(self, kind: Kind, jobs: Sequence[StageJob]) -> LiveCall:
        import modal

        settings = self.settings.modal
        await self.free.acquire()
        try:
            await self._require_this_code()
            if not self.shared:
                await self.transfer.upload(ref for job in jobs for ref in job.inputs.values())
            machine = modal.Cls.from_name(settings.app, kind.machine, environment_name=settings.environment)
            if kind.gpu is not None:
                log_line(f"{kind.stage} uses a larger GPU: {kind.gpu}")
                machine = machine.with_options(gpu=kind.gpu)
            call = RemoteCall(
                jobs=tuple(jobs) if kind.machine == RECORDINGS else tuple(job.model_copy(update={"then": ()}) for job in jobs),
                code=code_fingerprint(),
                store=self.store.url if self.shared else "",
                executions=settings.executions,
                owner=await self.calls.owner(),
            )
            spawned: modal.FunctionCall[Any] = await getattr(machine(), kind.stage).spawn.aio(call.model_dump(mode="json"))
        except BaseException:
            self.free.release()
            raise
        live = self.calls.live(spawned)
        live.want(*(job.key for job in jobs))
        live.ended.add_done_callback(lambda _: self.free.release())
        await self._start_next(kind, jobs)
        return live

    async def _start_next(self, kind: Kind, jobs: Sequence[StageJob]) -> None:
        """Start the container of what follows while this is at work, so that a run waits for one start and not for two in series."""
        import modal

        settings = self.settings.modal
        classes = {CLASSES[each.stage] for job in jobs for each in job.then} - {kind.machine}
        for name in classes if kind.machine != RECORDINGS else ():
            with contextlib.suppress(Exception):  # the call itself starts one
                await modal.Cls.from_name(settings.app, name, environment_name=settings.environment)().ready.spawn.aio()

    async def _require_this_code(self) -> None:
        """Raise ModalNotDeployed before a container is paid for whose answer would be refused. Asked until it fits: containers look, too."""
        if self.fits:
            return
        known = await asyncio.to_thread(about.read, self.settings.modal)
        self.fits = known is None or known.code == code_fingerprint()
        if not self.fits:
            raise ModalNotDeployed("The deployed app has another version than this machine", cure="run `steno modal deploy`")

    def _outcome(self, answer: RemoteAnswer) -> StageOutcome:
        if answer.outcome is not None:
            return answer.outcome
        assert answer.error is not None, "an answer holds an outcome or an error"
        if answer.error.where:
            log_line(f"in the container, at\n{answer.error.where}")
        error = rebuilt(answer.error)
        if isinstance(error, ArtifactMissing) and not self.shared:
            self.transfer.forget()
            raise TransientError("An input was no longer on Modal's volume; it is uploaded again.")
        raise error

    async def _with_weights(self, job: StageJob) -> StageJob:
        """Folders of weights go to the volume, and the job, and what follows it, name them by their paths there."""
        then = [each.model_copy(update={"params": await self._on_volume(each.params)}) for each in job.then]
        return job.model_copy(update={"params": await self._on_volume(job.params), "then": tuple(then)})

    async def _on_volume(self, params: dict[str, Any]) -> dict[str, Any]:
        folder = Path(str(params.get("model", "")))
        if not folder.is_absolute() or not await asyncio.to_thread(folder.is_dir):
            return params
        from speech.models import folder_revision

        revision = await asyncio.to_thread(folder_revision, folder)
        return params | {"model": await self.transfer.upload_weights(folder, revision)}

    @staticmethod
    def _doing(job: StageJob) -> str:
        part = f" (shard {job.shard.index + 1} of {job.shard.count})" if job.shard.count > 1 else ""
        return f"the {job.stage} stage{part}"
