"""Stages that take no time, here and behind Modal's client, for `bench.overhead` and `bench.together`; and the app for the latter.

`modal deploy -m bench.overhead_backends` deploys it. Its containers do all that real ones do with a call, except the stage.
"""

# Annotations are evaluated at once here: Modal reads those of classes.

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import modal as modal_client

from infra.artifacts import StageOutcome
from infra.compute import get_store
from infra.jobs import Compute, ProgressSink, StageJob
from infra.local import LocalCompute
from infra.on_modal import contract
from infra.on_modal.image import container_env
from infra.settings import StenoSettings, get_settings

if TYPE_CHECKING:
    from tests.modal_server import ModalServer


class Nothing(LocalCompute):
    """Leaves an artifact of the right kind at once; merging is the engine's own."""

    def compute(self, job: StageJob, report: ProgressSink) -> StageOutcome:
        from tests.stage_double import content

        if job.stage == "merge":
            return super().compute(job, report)
        self.store.scratch.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.store.scratch) as folder:
            path = Path(folder, "output")
            path.write_text(f"{content(job)} {job.key}")  # of each recording its own
            artifact = self.store.put(path, job.output, meta={"language": "en", "segments": 1}, by=job.key)
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
def modal_server() -> Iterator["ModalServer"]:
    """A local server that speaks Modal's protocol, with the app on it; this process is its client."""
    from tests.modal_server import ModalServer

    with ModalServer.start() as server:
        os.environ.update(server.env)
        server.deploy("bench.overhead_backends")
        yield server


app = modal_client.App("stenoflow", include_source=False)
_image = (
    modal_client.Image.debian_slim(python_version=f"{sys.version_info.major}.{sys.version_info.minor}")
    .env(container_env(get_settings()))
    .add_local_python_source("bench", "infra", "speech", "stenoflow", "tests")
)
_volumes: dict[Any, Any] = {
    contract.DATA_PATH: modal_client.Volume.from_name(contract.artifacts_name(get_settings().modal), create_if_missing=True)
}


def _serving(name: str) -> type:
    """A class of the app that serves each stage without a model."""

    async def compute(self: Any, call: dict[str, Any]) -> dict[str, Any]:
        from infra.on_modal import serving

        vars(serving)["LocalCompute"] = Nothing
        return await serving.serve(call)

    async def ready(self: Any) -> None:
        pass

    methods = {"ready": ready} | dict.fromkeys(contract.CLASSES, compute)
    kind = type(
        name, (), {method: modal_client.method()(_named(function, name, method)) for method, function in methods.items()}
    )
    kind.__module__ = __name__
    return app.cls(image=_image, volumes=_volumes, max_containers=4)(kind)


def _named(function: Any, machine: str, method: str) -> Any:
    async def named(self: Any, *given: Any) -> Any:
        return await function(self, *given)

    named.__name__, named.__qualname__, named.__module__ = method, f"{machine}.{method}", __name__
    return named


Speech, Voices, Recordings = (_serving(name) for name in ("Speech", "Voices", contract.RECORDINGS))
