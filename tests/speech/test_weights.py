"""Weights on disk and from the hub: verified, joined once, pinned once, and every trouble told in one clear sentence."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from speech.diarize.networks import diarization_weights
from speech.files import replaced
from speech.models import catalogue, resolve_asr, resolve_diarization
from speech.weights import verify, weights_folder
from stenoflow.errors import ChecksumMismatch
from tests.damage import WAYS
from tests.hub import Hub, serve

TOKEN = "hf_a_secret_that_is_never_shown"
WHISPER = {
    "model.bin": b"weights" * 5000,
    "config.json": b"{}",
    "tokenizer.json": b"{}",
    "vocabulary.txt": b"a",
    "README.md": b"x",
}

# huggingface_hub reads its settings when it is imported: each case is a process of its own.
_ASK = """
import json, sys
from pathlib import Path
from stenoflow.errors import StenoError
from speech.weights import hub_weights
from speech.models import resolve_align, resolve_asr, resolve_diarization
name, folder, offline, download = sys.argv[1], Path(sys.argv[2]), sys.argv[3] == "offline", sys.argv[4] == "download"
try:
    if name == "community-1":
        model = resolve_diarization(name, models_dir=folder, offline=offline)
    elif name.startswith("align:"):
        whisper = resolve_asr("base", None, models_dir=folder, offline=True)
        model = resolve_align(name[6:], "en", whisper, models_dir=folder, offline=offline)
    else:
        model = resolve_asr(name, None, models_dir=folder, offline=offline)
    path = hub_weights(model, folder) if download else None
    files = sorted(file.name for file in path.iterdir()) if path else []
    print(json.dumps({"name": model.name, "revision": model.revision, "files": files}))
except StenoError as error:
    print(json.dumps({"error": type(error).__name__, "message": error.message, "retry": error.retry.value}))
