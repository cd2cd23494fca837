"""A call on Modal while Modal is away, slow or forgetful: how long it is waited for, and what becomes of its record.

Modal's client is stood in for at the one method that waits; that the real client raises these is in `tests/modal_server`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from modal import exception

from infra.artifacts import ArtifactRef
from infra.on_modal import live
from infra.on_modal.calls import CallRecord, Calls
from infra.on_modal.contract import RemoteAnswer, RemoteAnswers, RemoteEvent
from infra.on_modal.live import LiveCall
from infra.on_modal.worker import VolumeStore
from infra.settings import ModalSettings
from infra.store import Store
from stenoflow.errors import ModalDenied, TransientError

ANSWER = RemoteAnswer()
ANSWERS = RemoteAnswers(answers={"key": ANSWER})
Turn = tuple[float, BaseException | RemoteAnswers]
"""Seconds that one request lasts, and how it ends."""


class Call:
    """A call that each request for its result meets in another way; the last repeats."""

    object_id = "fc-1"

    def __init__(self, *turns: Turn) -> None:
        self.turns = list(turns)
        self.now = 1000.0
        self.requests = 0
        self.cancelled = 0
        self.ended = asyncio.Event()
        self.given = ANSWERS
        self.get = SimpleNamespace(aio=self._get)
        self.cancel = SimpleNamespace(aio=self._cancel)

    async def _get(self, timeout: float) -> dict[str, Any]:  # noqa: ASYNC109  as Modal has it
        self.requests += 1
        if self.turns == [FOREVER]:
            await self.ended.wait()
            return self.given.model_dump()
        seconds, end = self.turns.pop(0) if len(self.turns) > 1 else self.turns[0]
        self.now += timeout if isinstance(end, TimeoutError) else seconds
        if isinstance(end, BaseException):
            raise end
        return end.model_dump()

    async def _cancel(self) -> None:
        self.cancelled += 1

    async def sleep(self, seconds: float) -> None:
        self.now += seconds


AWAY: Turn = (3.0, exception.ConnectionError("no route"))
RUNNING: Turn = (0.0, TimeoutError())
FOREVER: Turn = (-1.0, TimeoutError())
"""Until its `ended` is set, and then it gives `given`."""


@pytest.fixture
def waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Calls]:
    async def nothing(self: LiveCall, *_: object) -> None:
        pass

    monkeypatch.setattr(LiveCall, "_watch", nothing)
    monkeypatch.setattr(LiveCall, "_pass_on", nothing)
    yield Calls(Store(str(tmp_path / "store"), tmp_path / "scratch"), ModalSettings(reconnect=60.0))


def on_its_clock(call: Call, monkeypatch: pytest.MonkeyPatch) -> Call:
    monkeypatch.setattr(live, "time", SimpleNamespace(monotonic=lambda: call.now))
    monkeypatch.setattr(live, "asyncio", SimpleNamespace(**vars(asyncio) | {"sleep": call.sleep}))
    return call


async def awaited(waits: Calls, call: Call) -> RemoteAnswer:
    record = CallRecord(call_id=call.object_id, app="steno", environment=None)
    waits.store.write_record("calls/key", record.model_dump_json().encode())
    return await waits._awaited("key", waits.live(call), "the asr stage", lambda fraction: None)  # type: ignore[arg-type]


async def test_a_call_is_waited_for_as_long_as_it_runs(waits: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
    call = on_its_clock(Call(*[RUNNING] * 500, (1.0, ANSWERS)), monkeypatch)
    assert await awaited(waits, call) == ANSWER
    assert call.requests == 501 and call.now > 1000 + 500 * 20 - 1
    assert waits.store.read_record("calls/key") is None


async def test_a_modal_that_stays_away_is_given_up_and_its_call_stays_recorded(
    waits: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = on_its_clock(Call(RUNNING, AWAY), monkeypatch)
    with pytest.raises(TransientError, match="unreachable for 60 s during the asr stage"):
        await awaited(waits, call)
    assert 60 < call.now - 1020 < 60 + 2 * 4, "given up when the time is over, and not before"
    assert waits.store.read_record("calls/key") is not None, "another attempt finds the call"
    assert not call.cancelled


@pytest.mark.parametrize(
    "error",
    [exception.ServiceError("unavailable"), ConnectionResetError(), exception.ConnectionError("no route")],
    ids=lambda error: type(error).__name__,
)
async def test_a_network_that_comes_back_in_time_changes_nothing(
    waits: Calls, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """Several times over, each for less than is waited: the time away is counted anew."""
    away = [(3.0, error)] * 12
    call = on_its_clock(Call(*[*away, RUNNING] * 4, (1.0, ANSWERS)), monkeypatch)
    assert await awaited(waits, call) == ANSWER
    assert call.now - 1000 > 4 * 48


@pytest.mark.parametrize("error", [exception.NotFoundError("no such call"), exception.OutputExpiredError("expired")])
async def test_a_result_that_modal_no_longer_has_is_asked_for_once(
    waits: Calls, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    call = on_its_clock(Call((1.0, error)), monkeypatch)
    with pytest.raises(live.CallLost):
        await awaited(waits, call)
    assert call.requests == 1
    assert waits.store.read_record("calls/key") is None


async def test_who_stops_waiting_cancels_the_call(waits: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
    waiting = asyncio.create_task(awaited(waits, call := Call(FOREVER)))
    await asyncio.sleep(0.05)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert call.cancelled == 1
    assert waits.store.read_record("calls/key") is None


@pytest.mark.parametrize(
    "error",
    [
        exception.InternalFailure("worker lost"),
        exception.InternalError("internal"),
        exception.ResourceExhaustedError("slow down"),
        exception.ConflictError("conflict"),
        exception.AuthError("expired"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_one_transient_answer_while_waiting_leaves_the_call_alone(
    waits: Calls, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    call = on_its_clock(Call(RUNNING, (1.0, error), RUNNING, (1.0, error), (1.0, ANSWERS)), monkeypatch)
    assert await awaited(waits, call) == ANSWER
    assert not call.cancelled


async def test_a_token_that_stays_refused_is_said_and_the_call_stays_recorded(
    waits: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = on_its_clock(Call((3.0, exception.AuthError("expired"))), monkeypatch)
    with pytest.raises(ModalDenied):
        await awaited(waits, call)
    assert waits.store.read_record("calls/key") is not None
    assert not call.cancelled


async def test_a_call_that_modal_keeps_failing_is_cancelled_before_another_is_made(
    waits: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = on_its_clock(Call((3.0, exception.InternalFailure("worker lost"))), monkeypatch)
    with pytest.raises(TransientError):
        await awaited(waits, call)
    assert call.cancelled == 1
    assert waits.store.read_record("calls/key") is None


async def test_stores_that_share_an_app_note_their_calls_apart(waits: Calls, tmp_path: Path) -> None:
    other = Calls(Store(str(tmp_path / "other"), tmp_path / "scratch"), waits.settings)
    again = Calls(Store(str(tmp_path / "store"), tmp_path / "scratch"), waits.settings)
    assert await waits.claim("key") != await other.claim("key")
    assert await waits.claim("key") == await again.claim("key")


# -- one call for several stages ----------------------------------------------------------------------------------------


class Wire:
    """What goes between orchestrator and container during a call."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.events: list[RemoteEvent] = []
        self.stopped: list[str] = []
        monkeypatch.setattr(LiveCall, "_queue", lambda live: self)
        monkeypatch.setattr(live, "INTERVAL", 0.01)
        self.get_many = SimpleNamespace(aio=self._get_many)
        self.put = SimpleNamespace(aio=self._put)

    async def _get_many(self, most: int, *, block: bool, partition: str) -> list[dict[str, Any]]:
        events, self.events = self.events, []
        return [event.model_dump() for event in events]

    async def _put(self, key: str, *, partition: str) -> None:
        assert partition == "fc-1-stop"
        self.stopped.append(key)


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> Wire:
    return Wire(monkeypatch)


