"""The five-minute guide of docs/modal.md, line by line as it stands there: on the Modal test server, with a hub on loopback that has
the repositories in their true layout. Containers have no GPU, which `steno modal check` says, and nothing else.
"""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from speech.models import resolve_asr
from speech.registry import PACKAGED_DIARIZATION, default_aligner, on_hub
from speech.weights import weights_folder
from tests import hub as loopback
from tests import true_shapes
from tests.guides import commands, spoken
from tests.hub import Hub
from tests.modal_server import ModalServer
from tests.prefect_home import prefect_home

pytestmark = [pytest.mark.slow, pytest.mark.matrix, pytest.mark.timeout(600)]

GUIDE = Path(__file__).parents[2] / "docs" / "modal.md"
MEMBER, STRANGER = "hf_member", "hf_stranger"
NO_GPU = "The app requests a GPU, but torch finds none in its container."


def guide() -> list[str]:
    """The commands of its section "In five minutes"."""
    [block] = re.findall(r"^## In five minutes\n\n```sh\n(.*?)```", GUIDE.read_text(), re.MULTILINE | re.DOTALL)
    return [line.partition("#")[0].strip() for line in block.splitlines()]


class Said(NamedTuple):
    code: int
    out: str
    err: str


class Reader:
    """Someone with a terminal, a home and an account at Modal, who types the guide's lines and answers questions with Return."""

    def __init__(self, folder: Path, server: ModalServer, **env: str) -> None:
        self.folder = folder
        own = {"MODAL_CONFIG_PATH": str(folder / "modal.toml"), "HOME": str(folder), "BROWSER": "true"}
        own |= {"STENO_HOME": str(folder / "home"), "STENO_MODELS_DIR": str(folder / "models")}
        own |= {"PREFECT_HOME": str(prefect_home(folder / "prefect")), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
        self.env = commands(folder) | server.env | own | env
        for name in ("MODAL_TOKEN_ID", "MODAL_TOKEN_SECRET", "MODAL_ENVIRONMENT"):
            del self.env[name]
        self.said: dict[str, Said] = {}

    def follow(self) -> None:
        for line in guide():
            ours, theirs = pty.openpty()
            os.write(ours, b"\n")
            done = subprocess.run(
                ["bash", "-c", line], cwd=self.folder, env=self.env, stdin=theirs, capture_output=True, text=True, timeout=240, check=False
            )  # fmt: skip
            os.close(theirs)
            os.close(ours)
            self.said[line.split(" --")[0].partition(" -l")[0]] = Said(done.returncode, done.stdout, done.stderr)
            print(f"$ {line}\n{done.stdout}{done.stderr}")

    @property
    def transcript(self) -> dict[str, Any]:
        [file] = self.folder.rglob("talk.json")
        found: dict[str, Any] = json.loads(file.read_text())
        return found


@pytest.fixture
def hub(tmp_path: Path, models_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """turbo, in whose place there is tiny.en, and community-1, of random weights."""
    true_shapes.community_1(tmp_path / "community")
    stand_in = weights_folder(resolve_asr("tiny.en", "en", models_dir=models_dir, offline=True), models_dir)
    with loopback.publishing(monkeypatch, tmp_path / "hub-home", "large-v3-turbo", "community-1") as hub:
        for name, folder in (("large-v3-turbo", stand_in), ("community-1", tmp_path / "community")):
            files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
            hub.publish(on_hub(name).location, files, on_hub(name).revision)
        hub.members.add(MEMBER)
        yield hub


@pytest.fixture
def server(hub: Hub, tmp_path: Path) -> Iterator[ModalServer]:
    """Its containers reach the loopback hub; what torchaudio would fetch is on the volume."""
    for language in ("en", "fr"):
        true_shapes.torchaudio_aligner(str(default_aligner(language)), tmp_path / "fetched")
    with ModalServer.start("--container-env", f"HF_ENDPOINT={hub.url}") as server:
        server.seed("stenoflow-weights", tmp_path / "fetched", "/models")
        yield server


@pytest.mark.parametrize(
    ("token", "diarization", "warning"),
    [
        pytest.param(MEMBER, "community-1", "", id="holder"),
        pytest.param("", PACKAGED_DIARIZATION, "", id="without a token"),
        pytest.param(
            STRANGER,
            PACKAGED_DIARIZATION,
            "https://huggingface.co/pyannote/speaker-diarization-community-1",
            id="no licence",
        ),
    ],
)
def test_the_guide_ends_in_a_transcript(
    hub: Hub, server: ModalServer, tmp_path: Path, token: str, diarization: str, warning: str
) -> None:
    (tmp_path / "reader").mkdir()
    spoken(tmp_path / "reader" / "talk.mp3")
    reader = Reader(tmp_path / "reader", server, **({"HF_TOKEN": token} if token else {}))
    reader.follow()
    said = reader.said
    assert list(said) == ["modal token new", "steno modal deploy", "steno modal warm", "steno modal check", "steno transcribe"]
    assert {line: each.code for line, each in said.items()} == dict.fromkeys(said, 0) | {"steno modal check": 4}
    assert "Token is connected to the tests workspace." in said["modal token new"].out
    assert ("Store your hub token as the Modal secret" in said["steno modal deploy"].out) == bool(token)
    fetched = [line.partition(":")[0] for line in said["steno modal warm"].out.splitlines()]
    assert fetched == ["asr auto", "diarization", "alignment en", "alignment fr"]
    assert said["steno modal check"].err == f"steno: {NO_GPU}\n"
    found = reader.transcript
    assert {part: model["name"] for part, model in found["models"].items()} == {
        "asr": "large-v3-turbo",
        "align": default_aligner("en"),
        "diarization": diarization,
    }
    assert len(found["word_segments"]) > 10
    assert warning in said["steno transcribe"].err
    assert ("licence" in said["steno transcribe"].err) == bool(warning)
    assert not {each for each in (MEMBER, STRANGER) if any(each in one.out + one.err for one in said.values())}
