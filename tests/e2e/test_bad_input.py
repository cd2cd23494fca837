"""Each bad input through the real command line: its exit code, its code, one sentence, and nothing half-written.

Recordings of one kind share a command, as a user's batch would: one bad file must not stop the others, and the models
are loaded once.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from stenoflow.cli.errors import worst
from tests.media import make_case
from tests.prefect_home import prefect_home

pytestmark = pytest.mark.slow

QUICK = {"STENO_RETRY__ATTEMPTS": "0", "STENO_NET__STALL_TIMEOUT": "1", "STENO_NET__RESUMES": "1", "STENO_OFFLINE": "1"}
CLEAN = {name: value for name, value in os.environ.items() if not name.startswith(("STENO_", "PREFECT_", "HF_"))}


class Done(NamedTuple):
    """A command that has ended."""

    exit_code: int
    lines: list[dict[str, Any]]
    stderr: str
    output: Path

    def of(self, source: str) -> dict[str, Any]:
        """The last word on one source: its result or its error."""
        return next(line for line in reversed(self.lines) if line.get("source") == source and line["type"] != "stage")


@pytest.fixture(scope="module")
def homes(tmp_path_factory: pytest.TempPathFactory, models_dir: Path) -> dict[str, str]:
    """One home for all."""
    folder = tmp_path_factory.mktemp("homes")
    own = {"STENO_HOME": str(folder / "steno"), "PREFECT_HOME": str(prefect_home(folder / "prefect"))}
    return own | {"STENO_MODELS_DIR": str(models_dir)}


def steno(homes: dict[str, str], output: Path, *args: str, wrapper: tuple[str, ...] = (), **variables: str) -> Done:
    """`steno transcribe --json …`, writing to `output`."""
    done = subprocess.run(
        [*wrapper, sys.executable, "-m", "stenoflow.cli.main", "transcribe", "--json", "--output-dir", str(output), *args],
        env=CLEAN | QUICK | homes | {"PYTHONPATH": os.pathsep.join(sys.path)} | variables,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=280,
        check=False,
    )
    assert "Traceback" not in done.stdout + done.stderr, done.stderr
    return Done(done.returncode, [json.loads(line) for line in done.stdout.splitlines()], done.stderr, output)


def assert_refused(done: Done, source: str, exit_code: int, code: str) -> None:
    line = done.of(source)
    assert (line["type"], line["code"], line["exit_code"]) == ("error", code, exit_code), line
    assert line["message"].endswith((".", "?"))
    assert "\n" not in line["message"]
    assert len(line["message"]) < 400
    assert written(done.output, source) == []


def written(output: Path, source: str) -> list[str]:
    """Files of this source, finished or not."""
    stem = source.rpartition(".")[0] or source
    return sorted(path.name for path in output.rglob("*") if stem in path.name) if output.exists() else []


# -- recordings ---------------------------------------------------------------------------------------------------------

UNUSABLE = {
    "zero": "empty_media",
    "truncated_mp4": "truncated_media",
    "playlist": "forbidden_media",
    "bomb": "media_too_long",
}
"""Some kinds, of those that `tests/speech/test_audio.py` has all of."""
WORDLESS = ("short", "one_sample", "silence", "noise", "music")
ODD = ("telephone", "clipped", "stereo", "video", "wrong_extension")
"""Unusual, and yet a call whose words can be had."""


class Batch(NamedTuple):
    done: Done
    sources: dict[str, str]
    """Case to the name it has in the output."""


def transcribed(homes: dict[str, str], folder: Path, names: tuple[str, ...], *options: str) -> Batch:
    """All the cases in one command."""
    paths = []
    for name in names:
        path = make_case(name, folder)
        paths.append(path.rename(folder / f"{name}{path.suffix}"))
    done = steno(homes, folder / "out", "--model", "tiny.en", *options, *map(str, paths))
    return Batch(done, dict(zip(names, (path.name for path in paths), strict=True)))


@pytest.fixture(scope="module")
def unusable(homes: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Batch:
    return transcribed(homes, tmp_path_factory.mktemp("unusable"), tuple(UNUSABLE))


@pytest.fixture(scope="module")
def wordless(homes: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Batch:
    return transcribed(homes, tmp_path_factory.mktemp("wordless"), WORDLESS)


@pytest.fixture(scope="module")
def odd(homes: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Batch:
    return transcribed(homes, tmp_path_factory.mktemp("odd"), ODD, "--no-diarize", "--language", "en")


@pytest.mark.parametrize("name", UNUSABLE)
def test_an_unusable_recording_has_its_own_error(unusable: Batch, name: str) -> None:
    assert_refused(unusable.done, unusable.sources[name], 3, UNUSABLE[name])


def test_one_bad_recording_does_not_stop_the_next(unusable: Batch) -> None:
    errors = [line for line in unusable.done.lines if line["type"] == "error"]
    assert len(errors) == len(UNUSABLE)
    assert unusable.done.exit_code == worst([line["exit_code"] for line in errors]) == 3


@pytest.mark.parametrize("name", WORDLESS)
def test_a_recording_without_speech_gives_no_words_and_says_so(wordless: Batch, name: str) -> None:
    result = wordless.done.of(wordless.sources[name])
    assert (result["type"], result["words"], result["speakers"]) == ("result", 0, 0), result
    assert result["warnings"]
    transcript = json.loads(Path(result["files"]["json"]).read_text())
    assert transcript["segments"] == transcript["word_segments"] == []
    assert transcript["warnings"]
    assert wordless.done.exit_code == 0


@pytest.mark.parametrize("name", ODD)
def test_an_unusual_recording_is_transcribed(odd: Batch, name: str) -> None:
    result = odd.done.of(odd.sources[name])
    assert result["type"] == "result", result
    transcript = json.loads(Path(result["files"]["json"]).read_text())
    said = {word["word"].strip(" .,?!").lower() for word in transcript["word_segments"]}
    assert len(said & {"texas", "originally", "from", "chicago", "also", "jersey", "now"}) >= 5, said
    assert odd.done.exit_code == 0


# -- options ------------------------------------------------------------------------------------------------------------


BAD_OPTIONS = {
    "language": (("--language", "klingon"), 2, "invalid_option", "klingon"),
    "speakers": (("--min-speakers", "4", "--max-speakers", "2"), 2, "invalid_option", "--min-speakers"),
    "model": (("--model", "tinny.en"), 2, "unknown_model", "'tiny.en'"),
    "output below a file": (("--output-dir", "speech.wav/out"), 3, "output_not_writable", "--output-dir"),
    "output that nobody may write": (("--output-dir", "/proc/steno"), 3, "output_not_writable", "--output-dir"),
}


@pytest.mark.parametrize("name", BAD_OPTIONS)
def test_a_bad_option_is_refused_before_anything_is_done(
    homes: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    options, exit_code, code, says = BAD_OPTIONS[name]
    make_case("speech", tmp_path)
    monkeypatch.chdir(tmp_path)
    done = steno(homes, tmp_path / "out", "speech.wav", *options)
    assert done.exit_code == exit_code
    assert [(line["type"], line["code"], line["exit_code"]) for line in done.lines] == [("error", code, exit_code)]
    assert says in done.lines[0]["message"]
    assert [path.name for path in tmp_path.iterdir()] == ["speech.wav"]


# -- addresses ----------------------------------------------------------------------------------------------------------


class Trouble(BaseHTTPRequestHandler):
    """A server that lacks, stalls, lies and sends elsewhere."""

    protocol_version = "HTTP/1.1"
    recording = b""
    over = threading.Event()

    def do_GET(self) -> None:
        name = self.path.strip("/").partition(".")[0]
        if name == "missing":
            self._answer(404, b"<html>not here</html>")
        elif name == "metadata":
            self._answer(302, b"", Location="http://169.254.169.254/latest/meta-data/")
        elif name == "stall":
            self._promise(len(self.recording), self.recording[:2000])
            self.over.wait(60)
        else:
            self._answer(200, self.recording)

    def _answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _promise(self, length: int, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    Trouble.recording = make_case("silence", tmp_path_factory.mktemp("served")).read_bytes()
    with ThreadingHTTPServer(("127.0.0.1", 0), Trouble) as http:
        http.daemon_threads = True
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{http.server_address[1]}"
        Trouble.over.set()
        http.shutdown()


URLS = {
    "missing.mp3": (3, "source_not_found"),
    "metadata.mp3": (3, "source_forbidden"),
    "stall.mp3": (6, "download_failed"),
}


@pytest.fixture(scope="module")
def fetched(homes: dict[str, str], server: str, tmp_path_factory: pytest.TempPathFactory) -> Done:
    """Every bad URL, and a good one after them, in one command."""
    urls = [f"http://{server}/{name}?signature=hunter2" for name in (*URLS, "fine.wav")]
    output = tmp_path_factory.mktemp("fetched")
    return steno(homes, output, "--model", "tiny.en", "--no-diarize", *urls, STENO_NET__ALLOW_HOSTS=json.dumps([server]))


@pytest.mark.parametrize("name", URLS)
def test_a_url_that_gives_no_recording_has_its_own_error(fetched: Done, name: str) -> None:
    assert_refused(fetched, name, *URLS[name])


def test_an_allowed_private_host_is_fetched_after_the_bad_ones(fetched: Done) -> None:
    assert fetched.of("fine.wav")["type"] == "result"
    assert written(fetched.output, "fine.wav") == ["fine.json", "fine.srt", "fine.txt"]
    assert fetched.exit_code == 3


def test_no_query_is_ever_shown_nor_kept_by_prefect(fetched: Done, homes: dict[str, str]) -> None:
    assert "hunter2" not in json.dumps(fetched.lines) + fetched.stderr
    kept = [path for path in Path(homes["PREFECT_HOME"]).rglob("*") if path.is_file()]
    assert any(path.name == "prefect.db" for path in kept)
    assert all(b"hunter2" not in path.read_bytes() for path in kept)


# -- a full disk --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("full", ["store", "output"])
def test_a_full_disk_is_named_and_nothing_half_written_stays(homes: dict[str, str], tmp_path: Path, full: str) -> None:
    """The store, or the output folder, on a file system of 96 KiB that is full, in a mount namespace of its own."""
    source = make_case("speech" if full == "store" else "silence", tmp_path)
    disk, listing = tmp_path / "disk", tmp_path / "listing"
    disk.mkdir()
    script = (
        f"mount -t tmpfs -o size=96k tmpfs {disk} && mkdir {disk}/here && {{ head -c 200000 /dev/zero > {disk}/filler; }} 2>/dev/null; "
        f'{{ "$@"; code=$?; find {disk}/here -type f > {listing}; exit $code; }}'
    )
    variables = {"STENO_STORE": str(disk / "here" / "store")} if full == "store" else {}
    output = disk / "here" / "out" if full == "output" else tmp_path / "out"
    options = ("--model", "tiny.en", "--no-diarize", "--format", "all")
    if full == "output":
        variables["STENO_STORE"] = str(tmp_path / "store")
    wrapper = ("unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, "sh")
    done = steno(homes, output, *options, str(source), wrapper=wrapper, **variables)
    line = done.of(source.name)
    assert (done.exit_code, line["code"]) == (5, "storage_full"), line
    assert [path for path in listing.read_text().splitlines() if path.endswith((".part", ".flac"))] == []
