"""Where stages are computed, by the settings: here or on Modal, divided or not; and the store that their artifacts are in."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import threading
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING

from infra.jobs import Compute
from infra.local import LocalCompute
from infra.settings import ShardSettings, StenoSettings, get_settings
from infra.store import Store
from speech.registry import ENGINES, Resolved
from speech.schema import RuntimeOptions
from speech.stages import StageName
from stenoflow.errors import EngineMissing

if TYPE_CHECKING:
    from speech.host import Host
    from speech.models import Machine

_opening = threading.Lock()


def get_store(settings: StenoSettings | None = None) -> Store:
    """The store that the settings name, kept open: connecting to an object store is slow."""
    with _opening:
        return _store(settings or get_settings())


@lru_cache(maxsize=1)
def _store(settings: StenoSettings) -> Store:
    return Store.from_settings(settings)


def get_compute(settings: StenoSettings | None = None, backend: str | None = None) -> Compute:
    """The backend that is asked for, or that the settings name; call it in the event loop that uses it."""
    settings = settings or get_settings()
    name = backend or settings.compute.backend
    module, _, function = name.partition(":")
    if function:
        custom: Compute = getattr(importlib.import_module(module), function)(settings)
        return custom
    from infra.sharding import ShardedCompute

    store = get_store(settings)
    if name == "modal":
        on_modal, shards = _on_modal(settings, asyncio.get_running_loop()), shards_on_modal(settings)
        return ShardedCompute(on_modal, store, shards, workers=settings.modal.calls)
    return ShardedCompute(LocalCompute(store), store, settings.shards, workers=settings.compute.workers, one_machine=True)


def shards_on_modal(settings: StenoSettings) -> ShardSettings:
    """On a GPU a shard has to save more than the start of its container costs: only hours of audio are worth another."""
    on_gpus = bool(settings.modal.gpu)
    return settings.shards.model_copy(update={"min_seconds": settings.modal.shard_seconds}) if on_gpus else settings.shards


def runtime_of(settings: StenoSettings, batch_size: int | None = None) -> RuntimeOptions:
    """How stages run on this machine."""
    local = settings.compute
    return RuntimeOptions(
        batch_size=batch_size,
        device=local.device,
        compute_type=local.compute_type,
        threads=local.threads,
        models_dir=str(settings.models_path),
        offline=settings.offline,
    )


def arithmetic(stage: StageName, models: Mapping[str, str], settings: StenoSettings, backend: str | None = None) -> str:
    """What the stage's results depend on of where it is computed, for its key (`speech.runtime.arithmetic`).

    `models` is the call's: its engine is the first part of the model's identity. On Modal the settings say where: the containers'
    GPUs, before there is a container.
    """
    from infra.on_modal.contract import CLASSES
    from infra.on_modal.gpus import gpus_of
    from speech import runtime

    if stage not in CLASSES:
        return ""
    engine = next(iter(models.values()), "").partition(":")[0]
    if (backend or settings.compute.backend) == "modal":
        device = "cuda" if gpus_of(stage, settings.modal) else "cpu"
    else:
        try:
            device = runtime.resolve_device(runtime_of(settings))
        except EngineMissing:  # results of a CPU do not stand for those of a GPU that was asked for
            device = "cuda" if settings.compute.device == "cuda" else "cpu"
    return runtime.arithmetic(engine if engine in ENGINES else None, device, settings.compute.compute_type)


def host_of(settings: StenoSettings, backend: str | None = None) -> Host:
    """Where models run, for what `auto` stands for there."""
    from speech.host import Host

    if (backend or settings.compute.backend) == "modal":
        return _modal_host(settings)
    return Host.here(runtime_of(settings))


def _modal_host(settings: StenoSettings) -> Host:
    """The containers of the deployed app, with their own token. One that Modal's own command deployed has the settings' secret."""
    from infra.on_modal import about
    from infra.on_modal.contract import About
    from infra.on_modal.gpus import gpus_of
    from speech.host import Host
    from speech.hub import hub_token

    known = about.read(settings.modal)
    if known is None:
        secret = bool(settings.modal.hf_secret)
        known = About(code="", token=secret, gated=about.gated_models(settings.models_path) if secret else ())
    lacking = (
        "" if known.token else "The app on Modal has no hub token; `steno modal deploy --hub-token` gives it this machine's"
    )
    return Host(
        settings.models_path,
        settings.offline,
        gpu=bool(gpus_of("asr", settings.modal)),
        gated=frozenset(known.gated),
        token=known.token or hub_token() is not None,
        lacking=lacking,
    )


def computes_here(settings: StenoSettings, backend: str | None = None) -> bool:
    """Whether stages are computed in this process."""
    return (backend or settings.compute.backend) == "local"


def import_engine() -> None:
    """Import what the stages will need. What is missing is left for the stage that needs it to report."""
    from speech import ahead

    ahead.import_libraries()


def warm_up(settings: StenoSettings, model: str, language: str | None, *, diarize: bool) -> None:
    """Load the weights that the stages of a recording will need and that are on this machine. Unavailable weights are left for
    the stage that needs it to report."""
    from speech import ahead

    runtime = runtime_of(settings)
    with contextlib.suppress(Exception):
        ahead.load_voices(runtime, embedding=diarize, download=False)
    with contextlib.suppress(Exception):
        ahead.load_speech(settings.model if model == "auto" else model, runtime, language=language, download=False)


def at_hand(*models: Resolved) -> bool:
    """Whether these weights are on this machine."""
    from speech import ahead

    return all(ahead.at_hand(model) for model in models)


def machine(settings: StenoSettings) -> Machine:
    """What `speech.models.recommended` asks of this machine. Imports no torch."""
    from speech import runtime
    from speech.models import Machine

    try:
        cuda = runtime.resolve_device(runtime_of(settings)) == "cuda"
    except EngineMissing:
        cuda = False
    return Machine(runtime.gpu_gigabytes() if cuda else None, runtime.available_cores(), not settings.offline)


def larger_steps(stage: StageName, settings: StenoSettings, backend: str | None = None) -> int:
    """How many larger GPUs there are for the stage, where it is computed."""
    from infra.on_modal import gpus

    on_modal = (backend or settings.compute.backend) == "modal"
    return len(gpus.larger_steps(stage, settings.modal)) if on_modal else 0


@lru_cache(maxsize=4)
def _on_modal(settings: StenoSettings, loop: asyncio.AbstractEventLoop) -> Compute:
    """One for each event loop: it bounds the calls of the whole process, and knows what it has uploaded."""
    from infra.on_modal.compute import ModalCompute

    store = get_store(settings)
    return ModalCompute(LocalCompute(store), store, settings)
