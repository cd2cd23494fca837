"""Backends for `bench.overhead`: stages that take no time, here and behind Modal's client; and the app for the latter.

`modal deploy -m bench.overhead_backends` deploys it. Its containers do all that real ones do with a call, except the stage.
"""

# Annotations are evaluated at once here: Modal reads those of classes.

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import modal as modal_client

from infra.artifacts import StageOutcome
from infra.compute import get_store
from infra.jobs import Compute, ProgressSink, StageJob
from infra.local import LocalCompute
from infra.on_modal import contract
from infra.on_modal.image import container_env
from infra.settings import StenoSettings, get_settings


class Nothing(LocalCompute):
    """Leaves an artifact of the right kind at once; merging is the engine's own."""

    def _run(self, job: StageJob, report: ProgressSink) -> StageOutcome:
        import tempfile
        from pathlib import Path

        from tests.stage_double import _content

        if job.stage == "merge":
            return super()._run(job, report)
        self.store.scratch.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.store.scratch) as folder:
            path = Path(folder, "output")
            path.write_text(_content(job))
            artifact = self.store.put(path, job.output, meta={"language": "en", "segments": 1})
        report(1.0)
        return StageOutcome(artifact=artifact, seconds=0.0, key=job.key)


def local(settings: StenoSettings) -> Compute:
    return Nothing(get_store(settings))


_modal: dict[int, Compute] = {}


def modal(settings: StenoSettings) -> Compute:
    from infra.on_modal.compute import ModalCompute

    store = get_store(settings)
    return _modal.setdefault(id(settings), ModalCompute(Nothing(store), store, settings))


@contextlib.contextmanager
def modal_server() -> Iterator[None]:
    """A local server that speaks Modal's protocol, with the app on it; this process is its client."""
    from tests.modal_server import ModalServer

    with ModalServer.start() as server:
        os.environ.update(server.env)
        server.deploy("bench.overhead_backends")
        yield


app = modal_client.App("stenoflow", include_source=False)
_image = (
    modal_client.Image.debian_slim(python_version="3.11")
    .env(container_env(get_settings()))
    .add_local_python_source("bench", "infra", "speech", "tests")
)
_volumes: dict[Any, Any] = {
    contract.DATA_PATH: modal_client.Volume.from_name(contract.artifacts_name(get_settings().modal), create_if_missing=True)
}


async def _served(call: dict[str, Any]) -> dict[str, Any]:
    from infra.on_modal import worker

    worker.LocalCompute = Nothing  # type: ignore[misc]
    return await worker.serve(call)


@app.cls(image=_image, volumes=_volumes, max_containers=1)
@modal_client.concurrent(max_inputs=8)
class Speech:
    @modal_client.method()
    async def asr(self, call: dict[str, Any]) -> dict[str, Any]:
        return await _served(call)

    @modal_client.method()
    async def align(self, call: dict[str, Any]) -> dict[str, Any]:
        return await _served(call)


@app.cls(image=_image, volumes=_volumes, max_containers=1)
@modal_client.concurrent(max_inputs=8)
class Voices:
    @modal_client.method()
    async def segment(self, call: dict[str, Any]) -> dict[str, Any]:
        return await _served(call)

    @modal_client.method()
    async def embed(self, call: dict[str, Any]) -> dict[str, Any]:
        return await _served(call)