"""


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serve() as running:
        running.publish("someone/whisper", WHISPER)
        yield running


Ask = Callable[..., dict[str, Any]]


@pytest.fixture
def ask(hub: Hub, tmp_path: Path) -> Ask:
    def run(name: str, *, offline: bool = False, download: bool = True, **environment: str) -> dict[str, Any]:
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGING"))}
        settings = {
            "HF_ENDPOINT": hub.url,
            "HF_HOME": str(tmp_path / "hub-home"),
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DOWNLOAD_TIMEOUT": "3",
            "HF_HUB_ETAG_TIMEOUT": "3",
            **environment,
        }
        words = [name, str(tmp_path / "models"), "offline" if offline else "online", "download" if download else "resolve"]
        done = subprocess.run(
            [sys.executable, "-c", _ASK, *words],
            env=inherited | settings,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert TOKEN not in done.stdout + done.stderr
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    return run


# -- the hub ----------------------------------------------------------------------------------------------------------


def test_a_hub_model_is_pinned_when_it_is_first_asked_for(hub: Hub, ask: Ask, tmp_path: Path) -> None:
    first = ask("someone/whisper")
    assert first["revision"] == "a" * 40
    assert first["files"] == ["config.json", "model.bin", "tokenizer.json", "vocabulary.txt"]
    hub.publish("someone/whisper", WHISPER, commit="b" * 40)
    assert ask("someone/whisper")["revision"] == "a" * 40
    assert json.loads((tmp_path / "models" / "pins.json").read_text()) == {"someone/whisper": "a" * 40}


WAV2VEC2 = {"config.json": b"{}", "vocab.json": b'{"a": 1}', "README.md": b"x"}


@pytest.mark.parametrize(
    ("weights", "fetched"),
    [
        (["model.safetensors", "pytorch_model.bin"], "model.safetensors"),
        (["pytorch_model.bin", "flax_model.msgpack"], "pytorch_model.bin"),
    ],
)
def test_of_weights_in_two_formats_one_is_fetched(hub: Hub, ask: Ask, weights: list[str], fetched: str) -> None:
    """Nor what lies beside them: language models of gigabytes, states of the training."""
    others = dict.fromkeys(["language_model/5gram.bin", "language_model/unigrams.txt", "training_args.bin"], b"x")
    hub.publish("someone/wav2vec2", WAV2VEC2 | dict.fromkeys(weights, b"w") | others)
    assert ask("align:someone/wav2vec2")["files"] == ["config.json", fetched, "vocab.json"]
    files = [asked.path.partition("/resolve/")[2] for asked in hub.asked if asked.method == "GET" and "/resolve/" in asked.path]
    sent = {file.partition("/")[2] for file in files}
    assert sent == {"config.json", "vocab.json", fetched}
    count = len(hub.asked)
    assert ask("align:someone/wav2vec2")["files"] == ["config.json", fetched, "vocab.json"]
    assert len(hub.asked) == count


def test_what_was_fetched_is_not_asked_for_again(hub: Hub, ask: Ask) -> None:
    fetched = ask("someone/whisper")
    hub.asked.clear()
    assert (
        ask("someone/whisper") == ask("someone/whisper", offline=True) == ask("someone/whisper", HF_HUB_OFFLINE="1") == fetched
    )
    assert hub.asked == []


def test_a_second_model_keeps_the_first_ones_pin(hub: Hub, ask: Ask, tmp_path: Path) -> None:
    hub.publish("someone/other", WHISPER, commit="c" * 40)
    ask("someone/whisper", download=False)
    ask("someone/other", download=False)
    assert json.loads((tmp_path / "models" / "pins.json").read_text()) == {
        "someone/other": "c" * 40,
        "someone/whisper": "a" * 40,
    }


@pytest.mark.parametrize("switch", ["STENO_OFFLINE", "HF_HUB_OFFLINE"])
def test_offline_the_hub_is_not_asked(hub: Hub, ask: Ask, switch: str) -> None:
    found = ask("someone/whisper", offline=True) if switch == "STENO_OFFLINE" else ask("someone/whisper", HF_HUB_OFFLINE="1")
    assert found["error"] == "ModelUnavailable"
    assert hub.asked == []


@pytest.mark.parametrize(("token", "says"), [(None, "HF_TOKEN is not set"), (TOKEN, "your HF_TOKEN has no access")])
def test_a_gated_model_names_its_page_and_the_variable(hub: Hub, ask: Ask, token: str | None, says: str) -> None:
    hub.publish("someone/gated", WHISPER)
    hub.gated.add("someone/gated")
    found = ask("someone/gated", **({"HF_TOKEN": token} if token else {}))
    assert (found["error"], found["retry"]) == ("GatedModel", "never")
    assert says in found["message"]
    assert "accept its licence at https://huggingface.co/someone/gated" in found["message"]


def test_a_token_with_access_opens_a_gated_model(hub: Hub, ask: Ask) -> None:
    hub.publish("someone/gated", WHISPER)
    hub.gated.add("someone/gated")
    hub.members.add(TOKEN)
    assert "model.bin" in ask("someone/gated", HF_TOKEN=TOKEN)["files"]


@pytest.mark.parametrize("name", ["someone/missing", "someone/private-or-misspelt"])
def test_an_unknown_repository_is_an_unknown_model(ask: Ask, name: str) -> None:
    found = ask(name)
    assert found["error"] == "UnknownModel"
    assert name in found["message"]


def test_a_pinned_commit_that_is_gone_is_said_to_be(hub: Hub, ask: Ask) -> None:
    hub.publish("Systran/faster-whisper-small", WHISPER, commit="d" * 40)
    found = ask("small")
    assert found["error"] == "ModelUnavailable"
    assert "pinned revision" in found["message"]


@pytest.mark.parametrize("files", [{"README.md": b"x"}, {"config.json": b"{}", "model.safetensors": b"x"}])
def test_a_repository_of_another_kind_is_refused(hub: Hub, ask: Ask, files: dict[str, bytes]) -> None:
    hub.publish("someone/else", files)
    found = ask("someone/else")
    assert found["error"] == "UnknownModel"
    assert "CTranslate2" in found["message"]


@pytest.mark.parametrize("download", [True, False])
@pytest.mark.parametrize("status", [500, 503])
def test_trouble_at_the_hub_may_be_tried_again(hub: Hub, ask: Ask, status: int, download: bool) -> None:
    if download:
        ask("someone/whisper", download=False)
    hub.status = status
    found = ask("someone/whisper", download=download)
    assert (found["error"], found["retry"]) == ("TransientError", "later")
    assert str(status) in found["message"]


def test_no_way_to_the_hub_says_what_else_to_do(ask: Ask) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        found = ask("someone/whisper", HF_ENDPOINT=f"http://127.0.0.1:{closed.getsockname()[1]}")
    assert found["error"] == "ModelUnavailable"
    assert "is unreachable" in found["message"]


@pytest.mark.slow
def test_half_a_download_is_never_a_model(hub: Hub, ask: Ask) -> None:
    ask("someone/whisper", download=False)
    hub.breaks_off = True
    found = ask("someone/whisper")
    assert found["error"] in ("TransientError", "ModelUnavailable")
    assert ask("someone/whisper", offline=True)["error"] == "ModelUnavailable"
    hub.breaks_off = False
    assert "model.bin" in ask("someone/whisper")["files"]


def test_auto_asks_nobody(hub: Hub, ask: Ask) -> None:
    assert ask("auto", download=False)["name"] == "base"
    assert ask("align:auto", download=False)["name"] == "attention:base"
    assert hub.asked == []


# -- packages ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_packaged_weights_are_there_and_whole(models_dir: Path) -> None:
    for name in ("base", "tiny.en"):
        folder = weights_folder(resolve_asr(name, None, models_dir=models_dir, offline=True), models_dir)
        assert {"model.bin", "config.json", "tokenizer.json", "vocabulary.txt"} <= {path.name for path in folder.iterdir()}
    weights = diarization_weights(resolve_diarization("auto", models_dir=models_dir, offline=True), models_dir)
    assert weights.embedding_network == "campplus"
    assert weights.plda is None


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_a_damaged_file_of_the_hubs_cache_is_fetched_again(ask: Ask, hub: Hub, tmp_path: Path, way: str) -> None:
    ask("someone/whisper")
    for name in ("model.bin", "vocabulary.txt"):
        (file,) = (tmp_path / "hub-home").rglob(f"snapshots/*/{name}")
        blob = file.resolve()
        blob.write_bytes(WAYS[way](WHISPER[name] * 2, b"another")[: len(WHISPER[name])] + (b"" if way == "truncated" else b"!"))
        assert ask("someone/whisper")["files"] == sorted(name for name in WHISPER if name != "README.md")
        assert file.read_bytes() == WHISPER[name]


def test_other_bytes_than_the_pinned_are_refused(tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(b"anything else")
    with pytest.raises(ChecksumMismatch, match=r"model\.bin are not the pinned ones"):
        verify(tmp_path / "model.bin", "0" * 64, tmp_path / "models")


def test_a_file_that_changes_is_hashed_again(tmp_path: Path) -> None:
    file = tmp_path / "model.bin"
    file.write_bytes(b"abc")
    verify(file, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", tmp_path / "models")
    file.write_bytes(b"abcd")
    with pytest.raises(ChecksumMismatch):
        verify(file, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", tmp_path / "models")


_JOIN = """
import sys
from pathlib import Path
from speech.models import resolve_asr
from speech.weights import weights_folder
folder = Path(sys.argv[1])
print((weights_folder(resolve_asr("base", None, models_dir=folder, offline=True), folder) / "model.bin").stat().st_size)
"""


@pytest.mark.slow
def test_the_base_model_is_joined_once_by_two_processes_and_again_when_damaged(tmp_path: Path) -> None:
    both = [
        subprocess.Popen(
            [sys.executable, "-c", _JOIN, str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    outputs = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    assert outputs[0][0] == outputs[1][0]
    joined = next(tmp_path.rglob("model.bin"))
    assert sorted(path.name for path in joined.parent.iterdir()) == [
        "config.json",
        "model.bin",
        "tokenizer.json",
        "vocabulary.txt",
    ]
    assert stat.S_IMODE(joined.stat().st_mode) & 0o444 == 0o444, "other users of this machine may read it"
    whole = joined.read_bytes()
    joined.write_bytes(whole[: len(whole) // 2])
    folder = weights_folder(resolve_asr("base", None, models_dir=tmp_path, offline=True), tmp_path)
    assert (folder / "model.bin").read_bytes() == whole


@pytest.mark.slow
def test_what_was_not_finished_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="power cut"), replaced(tmp_path / "a" / "file") as aside:
        aside.write_text("half")
        raise RuntimeError("power cut")
    assert list((tmp_path / "a").iterdir()) == []
    (tmp_path / "file").write_text("before")
    with pytest.raises(RuntimeError), replaced(tmp_path / "file") as aside:
        aside.write_text("half")
        raise RuntimeError
    assert (tmp_path / "file").read_text() == "before"


@pytest.mark.slow
def test_the_catalogue_says_what_is_here(models_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = {row.name: row for row in catalogue(models_dir, offline=True) if row.origin.startswith("package")}
    assert set(rows) == {"base", "tiny.en", "segmentation-3.0+campplus"}
    assert all(row.available and row.licence for row in rows.values())
    hub_rows = {row.name: row for row in catalogue(models_dir, offline=False) if row.origin.startswith("hub")}
    assert hub_rows["community-1"].licence == "CC-BY-4.0"
    assert "large-v3" in hub_rows
