"""Short recordings on Modal: all stages in one container by one call, and several recordings in a call; long ones in two at once."""

from __future__ import annotations

import asyncio
import re
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import soundfile

from flows.request import TranscribeRequest
from flows.transcribe import transcribe
from infra.on_modal import departures
from infra.settings import StenoSettings, get_settings
from tests.e2e.test_modal import modal_server, request, server
from tests.modal_app import bursts, call, unfinished, until
from tests.modal_server import ModalServer

__all__ = ["modal_server", "server"]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

_RUN = """
import asyncio, sys
from flows.request import TranscribeRequest
from flows.transcribe import transcribe
asyncio.run(transcribe(TranscribeRequest.model_validate_json(sys.argv[1])))
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prefect_server: None) -> Iterator[StenoSettings]:
    monkeypatch.setenv("STENO_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("STENO_MODAL__ONE_CONTAINER_BELOW", "1800")
    monkeypatch.setenv("STENO_MODAL__GPU", "[]")  # the test server's containers have none
    get_settings.cache_clear()
    yield get_settings()
    get_settings.cache_clear()


async def run(asked: TranscribeRequest) -> Any:
    """How the run ended, as a state."""
    return await cast(Any, transcribe)(asked, return_state=True)


def made(server: ModalServer, since: int) -> Counter[str]:
    return Counter(each["function"] for each in server.calls[since:])


async def test_a_short_recording_is_one_call_of_one_container(
    server: ModalServer, home: StenoSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, before, started = call(tmp_path / "call.wav", seconds=24.0), len(server.calls), len(server.containers)
    on_modal = await transcribe(request(source, output_file="modal.json"))
    assert made(server, before) == {"Recordings.segment": 1}
    assert len(server.containers) - started == 1
    monkeypatch.setenv("STENO_HOME", str(tmp_path / "another"))
    get_settings.cache_clear()
    here = await transcribe(request(source, output_file="local.json", compute="local"))
    assert (tmp_path / "out/modal.json").read_bytes() == (tmp_path / "out/local.json").read_bytes()
    assert [stage.key for stage in here.stages] == [stage.key for stage in on_modal.stages]
    backends = {stage.stage: stage.backend for stage in on_modal.stages if stage.backend}
    assert {stage for stage, backend in backends.items() if backend == "modal"} == {"segment", "asr", "embed"}
    assert not unfinished(server)


@pytest.mark.matrix
async def test_ten_minutes_wait_for_one_start(server: ModalServer, home: StenoSettings, tmp_path: Path) -> None:
    """With no container running: one starts, for one call, and nothing that the run waits for starts after it."""
    source = call(tmp_path / "call.wav", seed=53)
    samples, rate = soundfile.read(source)
    soundfile.write(source, np.resize(np.pad(samples, (0, 110 * rate)), 600 * rate), rate, subtype="PCM_16")
    await asyncio.to_thread(server.scale_to_zero)
    before, started = len(server.calls), len(server.containers)
    result = await transcribe(request(source))
    assert result.duration == 600.0 and result.words > 50 and not result.degraded
    assert made(server, before) == {"Recordings.segment": 1}
    assert len(server.containers) - started == 1


async def test_a_long_recording_waits_for_one_start_and_not_for_two_in_series(
    server: ModalServer, home: StenoSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The container of the words starts while that of the voices does."""
    monkeypatch.setenv("STENO_MODAL__ONE_CONTAINER_BELOW", "5")
    get_settings.cache_clear()
    before = len(server.calls)
    await transcribe(request(call(tmp_path / "call.wav", seed=51)))
    assert made(server, before) == {"Voices.segment": 1, "Speech.ready": 1, "Speech.asr": 1, "Voices.embed": 1}
    by_name = {each["function"]: each for each in server.calls[before:]}
    assert by_name["Speech.ready"]["created_at"] < by_name["Voices.segment"]["ended_at"]
    assert by_name["Speech.asr"]["container"] == by_name["Speech.ready"]["container"]


async def test_a_container_that_dies_begins_the_call_again(server: ModalServer, home: StenoSettings, tmp_path: Path) -> None:
    before = len(server.calls)
    server.fault("kill", "Recordings.segment", after=0.5)
    result = await transcribe(request(call(tmp_path / "call.wav", seed=52)))
    assert result.words > 10 and not result.degraded
    [one] = server.calls[before:]
    assert [each["outcome"] for each in one["attempts"]] == ["killed", "succeeded"]


def _segmented(server: ModalServer) -> int:
    return sum("/segmentation/" in name for name in server.volume("stenoflow-artifacts")["files"])


async def test_a_run_that_was_killed_finds_what_its_call_went_on_with(
    server: ModalServer, home: StenoSettings, tmp_path: Path
) -> None:
    """SIGKILL to the orchestrator when it has the segmentation: words and voices come from the call that goes on."""
    from prefect.settings import PREFECT_API_URL

    asked = request(bursts(tmp_path / "talk.wav", 16))
    before = len(server.calls)
    env = server.environ(PREFECT_API_URL=str(PREFECT_API_URL.value()))
    orchestrator = await asyncio.create_subprocess_exec(sys.executable, "-c", _RUN, asked.model_dump_json(), env=env)
    stages = tmp_path / "home/store/records"
    try:
        await until(lambda: any(re.fullmatch("[0-9a-f]{64}", each.name) for each in stages.glob("*")), seconds=120)
    finally:
        orchestrator.send_signal(signal.SIGKILL)
        await orchestrator.wait()
    result = await transcribe(asked)
    assert result.words > 30 and result.speakers is not None
    assert made(server, before) == {"Recordings.segment": 1}


async def test_cancelling_the_run_ends_its_call(server: ModalServer, home: StenoSettings, tmp_path: Path) -> None:
    before, segmented = len(server.calls), _segmented(server)
    running = asyncio.create_task(run(request(bursts(tmp_path / "talk.wav", 41))))
    await until(lambda: _segmented(server) > segmented, seconds=120)
    running.cancel()
    await asyncio.wait({running})
    await until(lambda: not unfinished(server), seconds=90)
    assert [each["state"] for each in server.calls[before:]] == ["cancelled"]


async def test_many_short_recordings_share_calls_and_nothing_else(
    server: ModalServer, home: StenoSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of six the first goes alone and the others together; one of those is cancelled, and the rest have their transcripts."""
    monkeypatch.setattr(departures, "AT_ONCE", 1)
    before = len(server.calls)
    sources = [call(tmp_path / f"call-{number}.wav", seed=60 + number) for number in range(6)]
    server.fault("delay", "Recordings.segment", seconds=20.0)  # until all others are waiting
    running = [asyncio.create_task(run(request(source))) for source in sources]
    await until(lambda: len(server.calls) - before > 1, seconds=120)
    running[-1].cancel()
    await asyncio.wait(running)
    await until(lambda: not unfinished(server))
    assert made(server, before) == {"Recordings.segment": 2}
    written = sorted(each.stem for each in (tmp_path / "out").glob("*.json"))
    assert written == [f"call-{number}" for number in range(5)]
    words = {(tmp_path / f"out/{stem}.json").read_text().count('"word"') for stem in written}
    assert len(words) <= 2 and min(words) > 10, "the same words in each"
