"""Calls of every kind, made by the real client and run by the real container runtime."""

from __future__ import annotations

import asyncio
import urllib.request
from typing import Any

import modal
import pytest
from modal.exception import NotFoundError, RemoteError, UnimplementedError

from .client import ModalServer

pytestmark = pytest.mark.slow

APP = "sample"


def function(name: str) -> modal.Function[..., Any, Any]:
    return modal.Function.from_name(APP, name)


def test_a_call_and_its_print(server: ModalServer) -> None:
    assert function("add").remote(2, 3) == 5
    call = server.calls_of("add")[-1]
    assert call["state"] == "succeeded"
    assert not call["spawned"]
    server.until(lambda: server.logs(call=call["id"]) == "adding 2 and 3\n")


def test_a_spawned_call_is_found_again_by_its_id(server: ModalServer) -> None:
    call = function("add").spawn(4, 5)
    assert modal.FunctionCall.from_id(call.object_id).get(timeout=30) == 9
    assert modal.FunctionCall.from_id(call.object_id).get(timeout=0) == 9
    with pytest.raises(NotFoundError):
        modal.FunctionCall.from_id("fc-0000000000000000000000").get(timeout=0)


def test_a_calls_own_logs_reach_the_client(server: ModalServer) -> None:
    call = function("add").spawn(6, 7)
    assert "adding 6 and 7" in "".join(entry.message for entry in call.logs.stream(timeout=20))
    assert "adding 6 and 7" in "".join(entry.message for entry in modal.FunctionCall.from_id(call.object_id).logs.tail())


def test_map_keeps_the_order_and_gives_exceptions(server: ModalServer) -> None:
    assert list(function("add").map(range(8), range(8))) == [2 * number for number in range(8)]
    outcomes = list(function("refuse").map([7], return_exceptions=True))
    assert [str(each) for each in outcomes] == ["7 is not wanted"]


def test_the_functions_own_exception_comes_back(server: ModalServer) -> None:
    with pytest.raises(ValueError, match="3 is not wanted"):
        function("refuse").remote(3)
    assert server.calls_of("refuse")[-1]["state"] == "failed"


def test_retries_are_the_clients_for_remote_and_the_servers_for_spawn(server: ModalServer) -> None:
    assert function("third_time_lucky").remote("remote") == 3
    assert function("third_time_lucky").spawn("spawn").get(timeout=60) == 3
    outcomes = [[each["outcome"] for each in call["attempts"]] for call in server.calls_of("third_time_lucky")[-2:]]
    assert outcomes == [["failed", "failed", "succeeded"]] * 2


def test_a_generator_streams(server: ModalServer) -> None:
    assert list(function("count").remote_gen(5)) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(("size", "by_blob"), [(1_000, False), (20_000, True), (5_000_000, True)])
