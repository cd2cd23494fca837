"""A real call with a party on each channel, and with a file for each: real models, the real command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.channels import doubled
from speech.scoring import Spoken
from tests.call import normal
from tests.media import RATE, speech, wav
from tests.prefect_home import prefect_home

pytestmark = pytest.mark.slow

DIANE, SHEILA = ((10.6, 14.45), (18.62, 21.45)), ((14.75, 17.9), (21.8, 28.4))
"""Where in the sample call each speaks alone, in seconds."""


def parties() -> list[np.ndarray]:
    """Each party's side of the call, (samples,)."""
    sides = []
    for spans in (DIANE, SHEILA):
        side = np.zeros_like(speech())
        for start, end in spans:
            part = slice(round(start * RATE), round(end * RATE))
            side[part] = speech()[part]
        sides.append(side[10 * RATE :])
    return sides


def transcribed(folder: Path, *arguments: str) -> dict[str, Any]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("STENO_", "PREFECT_", "HF_"))}
    own = {"STENO_HOME": str(folder / "steno"), "PREFECT_HOME": str(prefect_home(folder / "prefect")), "STENO_OFFLINE": "1"}
    command = [sys.executable, "-m", "stenoflow.cli.main", "transcribe", "-q", "-m", "tiny.en", *arguments]
    command += ["--output-file", str(folder / "out.json")]
    done = subprocess.run(command, env=clean | own, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads((folder / "out.json").read_text())
    return found


def assert_each_said_their_own(transcript: dict[str, Any]) -> None:
    said = {
        speaker: set(normal(" ".join(part["text"] for part in transcript["segments"] if part["speaker"] == speaker)))
        for speaker in transcript["speakers"]
    }
    assert {"diane", "originally", "jersey"} <= said["SPEAKER_00"] and not {"texas", "yankee"} & said["SPEAKER_00"]
    assert {"texas", "yankee", "difference"} <= said["SPEAKER_01"] and not {"diane", "jersey"} & said["SPEAKER_01"]
    assert (
        doubled([Spoken(word["word"], word["start"], word["end"], word["speaker"]) for word in transcript["word_segments"]])
        == 0
    )


def test_a_call_with_a_party_on_each_channel_and_bleed_gives_each_their_own_words(tmp_path: Path) -> None:
    diane, sheila = parties()
    call = wav(tmp_path / "call.wav", np.stack([diane + 0.1 * sheila, sheila + 0.1 * diane]))
    transcript = transcribed(tmp_path, str(call))
    assert transcript["options"]["channels"] == "separate"
    assert {part["channel"] for part in transcript["segments"]} == {1, 2}
    assert_each_said_their_own(transcript)


def test_a_file_for_each_gives_one_transcript_with_their_names(tmp_path: Path) -> None:
    diane, sheila = parties()
    files = [wav(tmp_path / "diane.wav", diane), wav(tmp_path / "sheila.wav", sheila)]
    transcript = transcribed(tmp_path, "--together", *map(str, files))
    assert transcript["speaker_names"] == {"SPEAKER_00": "diane", "SPEAKER_01": "sheila"}
    assert_each_said_their_own(transcript)
