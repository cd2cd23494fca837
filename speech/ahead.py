"""What stages will need, imported and loaded before they need it: while a container starts, or a command waits for Prefect."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Sequence

from speech.host import Host
from speech.registry import Resolved
from speech.schema import RuntimeOptions

ON_CPU = ("soundfile", "av", "onnxruntime", "faster_whisper", "scipy.cluster.hierarchy", "scipy.optimize")
"""A second's work."""


def import_libraries(names: Sequence[str] = ON_CPU) -> None:
    """Import them. What is missing is left for the stage that needs it to report."""
    for module in names:
        with contextlib.suppress(Exception):
            importlib.import_module(module)


def at_hand(model: Resolved) -> bool:
    """Whether its weights are on this machine."""
    from speech.hub import hub_folder

    return model.origin != "hub" or hub_folder(model) is not None


def load_speech(
    model: str, runtime: RuntimeOptions, *, host: Host | None = None, language: str | None = None, download: bool = True
) -> None:
    """The ASR model, unless its weights would have to be fetched and shall not be. Raises as `resolve_asr` and `speech.asr.load` do."""
    from speech.asr import load
    from speech.models import resolve_asr

    host = host or Host.here(runtime)
    resolved = resolve_asr(model, language, models_dir=runtime.models_path, offline=runtime.offline, host=host)
    if download or at_hand(resolved):
        load(resolved, runtime)


def load_aligner(model: str, language: str, runtime: RuntimeOptions, *, host: Host) -> None:
    """What times the words of that ASR model in the language, where `auto` stands for a model of its own. Raises as `resolve_align` and
    `speech.align.load` do."""
    from speech.align import load
    from speech.models import resolve_align, resolve_asr
    from speech.registry import ATTENTION
    from speech.schema import AsrResult

    folder, offline = runtime.models_path, runtime.offline
    text = resolve_asr(model, language, models_dir=folder, offline=offline, host=host)
    aligner = resolve_align("auto", language, text, models_dir=folder, offline=offline, host=host)
    if aligner.kind != ATTENTION:
        load(aligner, AsrResult(language=language, segments=(), model=text.info), runtime)


def load_voices(
    runtime: RuntimeOptions, *, host: Host | None = None, model: str = "auto", embedding: bool = True, download: bool = True
) -> None:
    """Segmentation and, where speakers are wanted, what tells them apart; unless these weights would have to be fetched and
    shall not be.

    Raises as `resolve_diarization` and the networks' loaders do.
    """
    from speech.diarize import load
    from speech.diarize.networks import load_embedder, load_segmenter
    from speech.models import resolve_diarization, resolve_segmentation

    host = host or Host.here(runtime)
    diarization = resolve_diarization(model, models_dir=runtime.models_path, offline=runtime.offline, host=host)
    segmentation = resolve_segmentation(diarization, models_dir=runtime.models_path, offline=runtime.offline, host=host)
    if download or at_hand(segmentation):
        load_segmenter(segmentation, runtime.models_path, runtime)
    if embedding and (download or at_hand(diarization)):
        if diarization.engine.end_to_end:
            load(diarization, runtime)
        else:
            load_embedder(diarization, runtime.models_path, runtime)
