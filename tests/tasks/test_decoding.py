"""A disk that fills while a recording is decoded."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from infra.compute import get_store
from infra.settings import StenoSettings, get_settings
from infra.sources import Fetched, fetch_source
from stenoflow.errors import MediaTooLong, StorageFull
from tasks.decoding import FetchCall, decode, known_audio, no_space_translated, record_of
from tests.stage_double import recording


def fetched(tmp_path: Path, steno: StenoSettings, seconds: float = 20.0) -> Fetched:
    return fetch_source(str(recording(tmp_path / "talk.wav", seconds=seconds)), tmp_path, steno)


DECODED_WITHOUT_SPACE = """
import resource, sys
from pathlib import Path
from infra.settings import get_settings
from infra.sources import fetch_source
from stenoflow.errors import StorageFull
from tasks.decoding import FetchCall, decode, known_audio, no_space_translated, record_of
source, folder = sys.argv[1], Path(sys.argv[2])
fetched, call = fetch_source(source, folder, get_settings()), FetchCall(source=source, label="talk.wav")
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
try:
    with no_space_translated():
        decode(fetched, folder, call, lambda fraction: None)
except StorageFull as error:
    print(error.message)
print(known_audio(record_of(fetched.sha256, call), call))
"""


def test_a_disk_that_fills_while_decoding_is_named_and_nothing_is_kept(tmp_path: Path, steno: StenoSettings) -> None:
    """The kernel refuses to let the file grow in the middle of the recording."""
    source = recording(tmp_path / "talk.wav", seconds=20.0)
    folder = tmp_path / "scratch"
    folder.mkdir()
    command = [sys.executable, "-c", DECODED_WITHOUT_SPACE, str(source), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    said, known = done.stdout.splitlines()
    assert said.startswith("No space left for the recording") and "STENO_SCRATCH" in said, done.stderr
    assert known == "None"
    assert list(folder.iterdir()) == []
    assert not list(get_store().files("artifacts"))


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_quota_is_a_full_disk_too(number: int) -> None:
    with pytest.raises(StorageFull), no_space_translated():
        raise OSError(number, "as the kernel says it")


def test_other_troubles_of_a_disk_are_not_called_a_full_one() -> None:
    with pytest.raises(PermissionError), no_space_translated():
        raise PermissionError(errno.EACCES, "Permission denied")


def test_what_was_decoded_is_known_again_but_not_beyond_todays_limit(tmp_path: Path, steno: StenoSettings) -> None:
    source = fetched(tmp_path, steno, seconds=2.0)
    call = FetchCall(source="talk.wav", label="talk.wav")
    audio = decode(source, tmp_path, call, lambda fraction: None)
    record = record_of(source.sha256, call)
    assert known_audio(record, call) == audio
    assert audio.meta["duration"] == 2.0
    with pytest.raises(MediaTooLong, match="the limit of this run"):
        known_audio(record, call.model_copy(update={"max_duration": 1.0}))
    assert known_audio(record, call.model_copy(update={"max_duration": 2.0})) == audio
    assert record_of(source.sha256, call.model_copy(update={"allow_truncated": True})) != record
    assert record_of(source.sha256, call.model_copy(update={"track": "1"})) != record


@pytest.mark.parametrize(
    ("of_the_run", "named"),
    [(None, "or raise STENO_LIMITS__MAX_DURATION"), (1.0, "or raise the limit of this run")],
)
def test_a_recording_above_the_limit_names_the_limit(
    of_the_run: float | None, named: str, tmp_path: Path, steno: StenoSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = fetched(tmp_path, steno, seconds=3.0)
    monkeypatch.setenv("STENO_LIMITS__MAX_DURATION", "2")
    get_settings.cache_clear()
    call = FetchCall(source="talk.wav", label="talk.wav", max_duration=of_the_run)
    with pytest.raises(MediaTooLong) as raised:
        decode(source, tmp_path, call, lambda fraction: None)
    assert named in raised.value.message and f"{of_the_run or 2.0:.1f} s" in raised.value.message
    assert not list(get_store().files("artifacts"))