def test_large_data_travels_by_url_both_ways(server: ModalServer, size: int, by_blob: bool) -> None:
    data = bytes(range(256)) * (size // 256)
    assert function("echo").spawn(data).get(timeout=60) == data
    assert server.calls_of("echo")[-1]["inputs"][0]["by_blob"] is by_blob


def test_a_function_calls_another(server: ModalServer) -> None:
    assert function("through").remote(1) == 5


def test_parameters_and_options_have_containers_of_their_own(server: ModalServer) -> None:
    speaker = modal.Cls.from_name(APP, "Speaker")
    assert speaker().greet.remote("you") == "Hello, you"
    assert speaker(greeting="Salut").greet.remote("toi") == "Salut, toi"
    assert speaker.with_options(gpu="L40S", timeout=60)().greet.remote("gpu") == "Hello, gpu"
    calls = server.calls_of("Speaker.greet")[-3:]
    assert len({call["container"] for call in calls}) == 3
    assert [call["gpu"] for call in calls] == [[], [], ["L40S"]]


def test_inputs_run_together_up_to_the_concurrency(server: ModalServer) -> None:
    together = modal.Cls.from_name(APP, "Speaker")(greeting="Hi").together

    async def three() -> list[int]:
        return list(await asyncio.gather(*(together.remote.aio(0.4) for _ in range(3))))

    assert asyncio.run(three()) == [3, 3, 3]
    assert len({call["container"] for call in server.calls_of("together")[-3:]}) == 1


def test_an_idle_container_leaves_after_its_window_through_exit(server: ModalServer) -> None:
    assert modal.Cls.from_name(APP, "Speaker")(greeting="Bye").greet.remote("you") == "Bye, you"
    container = server.calls_of("Speaker.greet")[-1]["container"]
    server.until(lambda: next(each for each in server.containers if each["id"] == container)["state"] == "dead", 30)
    ended = next(each for each in server.containers if each["id"] == container)
    assert (ended["reason"], ended["exit_code"]) == ("idle", 0)
    assert server.logs(container=container) == "entered\nleft\n"


def test_batches(server: ModalServer) -> None:
    assert list(function("doubled").map(range(3))) == [0, 2, 4]


def test_a_web_endpoint(server: ModalServer) -> None:
    url = function("hello").get_web_url()
    with urllib.request.urlopen(f"{url}?name=you", timeout=60) as response:
        assert response.read() == b'{"hello":"you"}'


def test_cancelling_ends_the_input_at_once(server: ModalServer) -> None:
    function("work").remote(0)
    call = function("work").spawn(60)
    server.until(lambda: server.calls[-1]["state"] == "running")
    call.cancel()
    with pytest.raises(RemoteError):
        call.get(timeout=10)
    server.until(lambda: server.calls[-1]["released"], 5)
    assert server.calls[-1]["state"] == "cancelled"
    assert function("work").remote(0) == 0, "the container is used on"


def test_what_does_not_let_itself_be_cancelled_is_killed(server: ModalServer) -> None:
    call = function("stubborn").spawn(60)
    server.until(lambda: server.calls[-1]["state"] == "running")
    call.cancel()
    server.until(lambda: server.calls[-1]["released"], 10)
    assert next(each for each in server.containers if each["id"] == server.calls[-1]["container"])["reason"] == "cancelled"


def test_what_waits_for_a_container_can_be_cancelled(server: ModalServer) -> None:
    server.fault("delay", "work", seconds=60)
    call = function("work").spawn(1)
    with pytest.raises(TimeoutError):
        call.get(timeout=0.2)
    call.cancel()
    with pytest.raises(RemoteError):
        call.get(timeout=10)
    assert server.calls[-1]["attempts"] == []


def test_a_start_that_fails_gives_the_call_what_it_raised(server: ModalServer) -> None:
    with pytest.raises(OSError, match="the weights are not there"):
        modal.Cls.from_name(APP, "Broken")().use.remote()
    assert server.calls[-1]["attempts"] == []


def test_modal_run_and_modal_app_logs(server: ModalServer) -> None:
    assert "the sum is 5" in server.modal("run", "-m", "tests.modal_server.sample_app", "--a", "4")
    function("add").remote(20, 30)
    server.until(lambda: "adding 20 and 30" in server.logs())
    printed = server.modal("app", "logs", APP)
    assert "adding 20 and 30" in printed
    assert "adding 4 and 1" not in printed, "that was an app of its own"


@pytest.mark.parametrize(
    ("app", "name", "message"),
    [("sample", "nothing", "has no function"), ("nowhere", "add", "not found"), ("sample", "Speaker", "is a modal.Cls")],
)
def test_an_unknown_name_says_so(server: ModalServer, app: str, name: str, message: str) -> None:
    with pytest.raises(NotFoundError, match=message):
        modal.Function.from_name(app, name).remote()


def test_a_request_that_the_server_does_not_know_is_unimplemented(server: ModalServer) -> None:
    with pytest.raises(UnimplementedError, match="does not answer SandboxCreate"):
        modal.Sandbox.create("true", app=modal.App.lookup("sample"))
