"""Recordings that other tools transcribe to nothing, half, or shifted, through the real command line and real models."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.media import RATE, at_rate, encode, speech, wav
from tests.prefect_home import prefect_home
from tests.speech.test_timeline import stamped
from tests.speech.test_tracks import Sound, written

pytestmark = pytest.mark.slow

CLEAN = {name: value for name, value in os.environ.items() if not name.startswith(("STENO_", "PREFECT_", "HF_"))}
PAGE = b"<!DOCTYPE html><html><body>Please sign in</body></html>"


def voice() -> np.ndarray:
    return speech()[7 * RATE : 17 * RATE]


class Server(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        page = self.path.startswith("/sign-in")
        raw = (at_rate(voice(), 8000) * 32767).astype("<i2").tobytes()
        self.send_response(200)
        self.send_header("Content-Type", "audio/mpeg")
        if not page:
            self.send_header("Content-Disposition", "attachment; filename*=UTF-8''..%2FAnruf%20%C3%BCber%20Mittag.sln")
        self.send_header("Content-Length", str(len(PAGE if page else raw)))
        self.end_headers()
        self.wfile.write(PAGE if page else raw)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, models_dir: Path, site: str) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("homes")
    own = {"STENO_HOME": str(folder / "steno"), "PREFECT_HOME": str(prefect_home(folder / "prefect"))}
    own |= {"STENO_MODELS_DIR": str(models_dir), "STENO_OFFLINE": "1", "STENO_NET__ALLOW_HOSTS": json.dumps([site])}
    return CLEAN | own | {"PYTHONPATH": os.pathsep.join(sys.path)}


def steno(home: dict[str, str], output: Path, *args: str) -> tuple[list[dict[str, Any]], int]:
    """The last line of each recording, in order, and the exit code."""
    options = ("--json", "-o", str(output), "-m", "tiny.en", "-l", "en", "--no-diarize")
    command = [sys.executable, "-m", "stenoflow.cli.main", "transcribe", *options, *args]
    done = subprocess.run(command, env=home, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=900, check=False)
    assert "Traceback" not in done.stdout + done.stderr, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return [line for line in lines if line["type"] in ("result", "error")], done.returncode


def words(output: Path, stem: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((output / f"{stem}.json").read_text())["word_segments"]
    return found


def test_each_is_transcribed_whole_in_time_and_with_what_is_to_be_known(home: dict[str, str], tmp_path: Path) -> None:
    wav(tmp_path / "plain.wav", voice())
    encode(tmp_path / "inverted.mp3", at_rate(np.stack([voice(), -voice()]), 44100), 44100, "libmp3lame")
    six = np.zeros((6, len(voice())), np.float32)
    six[3] = voice()
    wav(tmp_path / "recorder.wav", six)
    written(tmp_path / "silent_first.mkv", Sound(0 * voice(), "eng", default=True), Sound(voice(), "eng", "Mic"))
    half = bytearray(wav(tmp_path / "half.wav", voice()).read_bytes())
    struct.pack_into("<I", half, half.index(b"data") + 4, len(voice()))
    (tmp_path / "half.wav").write_bytes(half)
    (tmp_path / "raw.sln16").write_bytes((voice() * 32767).astype("<i2").tobytes())
    names = ["plain.wav", "inverted.mp3", "recorder.wav", "silent_first.mkv", "half.wav", "raw.sln16"]
    ended, code = steno(home, tmp_path, *(str(tmp_path / name) for name in names))
    assert code == 0, ended
    plain = words(tmp_path, "plain")
    assert len(plain) > 10
    for name in names:
        ours = words(tmp_path, name.partition(".")[0])
        assert len(ours) > 0.7 * len(plain), name
        assert ours[0]["start"] == pytest.approx(plain[0]["start"], abs=0.3), name
        assert ours[-1]["end"] == pytest.approx(plain[-1]["end"], abs=0.6), name
    said = {line["source"]: " ".join(line["warnings"]) for line in ended}
    assert "track 2" in said["silent_first.mkv"]
    assert "header" in said["half.wav"]
    document = json.loads((tmp_path / "silent_first.json").read_text())
    assert document["options"]["track"] == {"number": 2, "of": 2, "language": "en", "title": "Mic"}
    assert "track" not in json.loads((tmp_path / "plain.json").read_text())["options"]


def test_words_follow_time_stamps_that_run_slower(home: dict[str, str], tmp_path: Path) -> None:
    stamped(tmp_path / "plain.mkv", lambda second: second)
    stamped(tmp_path / "slow.mkv", lambda second: second * 0.95)
    ended, code = steno(home, tmp_path, str(tmp_path / "plain.mkv"), str(tmp_path / "slow.mkv"))
    assert code == 0, ended
    plain, slow = words(tmp_path, "plain"), words(tmp_path, "slow")
    assert slow[-1]["end"] == pytest.approx(0.95 * plain[-1]["end"], abs=0.4)
    assert any("timestamps of the recording differ" in warning for warning in ended[1]["warnings"])


def test_a_track_is_chosen_on_the_command_line(home: dict[str, str], tmp_path: Path) -> None:
    path = written(tmp_path / "two.mkv", Sound(voice(), "eng", default=True), Sound(0 * voice(), "fre"))
    ended, code = steno(home, tmp_path, "--track", "fr", str(path))
    assert (code, ended[0]["words"]) == (0, 0)
    ended, code = steno(home, tmp_path, "--track", "3", str(path))
    assert (code, ended[0]["code"]) == (3, "no_such_track")
    assert "track 1 (English)" in ended[0]["message"]


def test_a_page_is_named_and_a_served_name_names_the_files(home: dict[str, str], tmp_path: Path, site: str) -> None:
    ended, code = steno(home, tmp_path, f"http://{site}/sign-in/talk.mp3")
    assert (code, ended[0]["code"]) == (3, "unreadable_media")
    assert "is a web page" in ended[0]["message"]
    ended, code = steno(home, tmp_path, f"http://{site}/download?id=5")
    assert code == 0, ended
    assert [path.name for path in tmp_path.glob("*.json")] == ["Anruf über Mittag.json"]
    assert len(words(tmp_path, "Anruf über Mittag")) > 10
