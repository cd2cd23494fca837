"""Peers on the same weights, each in a process of its own: `run("whisperx", …)`, or `python -m bench.peers whisperx …`.

    whisperx         WhisperX as is: load_model, transcribe with its pyannote VAD, diarization by pyannote's own pipeline,
                     assign_word_speakers. Its word alignment needs wav2vec2 weights, which no package carries: offline there
                     are no word times, and a speaker per segment only.
    faster-whisper   BatchedInferencePipeline with word times; it does not diarize.

No option is tuned on the recordings: defaults, int8 on the CPU, and for diarization the parameters that pyannote
publishes for this kind of pipeline (centroid linkage, min_cluster_size 12) with the threshold for CAM++'s cosine distances.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from speech.scoring import Activity, Spoken

PEERS = ("whisperx", "faster-whisper")
CLUSTERING = {"method": "centroid", "threshold": 0.7, "min_cluster_size": 12}


class SystemFailed(Exception):
    """A system ended without a result; the message holds the end of what it printed."""


@dataclass(frozen=True)
class Outcome:
    """What one system made of one recording.

    `words` is None when the system gives text by segment only. `seconds` is the wall time of the work with models loaded, `load_seconds` of imports and
    loading; `cpu_seconds` and `peak_bytes` (resident) are of the whole process tree.
    """

    system: str
    language: str
    text: str
    segments: list[Spoken]
    words: list[Spoken] | None
    turns: list[Activity] | None
    seconds: float
    load_seconds: float
    cpu_seconds: float = 0.0
    peak_bytes: int = 0
    facts: dict[str, Any] = field(default_factory=dict)


def run(system: str, audio: Path, model: str, *, language: str | None = None, timeout: float = 3600) -> Outcome:
    """Have a peer transcribe `audio` with the Whisper weights `model`. Raises SystemFailed."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, "outcome.json")
        command = [sys.executable, "-m", "bench.peers", system, str(audio), "--model", model, "--output", str(output)]
        command += ["--language", language] if language else []
        run_quietly(command, quiet_environment(), timeout)
        return load_outcome(json.loads(output.read_text()))


def run_quietly(command: list[str], environment: dict[str, str], timeout: float) -> str:
    """The command's standard output. Raises SystemFailed with the end of its standard error."""
    root = Path(__file__).resolve().parents[1]
    try:
        done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired:
        raise SystemFailed(f"no result within {timeout:.0f} s") from None
    if done.returncode:
        raise SystemFailed(f"exit code {done.returncode}: {done.stderr.strip()[-600:]}")
    return done.stdout


def quiet_environment() -> dict[str, str]:
    """This environment, with telemetry off, and no question to any model hub."""
    return os.environ | {
        "PYANNOTE_METRICS_ENABLED": "0",
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "DO_NOT_TRACK": "1",
        "PYTHONWARNINGS": "ignore",
    }


def load_outcome(data: dict[str, Any]) -> Outcome:
    """An Outcome from its JSON."""
    words = data["words"]
    return Outcome(
        **data
        | {
            "segments": [Spoken(**segment) for segment in data["segments"]],
            "words": None if words is None else [Spoken(**word) for word in words],
            "turns": None if data["turns"] is None else [tuple(turn) for turn in data["turns"]],
        }
    )


# -- inside the child process ---------------------------------------------------------------------------------------------


def _samples(audio: Path) -> Any:
    """float32 mono at 16 kHz, as `whisperx.load_audio` gives it; that one needs an ffmpeg binary."""
    import soundfile

    samples, rate = soundfile.read(audio, dtype="float32")
    if rate != 16_000 or samples.ndim != 1:
        raise SystemExit("Peers read 16 kHz mono recordings only; convert the file first.")
    return samples


def _threads() -> int:
    return int(os.environ.get("OMP_NUM_THREADS") or 0) or len(os.sched_getaffinity(0))


