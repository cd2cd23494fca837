"""`steno doctor --deep`: real audio through the real models, with nothing kept."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from stenoflow.cli.findings import FETCH_WEIGHTS, INSTALL_CPU, Check

if TYPE_CHECKING:
    from infra.settings import StenoSettings

SECONDS = 3
"""Of audio: above the shortest that the segmentation model takes."""


def check_run(settings: StenoSettings) -> Check:
    """Decode, segment, transcribe, align, embed, cluster and merge a few seconds of a tone, as a run would."""
    from stenoflow.errors import AccessError, EngineMissing, StenoError

    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="steno-doctor-") as folder:
        try:
            stages = _run_all(Path(folder), settings)
        except ImportError as error:
            return Check(
                "missing", "deep", f"the engine could not be loaded ({error.name or type(error).__name__})", INSTALL_CPU
            )
        except EngineMissing as error:
            return Check("missing", "deep", error.message, INSTALL_CPU)
        except AccessError as error:
            return Check("missing", "deep", error.message, FETCH_WEIGHTS)
        except StenoError as error:
            return Check("missing", "deep", error.message, "run `steno transcribe --debug` for the traceback")
        except Exception as error:
            return Check(
                "missing", "deep", f"a stage failed: {type(error).__name__}", "run `steno transcribe --debug` for the traceback"
            )
    return Check("ok", "deep", f"{', '.join(stages)}: every model loads and runs, in {time.perf_counter() - began:.0f} s")


def _run_all(folder: Path, settings: StenoSettings) -> list[str]:
    """The stages that ran, in order."""
    from infra.compute import host_of, runtime_of
    from speech.audio import normalise
    from speech.models import resolve_asr
    from speech.stages import STAGES, StageName, run_stage

    source = folder / "tone.wav"
    _write_tone(source)
    files = {"audio": folder / "audio.flac"}
    normalise(source, files["audio"], max_duration=60.0)
    runtime = runtime_of(settings, batch_size=1)
    model = resolve_asr(
        settings.model, "en", models_dir=settings.models_path, offline=settings.offline, host=host_of(settings)
    ).name
    given: dict[StageName, dict[str, str]] = {"asr": {"model": model, "language": "en"}, "align": {"model": "attention"}}
    done: list[str] = []
    for stage, spec in STAGES.items():
        if stage in ("diarize", "join"):
            continue  # of models that work end to end, which are asked for by name; of several channels or tracks
        inputs = {kind: files[kind] for kind in spec.inputs}
        output = folder / stage
        run_stage(stage, inputs, given.get(stage, {}), runtime, output, lambda _: None)
        files[spec.output] = output
        done.append(stage)
    return done


def _write_tone(path: Path) -> None:
    """A tone that comes and goes, at 16 kHz."""
    import math
    import struct
    import wave

    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        samples = range(SECONDS * 16_000)
        file.writeframes(b"".join(struct.pack("<h", int(8000 * math.sin(n / 20) * math.sin(n / 8000) ** 2)) for n in samples))
