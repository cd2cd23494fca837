"""Each fault switch, and what the real client makes of it: the table of the package's docstring."""

from __future__ import annotations

import time
from typing import Any

import modal
import pytest
from modal import exception

from .client import ModalServer

pytestmark = pytest.mark.slow


def work() -> modal.Function[..., Any, Any]:
    return modal.Function.from_name("sample", "work")


def outcomes(server: ModalServer) -> list[str]:
    return [attempt["outcome"] for attempt in server.calls_of("work")[-1]["attempts"]]


@pytest.mark.parametrize(("kind", "spawned"), [("kill", False), ("kill", True), ("preempt", True), ("oom", False)])
def test_an_input_whose_container_dies_is_run_again(server: ModalServer, kind: str, spawned: bool) -> None:
    server.fault(kind, "work", after=0.1)
    result = work().spawn(0.4).get(timeout=60) if spawned else work().remote(0.4)
    assert result == 0.4
    assert outcomes(server) == [{"kill": "killed", "preempt": "preempted", "oom": "oom"}[kind], "succeeded"]
    assert len({attempt["container_id"] for attempt in server.calls[-1]["attempts"]}) == 2


def test_it_is_run_again_as_often_as_need_be(server: ModalServer) -> None:
    server.fault("kill", "work", after=0, count=2)
    assert work().remote(0.3) == 0.3
    assert outcomes(server) == ["killed"] * 2 + ["succeeded"]
    assert len(server.faults[0]["hits"]) == 2


def test_a_container_that_dies_before_it_takes_the_input(server: ModalServer) -> None:
    server.fault("boot", "work")
    assert work().remote(0) == 0
    assert outcomes(server) == ["succeeded"]


def test_running_out_of_memory_for_good(server: ModalServer) -> None:
    server.fault("oom", "work", final=True, after=0.1)
    with pytest.raises(exception.RemoteError, match="out of memory"):
        work().remote(5)
    assert server.calls[-1]["state"] == "oom"


def test_the_functions_time_out(server: ModalServer) -> None:
    with pytest.raises(exception.FunctionTimeoutError):
        modal.Function.from_name("sample", "too_long").remote()
    server.fault("timeout", "work", after=0.1)
    with pytest.raises(exception.FunctionTimeoutError):
        work().spawn(10).get(timeout=60)
    assert outcomes(server) == ["timed out"]


def test_failing_the_first_inputs(server: ModalServer) -> None:
    server.fault("fail", "work", count=2)
    for _ in range(2):
        with pytest.raises(exception.InternalFailure):
            work().remote(0)
    assert work().remote(0) == 0


def test_a_delay(server: ModalServer) -> None:
    server.fault("delay", "work", seconds=0.6)
    call = work().spawn(0)
    with pytest.raises(TimeoutError):
        call.get(timeout=0.1)
    assert call.get(timeout=30) == 0


def test_an_expired_result(server: ModalServer) -> None:
    server.fault("expire", "work")
    call = work().spawn(0)
    server.until(lambda: server.calls[-1]["expired"])
    with pytest.raises(exception.OutputExpiredError):
        call.get(timeout=0)


STATUSES = {
    "RESOURCE_EXHAUSTED": exception.ResourceExhaustedError,
    "PERMISSION_DENIED": exception.PermissionDeniedError,
    "UNAUTHENTICATED": exception.AuthError,
    "NOT_FOUND": exception.NotFoundError,
    "INVALID_ARGUMENT": exception.InvalidError,
    "FAILED_PRECONDITION": exception.ConflictError,
    "INTERNAL": exception.InternalError,
    "UNAVAILABLE": exception.ServiceError,
}


@pytest.mark.parametrize(("status", "raised"), STATUSES.items())
def test_a_refused_call(server: ModalServer, status: str, raised: type[Exception]) -> None:
    before = len(server.calls)
    server.fault("refuse", "work", status=status, count=4, message="no, thank you")
    with pytest.raises(raised, match="no, thank you"):
        work().spawn(0)
    assert len(server.calls) == before


def test_a_server_that_says_when_to_come_back_is_asked_again(server: ModalServer) -> None:
    server.fault("refuse", "work", status="RESOURCE_EXHAUSTED", retry_after=0.2, count=2)
    assert work().remote(0) == 0


def test_other_requests_can_be_refused(server: ModalServer) -> None:
    server.fault("refuse", "work", rpc="FunctionGet", status="PERMISSION_DENIED")
    with pytest.raises(exception.PermissionDeniedError):
        work().remote(0)


def test_a_short_break_of_the_connection_is_not_noticed(server: ModalServer) -> None:
    server.fault("disconnect", "work", after=0.1, seconds=0)
    assert work().remote(0.5) == 0.5
    assert outcomes(server) == ["succeeded"]


def test_a_long_break_is_and_the_call_goes_on(server: ModalServer) -> None:
    call = work().spawn(0.5)
    server.until(lambda: server.calls[-1]["state"] == "running")
    server.go_away(2.0)
    with pytest.raises(exception.ConnectionError):
        call.get(timeout=30)
    time.sleep(2.0)
    assert modal.FunctionCall.from_id(call.object_id).get(timeout=30) == 0.5
    assert outcomes(server) == ["succeeded"]


def test_a_lost_reply_does_not_make_a_second_call(server: ModalServer) -> None:
    before = len(server.calls)
    server.fault("lose", "work", rpc="FunctionMap", seconds=0)
    assert work().remote(0) == 0
    assert len(server.calls) == before + 1


def test_an_unknown_fault_is_refused(server: ModalServer) -> None:
    with pytest.raises(ValueError, match="there is no fault 'explode'"):
        server.fault("explode")
