"""What a container does with a call: find the inputs, run the stage as any backend does, keep the output, say how it went."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra.artifacts import SUFFIXES, ArtifactRef, Kind, StageOutcome
from infra.jobs import StageJob
from infra.local import LocalCompute
from infra.on_modal.channel import Channel
from infra.on_modal.contract import (
    DATA_PATH,
    WEIGHTS_PATH,
    RemoteAnswer,
    RemoteCall,
    RemoteError,
    answer_json,
    artifacts_name,
    calls_name,
    code_fingerprint,
    events_name,
    weights_name,
)
from infra.on_modal.gpus import modal_name
from infra.prices import region_factor
from infra.settings import StenoSettings, get_settings
from infra.store import Store
from stenoflow.errors import ModalNotDeployed, OutOfMemory, StenoError, TransientError, WorkerLost

if TYPE_CHECKING:
    import modal

GRACE = 2.0
"""Seconds that a cancelled call waits for its stage to reach the next batch; the stage then ends by itself."""


async def serve(payload: dict[str, Any]) -> dict[str, Any]:
    """Run one stage and return a `RemoteAnswer`. Nothing is raised but cancellation: an error's own text and traceback could
    quote anything, and Modal keeps both.
    """
    call = RemoteCall.model_validate(payload)
    try:
        async with _channel() as channel:
            return answer_json(RemoteAnswer(outcome=await _computed(call, channel)))
    except StenoError as error:
        if isinstance(error, OutOfMemory):
            _release_memory()
        return answer_json(RemoteAnswer(error=_remote_error(error)))
    except Exception as error:
        places = traceback.extract_tb(error.__traceback__)
        where = "\n".join(f"  {place.filename}:{place.lineno} in {place.name}" for place in places)
        message = f"The {call.job.stage} stage failed on Modal with an unexpected {type(error).__name__}; please report it with the log of this run."
        return answer_json(RemoteAnswer(error=RemoteError(code="stage_failed", message=message, where=where)))


def _remote_error(error: StenoError) -> RemoteError:
    what = error.happened.removesuffix(".") if error.cure else error.happened
    tried = error.tried if isinstance(error, OutOfMemory) else None
    return RemoteError(code=error.code, message=what, cure=error.cure, tried=tried)


async def _computed(call: RemoteCall, channel: Channel) -> StageOutcome:
    if call.code != code_fingerprint():
        raise ModalNotDeployed("The deployed app has another version than this machine", cure="run `steno modal deploy`")
    execution = await _note_execution(channel.call_id, call.claim)
    if execution > call.executions:
        raise WorkerLost(
            f"The containers of the {call.job.stage} stage died {execution - 1} times in a row",
            cure="raise STENO_MODAL__MEMORY, or use a smaller batch",
        )
    gpu, again = await asyncio.to_thread(gpu_name), f", execution {execution}" if execution > 1 else ""
    channel.log(f"{call.job.stage} began in container {os.environ.get('MODAL_TASK_ID', '?')} on {gpu or 'CPUs'}{again}")
    settings = get_settings()
    await _see_weights(call.job.params, settings)
    store = _url_store(call.store) if call.store else _volume_store()
    outcome = await LocalCompute(store, grace=GRACE).run(_here(call, settings), channel.progress)
    channel.log(f"{call.job.stage} ended after {outcome.seconds:.1f} s, {outcome.load_seconds:.1f} s of them loading models")
    await _forget_executions(channel.call_id)
    rented = {
        "gpu": gpu,
        "cores": settings.modal.cpu,
        "memory": settings.modal.memory / 1024,
        "price_factor": region_factor(settings.modal.region),
    }
    return outcome.model_copy(update={"backend": "modal", "device": gpu or outcome.device, **rented})


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


def _here(call: RemoteCall, settings: StenoSettings) -> StageJob:
    """The job with this container's device, folders and threads in place of the orchestrator's."""
    runtime = call.job.runtime.model_copy(
        update={
            "device": "auto",
            "threads": 0 if settings.modal.inputs == 1 else max(1, int(settings.modal.cpu / settings.modal.inputs)),
            "workers": settings.modal.inputs,
            "models_dir": str(settings.models_path),
            "offline": settings.offline,
        }
    )
    return call.job.model_copy(update={"runtime": runtime})


@functools.cache
def _volume_store() -> VolumeStore:
    import modal

    settings = get_settings()
    return VolumeStore(modal.Volume.from_name(artifacts_name(settings.modal)), settings.scratch_path)


@functools.cache
def _url_store(url: str) -> Store:
    settings = get_settings()
    return Store(url, settings.scratch_path, settings.s3)


@contextlib.asynccontextmanager
async def _channel() -> AsyncIterator[Channel]:
    import modal

    queue = modal.Queue.from_name(events_name(get_settings().modal), create_if_missing=True)
    async with Channel(queue, modal.current_function_call_id() or "") as channel:
        yield channel


def _notes() -> modal.Dict:
    import modal

    return modal.Dict.from_name(calls_name(get_settings().modal), create_if_missing=True)


async def _note_execution(call_id: str, claim: str) -> int:
    """How often this call has been begun, this time included; 1 when unknown.

    The call's id is noted under `claim` too: the orchestrator may have been killed before it could record the call.
    """
    with contextlib.suppress(Exception):
        notes = _notes()
        count = int(await notes.get.aio(call_id, 0)) + 1
        await notes.update.aio({call_id: count, claim: call_id})
        return count
    return 1


async def _forget_executions(call_id: str) -> None:
    with contextlib.suppress(Exception):
        await _notes().pop.aio(call_id, None)


@functools.cache
def gpu_name() -> str:
    """The container's GPU as Modal names it; empty without one."""
    try:
        asked = subprocess.run(
            ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"], capture_output=True, text=True, timeout=30, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    names = asked.stdout.split("\n")[:-1]
    return modal_name(names[0]) + (f":{len(names)}" if len(names) > 1 else "") if names else ""


def _release_memory() -> None:
    """Give back what torch keeps for itself, so that half the batch has room."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


class VolumeStore(Store):
    """The artifact store on the mounted volume, at the paths that artifacts have in every store.

    A volume cannot be reloaded while one of its files is open, whichever call opened it. So files are copied out and in under
    a lock, and stages work on the copies.
    """

    def __init__(self, volume: modal.Volume, scratch: Path) -> None:
        super().__init__(DATA_PATH, scratch)
        self.volume = volume
        self._guard = threading.Lock()

    @contextlib.contextmanager
    def _asked(self) -> Iterator[None]:
        """A volume refuses for a while: another call's file is open, another container commits, Modal is busy."""
        try:
            yield
        except Exception as error:
            raise TransientError(f"Modal's artifacts volume refused a container for now ({type(error).__name__}).") from None

    @contextlib.contextmanager
    def local(self, ref: ArtifactRef) -> Iterator[Path]:
        self.scratch.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(prefix="input-", suffix=SUFFIXES[ref.kind], dir=self.scratch) as file:
            with self._guard:
                if not Path(self.root, ref.path).is_file():
                    with self._asked():
                        self.volume.reload()
                with super().local(ref) as path:
                    shutil.copyfile(path, file.name)
            yield Path(file.name)

    def delete(self, path: str) -> None:
        super().delete(path)
        with self._asked():
            self.volume.commit()

    def put(
        self, source: Path, kind: Kind, *, sha256: str | None = None, meta: dict[str, Any] | None = None, by: str = ""
    ) -> ArtifactRef:
        with self._guard:
            ref = super().put(source, kind, sha256=sha256, meta=meta, by=by)
            with self._asked():
                self.volume.commit()
        return ref
