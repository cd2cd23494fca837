"""`python -m bench.damage`: every kind of file of a store and of the models, damaged in every way; does the next run end right?

Each case starts from a finished run of a real conversation, damages what one kind of file holds, has whatever reads it computed
again, and runs the same command in a process of its own. The table says what came of it: `right` is the transcript and the
speakers of the undamaged run.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bench.batch import prefect_server
from bench.demo import sample_recording
from infra.settings import S3Settings
from infra.store import Store
from tests.damage import WAYS

READ_BY = {
    "audio": "segmentation",
    "segmentation": "asr",
    "asr": "alignment",
    "alignment": "transcript",
    "embeddings": "diarization",
    "diarization": "transcript",
    "transcript": "",
}
"""Kind of artifact → the kind whose stage reads it; the transcript is read by every run."""
RECORDS = {"record of the recording": "audio", "record of asr": "asr", "record of the transcript": "transcript"}
MODELS = {
    "segmentation network": "*segmentation*.onnx",
    "embedding network": "*embedding*.onnx",
    "their numbers": "*embedding*.npz",
}
JOINED = "base"
"""The model whose weights come in several packages, and are joined into a file of ours."""
SECONDS = 30.0
"""The whole conversation: in less, one of the two is not told apart."""


class Case:
    """One store with a finished run in it, and the command that made it."""

    def __init__(self, folder: Path, url: str, environment: dict[str, str], s3: S3Settings | None) -> None:
        self.folder, self.environment = folder, environment | {"STENO_STORE": url}
        self.store = Store(url, folder / "scratch", s3)
        self.models = Path(environment["STENO_MODELS_DIR"])
        self.kept: dict[str, bytes] = {}
        self.truth: Any = None

    def transcribe(self, source: Path, model: str = "tiny.en") -> Any:
        """The words and speakers of a run; its error when it failed."""
        out = self.folder / "out"
        shutil.rmtree(out, ignore_errors=True)
        command = [
            sys.executable,
            "-m",
            "stenoflow.cli.main",
            "transcribe",
            "--model",
            model,
            "-o",
            str(out),
            "--json",
            str(source),
        ]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False, timeout=600)
        if done.returncode:
            return json.loads(done.stdout.splitlines()[-1])["code"] if done.stdout else done.stderr[-300:]
        return [
            (word["word"], word.get("speaker"))
            for word in json.loads((out / f"{source.stem}.json").read_text())["word_segments"]
        ]

    # -- files ------------------------------------------------------------------------------------------------------------

    def keep(self) -> None:
        """Remember every file, for `restore`."""
        self.kept = {
            file.path: self._read(file.path) for folder in ("artifacts", "records") for file in self.store.files(folder)
        }

    def restore(self) -> None:
        self.forget_since_kept()
        for path, content in self.kept.items():
            self._write(path, content)

    def forget_since_kept(self) -> None:
        """Delete what was not there then."""
        for folder in ("artifacts", "records"):
            for file in list(self.store.files(folder)):
                if file.path not in self.kept:
                    self.store.delete(file.path)

    def artifacts(self, kind: str) -> list[str]:
        return [path for path in self.kept if path.startswith(f"artifacts/{kind}/")]

    def record_of(self, kind: str) -> list[str]:
        """The records that lead to artifacts of the kind."""
        names = {path.encode() for path in self.artifacts(kind)}
        plain = [path for path in self.kept if path.count("/") == 1]
        return [path for path in plain if any(name in self.kept[path] for name in names)]

    def forget(self, kind: str) -> None:
        """Have the stage computed again that makes the kind."""
        for path in self.record_of(kind):
            self.store.delete(path)

    def damage(self, paths: Sequence[str], way: str) -> None:
        """Each in that way; swapped, it holds what the next of the same kind does."""
        for place, path in enumerate(paths):
            self._write(path, WAYS[way](self.kept[path], self.kept[paths[place - 1]] if len(paths) > 1 else b"another file "))

    def _read(self, path: str) -> bytes:
        return self.store.storage.read(path)

    def _write(self, path: str, content: bytes) -> None:
        self.store.storage.write(path, content)


class Kind(NamedTuple):
    """One kind of file."""

    name: str
    damage: Callable[[str], None]
    """In a given way."""
    model: str = "tiny.en"
    """What reads it."""


def kinds(case: Case) -> Iterator[Kind]:
    """Every kind of file that a run trusts."""
    for kind, reader in READ_BY.items():

        def artifact(way: str, kind: str = kind, reader: str = reader) -> None:
            case.damage(case.artifacts(kind), way)
            if reader:
                case.forget(reader)

        yield Kind(kind, artifact)
    for name, kind in RECORDS.items():
        yield Kind(name, lambda way, kind=kind: case.damage(case.record_of(kind), way))
    for name, pattern in MODELS.items():

        def model(way: str, pattern: str = pattern) -> None:
            _damage_models(case, f"onnx/{pattern}", way)
            for kind in ("segmentation", "embeddings"):
                case.forget(kind)

        yield Kind(name, model)
    yield Kind("joined weights", lambda way: _damage_models(case, f"whisper/{JOINED}-*/model.bin", way), JOINED)


def _damage_models(case: Case, pattern: str, way: str) -> None:
    paths = list(case.models.glob(pattern))
    assert paths, pattern
    for path in paths:
        path.write_bytes(WAYS[way](path.read_bytes(), b"other weights "))


def finished(folder: Path, url: str, environment: dict[str, str], s3: S3Settings | None, *, other: bool = True) -> Case:
    """A store after a run, and of an `other` conversation, so that there is something to swap with."""
    case = Case(folder, url, environment, s3)
    if other:
        case.transcribe(cut(folder / "other.wav", 0.0, SECONDS / 2))
    case.truth = case.transcribe(cut(folder / "talk.wav", 0.0, SECONDS))
    assert isinstance(case.truth, list), case.truth
    assert len({speaker for _, speaker in case.truth}) > 1, "both speakers are identified"
    case.keep()
    return case


def cut(path: Path, start: float, seconds: float) -> Path:
    import soundfile

    samples, rate = soundfile.read(sample_recording(), dtype="int16")
    soundfile.write(path, samples[int(start * rate) : int((start + seconds) * rate)], rate)
    return path


def verdict(case: Case, kind: Kind, way: str) -> str:
    """`right`, or what the run said instead."""
    source = case.folder / "talk.wav"
    case.restore()
    truth = case.truth if kind.model == "tiny.en" else case.transcribe(source, kind.model)
    kind.damage(way)
    if kind.model != "tiny.en":
        case.forget_since_kept()
    found = case.transcribe(source, kind.model)
    return "right" if found == truth else found if isinstance(found, str) else "WRONG"


def environment_of(folder: Path, models: Path) -> dict[str, str]:
    """Folders of its own, and a copy of the converted models to damage."""
    shutil.copytree(models / "onnx", folder / "models" / "onnx", dirs_exist_ok=True)
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("STENO_", "HF_"))}
    ours = {"STENO_HOME": str(folder / "home"), "STENO_MODELS_DIR": str(folder / "models"), "STENO_OFFLINE": "1"}
    return clean | ours | {"PYTHONPATH": os.pathsep.join(sys.path)}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--where", choices=["folder", "s3"], nargs="*", default=["folder", "s3"])
    parser.add_argument("--way", choices=list(WAYS), nargs="*", default=list(WAYS))
    parser.add_argument("--kind", nargs="*", help="some of the kinds only")
    asked = parser.parse_args(arguments)
    from tests.s3_faults import serving

    models = Path(os.environ.get("STENO_MODELS_DIR") or Path(__file__).parents[1] / ".cache" / "models")
    wrong = 0
    with tempfile.TemporaryDirectory() as name, serving() as s3, prefect_server(Path(name) / "prefect") as (api, _):
        for where in asked.where:
            folder = Path(name, where)
            folder.mkdir()
            bucket = s3.bucket() if where == "s3" else ""
            url = f"s3://{bucket}/store" if bucket else str(folder / "store")
            environment = environment_of(folder, models) | api | (s3.environment(bucket) if bucket else {})
            case = finished(folder, url, environment, s3.settings if bucket else None)
            print(f"\n| {where} | {' | '.join(asked.way)} |\n|---|{'---|' * len(asked.way)}", flush=True)
            for kind in kinds(case):
                if asked.kind and kind.name not in asked.kind:
                    continue
                row = [verdict(case, kind, way) for way in asked.way]
                wrong += sum(cell != "right" for cell in row)
                print(f"| {kind.name} | {' | '.join(row)} |", flush=True)
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
