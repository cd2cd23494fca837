"""The app on Modal: `steno modal deploy`, or `modal deploy -m infra.modal_app`.

Its settings are those of whoever deploys it (`STENO_MODAL__…`). Methods are asynchronous, since cancelling one input of a
synchronous one ends the whole container; Modal's own retries are off, since the Prefect task owns retries.
"""

# Annotations are evaluated at once here: Modal reads those of classes and functions.

import time
from pathlib import Path
from typing import Any

import modal

from infra.on_modal import contract
from infra.on_modal import image as images
from infra.on_modal.gpus import gpus_of
from infra.settings import get_settings
from infra.telemetry import hush

hush()

_settings = get_settings()
_modal = _settings.modal

app = modal.App(_modal.app, include_source=False)
image = images.build_image(_settings)
weights = modal.Volume.from_name(contract.weights_name(_modal), create_if_missing=True)
artifacts = modal.Volume.from_name(contract.artifacts_name(_modal), create_if_missing=True)
_secrets = [modal.Secret.from_name(name) for name in (_modal.hf_secret, _modal.s3_secret) if name]
_volumes: dict[str, Any] = {contract.WEIGHTS_PATH: weights, contract.DATA_PATH: artifacts}

_machine: dict[str, Any] = {
    "image": image,
    "volumes": _volumes,
    "secrets": _secrets,
    "cpu": _modal.cpu,
    "memory": _modal.memory,
    "timeout": _modal.timeout,
    "startup_timeout": _modal.startup_timeout,
    "region": list(_modal.region) or None,
}
_one = contract.one_container(_modal)
_scaling: dict[str, Any] = {
    "buffer_containers": _modal.buffer_containers or None,
    "max_containers": _modal.max_containers,
    "scaledown_window": _modal.scaledown_window,
    "enable_memory_snapshot": _modal.snapshot,
}


class Machine:
    """Containers of one kind: their methods are called as the stages that they compute."""

    @modal.enter(snap=_modal.snapshot)
    def prepare(self) -> None:
        if _modal.snapshot:
            from infra.on_modal.weights import import_libraries

            import_libraries()


def computes_its_stages(machine: type[Machine]) -> type[Machine]:
    """Give the class a method for each stage that names it (`speech.stages`), as `@modal.method()` in its body would, and `ready`."""

    def add(name: str, method: Any) -> None:
        method.__name__, method.__qualname__ = name, f"{machine.__name__}.{name}"
        setattr(machine, name, modal.method()(method))

    for stage in (stage for stage, name in contract.CLASSES.items() if machine.__name__ in (name, contract.RECORDINGS)):

        async def compute(self: Any, call: dict[str, Any]) -> dict[str, Any]:
            from infra.on_modal.serving import serve

            return await serve(call)

        add(stage, compute)

    async def ready(self: Any) -> None:
        """A container that answers has loaded its models: called ahead of a stage, so that the stage need not wait for that."""

    add("ready", ready)
    return machine


@app.cls(gpu=list(gpus_of("asr", _modal)) or None, min_containers=0 if _one else _modal.min_containers, **_machine, **_scaling)
@modal.concurrent(max_inputs=_modal.inputs)
@computes_its_stages
class Speech(Machine):
    """Text and the times of its words."""

    @modal.enter()
    def load(self) -> None:
        from infra.on_modal.weights import load_speech

        load_speech()


@app.cls(
    gpu=list(gpus_of("embed", _modal)) or None, min_containers=0 if _one else _modal.min_containers, **_machine, **_scaling
)
@modal.concurrent(max_inputs=_modal.inputs)
@computes_its_stages
class Voices(Machine):
    """Who is active when, and what they sound like."""

    @modal.enter()
    def load(self) -> None:
        from infra.on_modal.weights import load_voices

        load_voices()


@app.cls(gpu=list(gpus_of("asr", _modal)) or None, min_containers=_modal.min_containers if _one else 0, **_machine, **_scaling)
@modal.concurrent(max_inputs=_modal.inputs)
@computes_its_stages
class Recordings(Machine):
    """All of it, for recordings that are too short to start two containers for."""

    @modal.enter()
    def load(self) -> None:
        from infra.on_modal.weights import load_speech, load_voices

        load_voices()
        load_speech()


@app.function(gpu=list(_modal.gpu) or None, **_machine)
def smoke() -> dict[str, Any]:
    """Whether the GPU, cuDNN and CTranslate2 work in a container; `steno modal check` calls it."""
    from infra.on_modal.smoke import smoke

    return smoke()


@app.function(**_machine)
def warm(models: list[str], languages: list[str]) -> list[dict[str, Any]]:
    """Fill the weights volume; `steno modal warm` calls it."""
    from infra.on_modal.weights import warm

    return warm(models, languages)


if _modal.api_secret:

    @app.function(
        image=images.build_api_image(_settings),
        secrets=[modal.Secret.from_name(name) for name in (_modal.api_secret, _modal.s3_secret) if name],
        timeout=_modal.timeout,
        scaledown_window=_modal.scaledown_window,
        region=list(_modal.region) or None,
    )
    @modal.concurrent(max_inputs=images.REQUESTS)
    @modal.asgi_app()
    def api() -> Any:
        """The REST API (`api/`), whose jobs are runs of the Prefect API that the secret names."""
        return images.application()


@app.function(image=image, volumes={contract.DATA_PATH: artifacts}, schedule=modal.Period(days=1), timeout=3600)
def tidy() -> int:
    """Delete files that were written more than `STENO_MODAL__KEEP_DAYS` days ago; how many there were. Missing ones come again."""
    oldest, gone = time.time() - _modal.keep_days * 86400, 0
    for path in Path(contract.DATA_PATH).rglob("*"):
        if path.is_file() and path.stat().st_mtime < oldest:
            path.unlink(missing_ok=True)
            gone += 1
    artifacts.commit()
    return gone
