"""From a recording of one person to what is kept of the voice: the stages of a run, in a folder that goes with the call.

`python -m infra.enrolment` does so for another process: paths and options as JSON on its standard input, voiceprints or an error on its
standard output. So the API decodes nothing itself, and loads no model.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra.compute import host_of, runtime_of
from infra.jobs import engine_required
from infra.settings import StenoSettings, get_settings
from speech.enrolled import Voiceprint, model_of
from speech.models import resolve_diarization
from speech.schema import ClusterParams, Diarization, RuntimeOptions
from speech.stages import run_stage
from speech.stored import read_json
from stenoflow.errors import InputError, StenoError, UnusableVoice

if TYPE_CHECKING:
    from speech.registry import Resolved

LEAST_SECONDS = 1.0
"""Of speech. Embeddings of less scatter as much as voices differ."""
LONGEST_SECONDS = 600.0
"""Of a recording."""
_ONE_PERSON = 0.8
"""Share of the speech that is one speaker's where a recording is of one person: diarization finds a second one now and then."""


def voiceprints(
    paths: Sequence[Path],
    names: Sequence[str],
    settings: StenoSettings,
    diarization_model: str = "auto",
    *,
    alone: bool = False,
) -> list[Voiceprint]:
    """One of each recording; `names` are what messages call these. `alone` is for clips that are known to be of one person.

    Raises MediaError and its kinds, UnusableVoice for too little speech and for that of several, UnknownModel, ModelUnavailable,
    and EngineMissing.
    """
    runtime = runtime_of(settings)
    model = resolve_diarization(
        diarization_model, models_dir=settings.models_path, offline=settings.offline, host=host_of(settings)
    )
    if model.engine.end_to_end:
        raise UnusableVoice(
            f"The diarization model {model.name} gives no speaker embeddings", cure="choose another --diarization-model"
        )
    with engine_required():
        return [_voiceprint(path, name, model, runtime, alone) for path, name in zip(paths, names, strict=True)]


def _voiceprint(path: Path, name: str, model: Resolved, runtime: RuntimeOptions, alone: bool) -> Voiceprint:
    with tempfile.TemporaryDirectory(prefix="voice-") as folder:
        speakers = ClusterParams(num_speakers=1) if alone else ClusterParams()
        found = _diarization(path, name, model, runtime, Path(folder), speakers)
    spoken = {
        speaker: sum(turn.end - turn.start for turn in found.exclusive_turns if turn.speaker == speaker)
        for speaker in found.speaker_embeddings
    }
    total, most = sum(spoken.values()), max(spoken, key=lambda speaker: spoken[speaker], default="")
    if total < LEAST_SECONDS:
        raise UnusableVoice(f"{name} holds {total:.1f} s of speech; give at least {LEAST_SECONDS:g} s, better ten or more.")
    if spoken[most] < _ONE_PERSON * total:
        raise UnusableVoice(f"{name} holds {len(spoken)} voices; give a recording of one person alone.")
    return Voiceprint(
        model=model_of(found.models["diarization"]),
        embedding=found.speaker_embeddings[most],
        seconds=round(spoken[most], 3),
    )


def _diarization(
    path: Path, name: str, model: Resolved, runtime: RuntimeOptions, folder: Path, speakers: ClusterParams
) -> Diarization:
    from speech.audio import normalise

    audio, activity, vectors, turns = (folder / file for file in ("audio.flac", "activity.npz", "vectors.npz", "turns.json"))
    normalise(path, audio, max_duration=LONGEST_SECONDS, name=name)
    weights = {"model": model.name}
    run_stage("segment", {"audio": audio}, weights, runtime, activity, _silent)
    known = {"audio": audio, "segmentation": activity}
    run_stage("embed", known, weights, runtime, vectors, _silent)
    known |= {"embeddings": vectors}
    run_stage("cluster", known, speakers.model_dump(), runtime, turns, _silent)
    return read_json(Diarization, turns)


def _silent(_: float) -> None:
    pass


def main() -> None:
    """One question, one answer."""
    asked = json.load(sys.stdin)
    answer: dict[str, Any]
    try:
        prints = voiceprints(
            [Path(path) for path in asked["paths"]], asked["names"], get_settings(), asked["model"], alone=asked["alone"]
        )
        answer = {"voiceprints": [print_.model_dump(mode="json") for print_ in prints]}
    except StenoError as error:
        refused = isinstance(error, InputError)
        answer = {
            "code": error.code,
            "message": error.message,
            "happened": error.happened if error.cure else None,
            "refused": refused,
        }
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