def nobody(fraction: float) -> None:
    pass


async def test_a_stage_is_answered_while_its_call_goes_on_with_the_next(wire: Wire) -> None:
    one = LiveCall(call := Call(FOREVER), ModalSettings())  # type: ignore[arg-type]
    seen: list[float] = []
    wire.events = [
        RemoteEvent(key="segment", fraction=0.5),
        RemoteEvent(key="segment", answer=RemoteAnswer(next=("asr", "embed"))),
    ]
    assert (await one.answer("segment", seen.append)).next == ("asr", "embed")
    assert seen == [0.5]
    wire.events = [RemoteEvent(key="asr", fraction=0.25)]  # before the run asks for it
    await asyncio.sleep(0.05)
    assert one.computes("asr") and not one.computes("segment")
    waiting = asyncio.create_task(one.answer("asr", seen.append))
    await asyncio.sleep(0.05)
    assert seen == [0.5, 0.25]
    call.given = RemoteAnswers(answers=dict.fromkeys(("segment", "asr", "embed"), ANSWER))
    call.ended.set()
    assert await waiting == ANSWER
    assert await one.answer("embed", nobody) == ANSWER, "its answer stays until the run asks"
    assert not call.cancelled


async def test_a_call_given_up_as_a_whole_says_so_of_every_stage(wire: Wire) -> None:
    one = LiveCall(call := Call(FOREVER), ModalSettings())  # type: ignore[arg-type]
    call.given = RemoteAnswers(rest=ANSWER)
    waiting = [asyncio.create_task(one.answer(key, nobody)) for key in ("a", "b")]
    await asyncio.sleep(0)
    call.ended.set()
    assert await asyncio.gather(*waiting) == [ANSWER, ANSWER]


