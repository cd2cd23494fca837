"""What a command begins before its server answers: only what the run will compute, here, from a file of this machine."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flows.request import TranscribeRequest
from infra import compute, headstart
from infra.headstart import HeadStart
from infra.progress import StageEvent
from infra.settings import StenoSettings, get_settings
from stenoflow.cli import ahead
from tasks.records import look_up
from tests.media import make_case


@pytest.fixture
def settings(tmp_path: Path, models_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StenoSettings]:
    for name, value in {"HOME": str(tmp_path / "home"), "MODELS_DIR": str(models_dir), "OFFLINE": "1"}.items():
        monkeypatch.setenv(f"STENO_{name}", value)
    get_settings.cache_clear()
    yield get_settings()
    headstart.use(None)
    get_settings.cache_clear()


def begun(
    request: TranscribeRequest,
    settings: StenoSettings,
    monkeypatch: pytest.MonkeyPatch,
    show: Callable[[StageEvent], object] = lambda _: None,
) -> list[str]:
    """The kinds of work that are begun for the request, when all is done."""
    kinds: list[str] = []
    begin = HeadStart.begin

    def noted(self: HeadStart, key: str) -> Any:
        kinds.append("decode" if key.startswith("decoded-") else "stage")
        return begin(self, key)

    monkeypatch.setattr(HeadStart, "begin", noted)
    ahead.Ahead(request, settings, show).wait()
    for thread in threading.enumerate():
        if thread.name == "ahead":
            thread.join()
    return kinds


def test_a_new_file_is_decoded_segmented_and_heard(
    tmp_path: Path, settings: StenoSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, shown = str(make_case("speech", tmp_path)), list[StageEvent]()
    request = TranscribeRequest(source=source, model="tiny.en")
    assert begun(request, settings, monkeypatch, shown.append) == ["decode", "stage", "stage"]
    assert [event.stage for event in shown if event.state == "started"] == ["fetch", "segment", "asr"]
    assert [event.fraction for event in shown if event.stage == "asr"][-1] == 1.0, "what goes on is shown before there is a run"
    assert not list(compute.get_store(settings).scratch.glob("ahead-*"))


@pytest.mark.parametrize(
    "changes",
    [
        {"source": "-"},
        {"source": "https://example.org/a.wav"},
        {"source": "s3://bucket/a.wav"},
        {"source": "no-such-file.wav"},
        {"redo_from": "asr"},
        {"model": "no-such-model"},
    ],
    ids=str,
)
def test_nothing_else_is_begun(
    tmp_path: Path, settings: StenoSettings, monkeypatch: pytest.MonkeyPatch, changes: dict[str, str]
) -> None:
    def refuse(source: str, *others: Any) -> Any:
        assert source == "no-such-file.wav"
        raise OSError

    source = tmp_path / "a.wav"
    shutil.copy(make_case("speech", tmp_path), source)
    monkeypatch.setattr(ahead, "fetch_source", refuse)
    fields = {"source": str(source), "model": "tiny.en"} | changes
    assert begun(TranscribeRequest.model_validate(fields), settings, monkeypatch) == []


def test_long_recordings_are_left_to_the_run_which_divides_them(
    tmp_path: Path, settings: StenoSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = str(make_case("speech", tmp_path))
    divided = settings.model_copy(update={"shards": settings.shards.model_copy(update={"threshold": 10.0, "min_seconds": 5.0})})
    assert begun(TranscribeRequest(source=source, model="tiny.en"), divided, monkeypatch) == ["decode"]


def test_what_was_begun_is_there_for_the_next_command_when_this_one_is_killed(
    tmp_path: Path, settings: StenoSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody has asked for it: no server answered before the kill."""
    request = TranscribeRequest(source=str(make_case("speech", tmp_path)), model="tiny.en")
    assert begun(request, settings, monkeypatch) == ["decode", "stage", "stage"]
    assert begun(request, settings, monkeypatch) == []


async def test_the_run_takes_over_what_waits_for_it_rather_than_call_it_cached(
    tmp_path: Path, settings: StenoSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys: list[str] = []
    begin = HeadStart.begin
    monkeypatch.setattr(HeadStart, "begin", lambda self, key: keys.append(key) or begin(self, key))
    begun(TranscribeRequest(source=str(make_case("speech", tmp_path)), model="tiny.en"), settings, monkeypatch)
    segment = next(key for key in keys if not key.startswith("decoded-"))
    assert not await look_up(segment)
    assert headstart.begun(segment) is not None
    assert await look_up(segment)