def _whisperx(audio: Path, model: str, language: str | None) -> Outcome:
    began = time.perf_counter()
    import torch
    import whisperx
    from whisperx.diarize import assign_word_speakers

    from bench.diarizer import pyannote_pipeline
    from bench.weights import whisper_folder

    torch.set_num_threads(_threads())
    # What WhisperX does itself when it is given the name rather than the folder.
    language = "en" if model.endswith(".en") else language
    recogniser = whisperx.load_model(
        str(whisper_folder(model)), "cpu", compute_type="int8", language=language, threads=_threads(), local_files_only=True
    )
    pipeline = pyannote_pipeline(CLUSTERING)
    loaded = time.perf_counter()
    samples = _samples(audio)
    result = recogniser.transcribe(samples, batch_size=8)
    recognised = time.perf_counter()
    turns = _diarized(pipeline, samples)
    _assign(assign_word_speakers, turns, result)
    segments = [_spoken(segment, "text") for segment in result["segments"]]
    return Outcome(
        system="whisperx",
        language=result["language"],
        text=" ".join(segment.word for segment in segments),
        segments=segments,
        words=None,
        turns=turns,
        seconds=time.perf_counter() - loaded,
        load_seconds=loaded - began,
        facts={"asr_seconds": recognised - loaded, "diarize_seconds": time.perf_counter() - recognised},
    )


def _diarized(pipeline: Any, samples: Any) -> list[Activity]:
    import torch

    output = pipeline({"waveform": torch.from_numpy(samples)[None], "sample_rate": 16_000})
    tracks = output.speaker_diarization.itertracks(yield_label=True)
    return [(str(speaker), float(segment.start), float(segment.end)) for segment, _, speaker in tracks]


def _assign(assign_word_speakers: Any, turns: list[Activity], result: Any) -> None:
    import pandas  # type: ignore[import-untyped, unused-ignore]

    rows = [{"speaker": speaker, "start": start, "end": end} for speaker, start, end in turns]
    assign_word_speakers(pandas.DataFrame(rows, columns=["speaker", "start", "end"]), result)


def _spoken(item: dict[str, Any], key: str) -> Spoken:
    return Spoken(str(item[key]).strip(), item.get("start"), item.get("end"), item.get("speaker"))


def _faster_whisper(audio: Path, model: str, language: str | None) -> Outcome:
    began = time.perf_counter()
    from faster_whisper import BatchedInferencePipeline, WhisperModel

    from bench.weights import whisper_folder

    recogniser = BatchedInferencePipeline(
        WhisperModel(str(whisper_folder(model)), device="cpu", compute_type="int8", cpu_threads=_threads())
    )
    loaded = time.perf_counter()
    stream, info = recogniser.transcribe(_samples(audio), batch_size=8, word_timestamps=True, language=language)
    found = list(stream)
    words = [Spoken(word.word.strip(), float(word.start), float(word.end)) for segment in found for word in segment.words or ()]
    return Outcome(
        system="faster-whisper",
        language=info.language,
        text=" ".join(segment.text.strip() for segment in found),
        segments=[Spoken(segment.text.strip(), float(segment.start), float(segment.end)) for segment in found],
        words=words,
        turns=None,
        seconds=time.perf_counter() - loaded,
        load_seconds=loaded - began,
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.peers")
    parser.add_argument("system", choices=PEERS)
    parser.add_argument("audio", type=Path)
    parser.add_argument("--model", default="base", help="base or tiny.en")
    parser.add_argument("--language")
    parser.add_argument("--output", type=Path, required=True)
    asked = parser.parse_args()
    outcome = {"whisperx": _whisperx, "faster-whisper": _faster_whisper}[asked.system](asked.audio, asked.model, asked.language)
    data = asdict(outcome)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    data |= {"cpu_seconds": usage.ru_utime + usage.ru_stime, "peak_bytes": usage.ru_maxrss * 1024}
    asked.output.write_text(json.dumps(data))


if __name__ == "__main__":
    main()
