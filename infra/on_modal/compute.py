"""The compute backend that runs the stages with models on Modal; the others run here."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra.artifacts import StageOutcome
from infra.jobs import Compute, ProgressSink, StageJob
from infra.on_modal import about
from infra.on_modal.calls import Calls
from infra.on_modal.contract import CLASSES, RemoteAnswer, RemoteCall, code_fingerprint
from infra.on_modal.errors import rebuilt
from infra.on_modal.gpus import larger_gpu
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
        self.shared = kind_of(store.url).in_containers
        self.fits = False
        """Whether the deployed app was seen to be of this code."""

    async def run(self, job: StageJob, progress: ProgressSink) -> StageOutcome:
        """Raises what the stage raises, and ModalDenied, ModalNotDeployed, WorkerLost, StageTimeout and TransientError."""
        if job.stage not in CLASSES or job.is_cheap:
            return await self.local.run(job, progress)
        async with self.free:
            if not self.shared:
                await self.transfer.upload(job.inputs.values())
            job = await self._with_weights(job)
            answer = await self.calls.result(job.key, lambda: self._spawn(job), self._doing(job), progress, fresh=job.fresh)
        outcome = self._outcome(answer)
        if not self.shared:
            outcome = outcome.model_copy(update={"artifact": await self.transfer.download(outcome.artifact, job.key)})
        progress(1.0)
        return outcome

    async def _spawn(self, job: StageJob) -> modal.FunctionCall[Any]:
        import modal

        settings = self.settings.modal
        await self._require_this_code()
        kind = modal.Cls.from_name(settings.app, CLASSES[job.stage], environment_name=settings.environment)
        gpu = larger_gpu(job.stage, job.larger, settings)
        if gpu is not None:
            log_line(f"{job.stage} uses a larger GPU: {gpu}")
            kind = kind.with_options(gpu=gpu)
        call = RemoteCall(
            job=job,
            code=code_fingerprint(),
            store=self.store.url if self.shared else "",
            executions=settings.executions,
            claim=await self.calls.claim(job.key),
        )
        spawned: modal.FunctionCall[Any] = await getattr(kind(), job.stage).spawn.aio(call.model_dump(mode="json"))
        return spawned

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
        """A folder of weights goes to the volume, and the job names it by its path there."""
        model = str(job.params.get("model", ""))
        folder = Path(model)
        if not folder.is_absolute() or not await asyncio.to_thread(folder.is_dir):
            return job
        from speech.models import folder_revision

        revision = await asyncio.to_thread(folder_revision, folder)
        there = await self.transfer.upload_weights(folder, revision)
        return job.model_copy(update={"params": {**job.params, "model": there}})

    @staticmethod
    def _doing(job: StageJob) -> str:
        part = f" (shard {job.shard.index + 1} of {job.shard.count})" if job.shard.count > 1 else ""
        return f"the {job.stage} stage{part}"