async def test_stopping_one_recording_leaves_the_others_of_its_call(waits: Calls, wire: Wire) -> None:
    one = waits.live(call := Call(FOREVER))  # type: ignore[arg-type]
    one.want("a", "b")
    first = asyncio.create_task(waits._awaited("a", one, "the segment stage", nobody))
    second = asyncio.create_task(waits._awaited("b", one, "the segment stage", nobody))
    await asyncio.sleep(0.01)
    first.cancel()
    await asyncio.wait({first})
    assert (wire.stopped, second.done()) == (["a"], False)
    second.cancel()
    await asyncio.wait({second})
    assert (wire.stopped, call.cancelled) == (["a"], 1), "the last one to leave cancels the call"


async def test_what_nobody_asks_for_is_not_computed_to_its_end(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "UNCLAIMED", 0.1)
    one = LiveCall(call := Call(FOREVER), ModalSettings())  # type: ignore[arg-type]
    wire.events = [RemoteEvent(key="segment", answer=RemoteAnswer(next=("asr",)))]
    await one.answer("segment", nobody)
    await asyncio.sleep(0.05)
    seen = call.cancelled
    await asyncio.sleep(0.3)
    assert (seen, call.cancelled) == (0, 1)


@pytest.mark.parametrize("operation", ["reload", "commit"])
async def test_a_volume_that_refuses_for_now_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, operation: str
) -> None:
    """Modal refuses to reload while any file of the volume is open, and to commit beside another commit."""

    class Refusing:
        def reload(self) -> None:
            raise RuntimeError("there are open files preventing the operation")

        def commit(self) -> None:
            raise exception.ConflictError("commit conflict")

    monkeypatch.setattr("infra.on_modal.worker.DATA_PATH", str(tmp_path / "volume"))
    store = VolumeStore(Refusing(), tmp_path / "scratch")  # type: ignore[arg-type]
    (source := tmp_path / "words.json").write_text("{}")
    with pytest.raises(TransientError, match="refused a container for now"):
        if operation == "commit":
            store.put(source, "asr")
            store.commit()
        else:
            with store.local(ArtifactRef(kind="asr", path="artifacts/asr/00/missing.json", sha256="0" * 64, bytes=2)):
                pass
