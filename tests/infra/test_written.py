"""What may be written where something is: over our own file, never over a recording, over others only when told to."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from infra.settings import StenoSettings
from infra.written import known_as, refuse_source, write_for
from stenoflow.errors import OutputExists, OutputIsRecording
from tests.stage_double import recording

TALK = known_as("/in/talk.wav", "samples-of-talk")
OTHER = known_as("/in/other.wav", "samples-of-other")


def write(path: Path, settings: StenoSettings, content: str, of: tuple[str, ...] = TALK, *, overwrite: bool = False) -> None:
    write_for(str(path), of, content.encode(), settings, overwrite=overwrite)


def test_a_file_of_ours_is_replaced_and_one_that_was_changed_or_is_anothers_is_not(
    tmp_path: Path, steno: StenoSettings
) -> None:
    target = tmp_path / "talk.srt"
    for content in ("one", "two", "two", "three"):
        write(target, steno, content)
    write(target, steno, "four", known_as("/moved/talk.wav", "samples-of-talk"))
    write(target, steno, "five", known_as("/moved/talk.wav", "recorded anew"))
    with pytest.raises(OutputExists, match="--overwrite"):
        write(target, steno, "six", OTHER)
    write(target, steno, "five", OTHER)  # it says the same
    target.write_text("edited")
    with pytest.raises(OutputExists):
        write(target, steno, "seven")
    assert target.read_text() == "edited"
    write(target, steno, "eight", overwrite=True)
    write(target, steno, "nine")


def test_what_a_kill_leaves_behind_is_ours(tmp_path: Path, steno: StenoSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "talk.srt"
    write(target, steno, "one")
    with monkeypatch.context() as patch:
        patch.setattr("infra.outputs.write", lambda *_: None)  # killed between the record and the file
        write(target, steno, "two")
    assert target.read_text() == "one"
    write(target, steno, "three")


def test_a_recording_is_never_written_over(tmp_path: Path, steno: StenoSettings) -> None:
    own = recording(tmp_path / "own.wav").rename(tmp_path / "own.srt")
    linked, hard = tmp_path / "linked.srt", tmp_path / "hard.srt"
    linked.symlink_to(own)
    hard.hardlink_to(own)
    for target in (own, linked, hard):
        for source in (str(own), f"file://{own}", f"{tmp_path}/../{tmp_path.name}/own.srt"):
            with pytest.raises(OutputIsRecording):
                refuse_source(str(target), source)
        with pytest.raises(OutputIsRecording):
            write(target, steno, "words", OTHER, overwrite=True)
    refuse_source(str(tmp_path / "new.srt"), str(own))
    with pytest.raises(OutputIsRecording):
        refuse_source("s3://bucket/own.srt", "s3a://bucket/own.srt")


@pytest.mark.timeout(20)
def test_a_pipe_or_a_device_is_neither_read_nor_replaced(tmp_path: Path, steno: StenoSettings) -> None:
    pipe = tmp_path / "talk.srt"
    os.mkfifo(pipe)
    for target in (pipe, Path(os.devnull)):
        for overwrite in (False, True):
            with pytest.raises(OSError, match="Not a regular file"):
                write(target, steno, "one", overwrite=overwrite)
    assert pipe.is_fifo()


def test_standard_input_is_known_by_its_samples_alone() -> None:
    assert not set(known_as("-", "one")) & set(known_as("-", "two"))
    assert known_as("https://host/talk.mp3?signature=1", "one") == known_as("https://host/talk.mp3?signature=2", "one")
    assert known_as("s3://b/Ep?1.wav", "one") != known_as("s3://b/Ep?2.wav", "one")
