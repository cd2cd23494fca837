"""Weights on their volume: fetched, joined and converted once, by `warm`, and loaded before the first call."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from infra.compute import runtime_of
from infra.on_modal import about
from infra.on_modal.contract import weights_name
from infra.on_modal.gpus import gpus_of
from infra.settings import get_settings
from speech import ahead
from speech.host import Host
from speech.hub import hub_token
from speech.schema import RuntimeOptions
from stenoflow.errors import StenoError


def import_libraries() -> None:
    """What takes seconds to import and holds nothing of the machine, so that a memory snapshot may hold it."""
    ahead.import_libraries(("torch", "ctranslate2", "onnxruntime", "av", "soundfile"))


def load_speech() -> None:
    """The ASR model that the settings name, and what times its words in the languages that `warm` was given. What is unavailable
    is reported by the call that needs it."""
    settings = get_settings()
    runtime, host = runtime_here(), host_here()
    _load(
        lambda: ahead.load_speech(settings.model, runtime, host=host),
        *(partial(ahead.load_aligner, settings.model, each, runtime, host=host) for each in about.expected(settings.modal)),
    )


def load_voices() -> None:
    """Segmentation and speaker embedding."""
    _load(lambda: ahead.load_voices(runtime_here(), host=host_here()))


def _load(*loads: Callable[[], None]) -> None:
    """A container starts all the same: the call that needs what is missing reports it, and Modal would start it again for ever."""
    for load in loads:
        with contextlib.suppress(StenoError):
            load()
    threading.Thread(target=_tell_others, daemon=True).start()  # no call waits for that


def _tell_others() -> None:
    with contextlib.suppress(Exception):  # another container's commit is under way; it fetches the same
        commit()
    note_access()


def warm(models: list[str], languages: list[str]) -> list[dict[str, Any]]:
    """Have the weights of the named ASR models, of diarization and of the languages' aligners on the volume.

    A row per model: name, revision or error, and seconds.
    """
    from speech import align, asr
    from speech.models import resolve_align, resolve_asr, resolve_diarization
    from speech.schema import AsrResult

    settings, runtime = get_settings(), runtime_here()
    folder, offline, host = settings.models_path, settings.offline, host_here()
    rows: list[dict[str, Any]] = []

    def bring(name: str, load: Any) -> None:
        began = time.perf_counter()
        row: dict[str, Any] = {"model": name}
        try:
            row["revision"] = str(load())
        except StenoError as error:
            row |= {"error": error.message, "code": error.code}
        rows.append(row | {"seconds": round(time.perf_counter() - began, 1)})

    def text(name: str) -> str:
        model = resolve_asr(name, None, models_dir=folder, offline=offline, host=host)
        asr.load(model, runtime)
        return model.revision

    def voices() -> str:
        ahead.load_voices(runtime, host=host)
        return resolve_diarization("auto", models_dir=folder, offline=offline, host=host).revision

    def aligner(language: str) -> str:
        said_by = resolve_asr(settings.model, language, models_dir=folder, offline=offline, host=host)
        model = resolve_align("wav2vec2", language, said_by, models_dir=folder, offline=offline)
        align.load(model, AsrResult(language=language, segments=(), model=said_by.info), runtime)
        return model.revision

    for name in models or [settings.model]:
        bring(f"asr {name}", lambda name=name: text(name))
    bring("diarization", voices)
    for language in languages:
        bring(f"alignment {language}", lambda language=language: aligner(language))
    note_access()
    about.expect(settings.modal, languages)
    commit()
    return rows


def note_access() -> None:
    """Tell orchestrators which gated models containers can fetch."""
    settings = get_settings()
    about.write(settings.modal, settings.models_path, token=hub_token() is not None)


def host_here() -> Host:
    """A container, with its own token. `warm` has no GPU, and fetches what the containers that have one will ask for."""
    settings = get_settings()
    return Host(settings.models_path, settings.offline, gpu=bool(gpus_of("asr", settings.modal)))


def runtime_here() -> RuntimeOptions:
    """As `worker.serve` runs stages, so that what is loaded here is what they find."""
    settings = get_settings()
    many = settings.modal.inputs > 1
    threads = max(1, int(settings.modal.cpu / settings.modal.inputs)) if many else 0
    return runtime_of(settings).model_copy(update={"device": "auto", "threads": threads, "workers": settings.modal.inputs})


def commit() -> None:
    """Have other containers find what this one fetched, joined or converted."""
    import modal

    modal.Volume.from_name(weights_name(get_settings().modal)).commit()
