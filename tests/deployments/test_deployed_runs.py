"""Runs as an operator has them: a real server, a real worker, the calls that the UI makes."""

from __future__ import annotations

import contextlib
import os
import signal
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from deployments.automations import CANCELLED, ZOMBIES
from deployments.worker import PUT_BACK
from flows.attempts import RESTARTED
from infra.settings import StenoSettings
from tests.deployed import Deployed
from tests.deployments.conftest import Webhook

pytestmark = pytest.mark.slow
EACH_ONCE = Counter(["segment", "asr", "align", "embed", "cluster", "merge"])


def until(there: Callable[[], Any], timeout: float = 150) -> Any:
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        with contextlib.suppress(httpx.HTTPError):
            if found := there():
                return found
        time.sleep(0.2)
    raise AssertionError(f"not there after {timeout:.0f} s")


def at_work(deployed: Deployed, request: dict[str, Any]) -> str:
    """A run whose asr has begun."""
    since = time.time()
    run = deployed.submit(request)
    deployed.wait_for_stage("asr", after=since)
    return run


def stages_since(deployed: Deployed, before: Counter[str]) -> Counter[str]:
    return deployed.executions() - before


def test_a_run_made_in_the_form_is_transcribed_and_a_failed_diarization_is_retried_alone(
    deployed: Deployed, recording: Path
) -> None:
    before = deployed.executions()
    deployed.plan(fail={"cluster": {"error": "OutOfMemory", "message": "no memory is left"}})
    run = deployed.submit({"source": str(recording), "max_speakers": 2, "formats": ["json", "srt"], "output_dir": "calls"})
    failed = deployed.wait(run, {"FAILED"})
    assert failed["name"] == recording.name
    assert failed["state_name"] == "Partial"
    assert "without speakers" in failed["state"]["message"]
    workdir = Path(deployed.env["STENO_HOME"], "transcripts", "calls")
    assert sorted(path.name for path in workdir.iterdir()) == [f"{recording.stem}.json", f"{recording.stem}.srt"]

    deployed.plan()
    after_failure = deployed.executions()
    deployed.retry(run)
    deployed.wait(run, {"COMPLETED"})
    assert stages_since(deployed, after_failure) == Counter(["cluster", "merge"])
    assert stages_since(deployed, before)["asr"] == stages_since(deployed, before)["align"] == 1
    assert "SPEAKER_02" in (workdir / f"{recording.stem}.json").read_text()

    before = deployed.executions()
    again = deployed.submit({"source": str(recording), "max_speakers": 2})
    deployed.wait(again, {"COMPLETED"})
    assert not stages_since(deployed, before)


def test_runs_above_the_limit_wait_for_their_turn_whatever_is_killed(on_sqlite: Deployed, recording: Path) -> None:
    before = on_sqlite.executions()
    on_sqlite.plan(seconds={"asr": 120})
    first = at_work(on_sqlite, {"source": str(recording), "language": "english"})
    on_sqlite.kill_server()
    on_sqlite.restart_server()
    second = on_sqlite.submit({"source": str(recording), "language": "french"})
    until(lambda: "AwaitingConcurrencySlot" in on_sqlite.states(second))
    assert on_sqlite.run(first)["state_type"] == "RUNNING"

    on_sqlite.plan()
    on_sqlite.kill_flow(first)  # its place becomes free, for the other or for itself
    for run in (first, second):
        on_sqlite.wait(run, {"COMPLETED"})
    assert on_sqlite.states(first).count("Crashed") == 1
    assert stages_since(on_sqlite, before)["asr"] == 3


def test_a_stopped_worker_puts_its_run_back_into_the_queue(on_sqlite: Deployed, recording: Path) -> None:
    on_sqlite.plan(seconds={"asr": 60})
    run = at_work(on_sqlite, {"source": str(recording)})
    on_sqlite.worker.stop(60)
    assert on_sqlite.worker.exit_code == 0
    assert not on_sqlite.flow_pids(run)
    state = on_sqlite.run(run)["state"]
    assert (state["name"], state["message"]) == ("AwaitingRetry", PUT_BACK)

    on_sqlite.plan()
    on_sqlite.restart_worker()
    on_sqlite.wait(run, {"COMPLETED"})
    assert on_sqlite.states(run).count("AwaitingRetry") == 1
    assert "Crashed" not in on_sqlite.states(run)


def test_a_run_whose_worker_and_process_were_killed_is_noticed_reported_and_restarted(
    on_sqlite: Deployed, recording: Path, webhook: Webhook
) -> None:
    on_sqlite.plan(seconds={"asr": 60})
    with noticed_within(on_sqlite, 25, ZOMBIES):
        since = time.time()
        run = at_work(on_sqlite, {"source": str(recording), "name": "lost call"})
        on_sqlite.wait_for_stage("cluster", "end", after=since)
        before = on_sqlite.executions()
        on_sqlite.kill_worker()
        on_sqlite.kill_flow(run)
        state = until(lambda: (found := on_sqlite.run(run)["state"])["name"] == "AwaitingRetry" and found)
    assert state["message"] == RESTARTED
    told = until(lambda: [sent for sent in webhook.received if "lost call" in sent["subject"] and "Crashed" in sent["subject"]])
    assert "No heartbeat" in told[0]["body"]
    # Nobody is there to take another: that is reported as well.
    waiting = on_sqlite.submit({"source": str(recording)})
    until(lambda: [sent for sent in webhook.received if waiting in sent["body"] and "Late" in sent["subject"]])

    on_sqlite.plan()
    on_sqlite.restart_worker()
    for each in (run, waiting):
        on_sqlite.wait(each, {"COMPLETED"})
    assert stages_since(on_sqlite, before) == Counter(["asr", "align", "merge"])
    assert on_sqlite.states(run).count("Crashed") == 1


def test_runs_cancelled_while_they_are_started_end_and_give_their_place_back(on_sqlite: Deployed, recording: Path) -> None:
    on_sqlite.plan(seconds={"asr": 120})
    cancelled = []
    for _ in range(3):
        run = on_sqlite.submit({"source": str(recording)})
        until(lambda run=run: "Pending" in on_sqlite.states(run))  # type: ignore[misc]
        on_sqlite.cancel(run)
        cancelled.append(run)
    for run in cancelled:
        on_sqlite.wait(run, {"CANCELLED"})
    on_sqlite.plan()
    on_sqlite.wait(on_sqlite.submit({"source": str(recording)}), {"COMPLETED"})


def test_a_run_cancelled_with_nobody_left_to_end_it_ends(on_sqlite: Deployed, recording: Path) -> None:
    on_sqlite.plan(seconds={"asr": 60})
    run = at_work(on_sqlite, {"source": str(recording)})
    with noticed_within(on_sqlite, 10, CANCELLED):
        on_sqlite.kill_worker()
        on_sqlite.kill_flow(run)
        on_sqlite.cancel(run)
        on_sqlite.wait(run, {"CANCELLED"})
    on_sqlite.plan()
    on_sqlite.restart_worker()


@contextlib.contextmanager
def noticed_within(deployed: Deployed, seconds: int, automation: str) -> Iterator[None]:
    """What an operator may set at the automation itself; our setting does not go as low, since no run would live on a busy
    machine."""
    [found] = [found for found in deployed.call("POST", "/automations/filter") if found["name"] == automation]
    body = {key: found[key] for key in ("name", "description", "enabled", "trigger", "actions")}
    path = f"/automations/{found['id']}"
    deployed.call("PUT", path, **body | {"trigger": body["trigger"] | {"within": seconds}})
    try:
        yield
    finally:
        deployed.call("PUT", path, **body)


def test_a_run_that_cannot_succeed_is_reported_once_without_secrets(
    on_sqlite: Deployed, tmp_path: Path, webhook: Webhook
) -> None:
    run = on_sqlite.submit({"source": str(tmp_path / "gone.wav")})
    on_sqlite.wait(run, {"FAILED"})
    until(lambda: [sent for sent in webhook.received if "gone.wav" in sent["subject"]])
    [sent] = [sent for sent in webhook.received if "gone.wav" in sent["subject"]]
    assert "Failed" in sent["subject"]
    assert run in sent["body"]  # the address of the run's page
    [block] = on_sqlite.call("POST", "/block_documents/filter", block_documents={"is_anonymous": {"eq_": False}})
    assert "secret-token" not in str(block)


def test_registering_again_changes_nothing_and_keeps_what_an_operator_paused(on_sqlite: Deployed) -> None:
    nightly = on_sqlite.deployments["batch/nightly"]
    [schedule] = on_sqlite.call("GET", f"/deployments/{nightly}/schedules")
    on_sqlite.call("PATCH", f"/deployments/{nightly}/schedules/{schedule['id']}", active=False)
    automations = on_sqlite.call("POST", "/automations/filter")
    on_sqlite.call("PATCH", f"/automations/{automations[0]['id']}", enabled=False)
    assert {change.what for change in on_sqlite.deploy()} == {"unchanged"}

    on_sqlite.env["STENO_DEPLOY__NIGHTLY_CRON"] = "0 5 * * *"
    changed = [change.name for change in on_sqlite.deploy() if change.what != "unchanged"]
    assert changed == ["batch/nightly"]
    [schedule] = on_sqlite.call("GET", f"/deployments/{nightly}/schedules")
    assert schedule["schedule"]["cron"] == "0 5 * * *"
    assert not schedule["active"]
    paused = [found["name"] for found in on_sqlite.call("POST", "/automations/filter") if not found["enabled"]]
    assert paused == [automations[0]["name"]]
    on_sqlite.call("PATCH", f"/automations/{automations[0]['id']}", enabled=True)


REFUSED = [
    ({}, "'source' is a required property"),
    ({"source": ""}, "'' should be non-empty"),
    ({"source": "a.wav", "max_speakers": 0}, "0 is less than the minimum of 1"),
    ({"source": "a.wav", "max_speakers": 101}, "101 is greater than the maximum of 100"),
    ({"source": "a.wav", "task": "sing"}, "'sing' is not one of ['transcribe', 'translate']"),
    ({"source": "a.wav", "formats": ["pdf"]}, "'pdf' is not one of"),
    ({"source": "a.wav", "language": "klingon"}, "'klingon' is not valid under any of the given schemas"),
    ({"source": "a.wav", "speakers": 2}, "'speakers' was unexpected"),
]


@pytest.mark.parametrize(("request_", "reason"), REFUSED, ids=[reason for _, reason in REFUSED])
def test_wrong_values_are_refused_when_the_run_is_made(on_sqlite: Deployed, request_: dict[str, Any], reason: str) -> None:
    path = f"/deployments/{on_sqlite.deployments['transcribe/one-recording']}/create_flow_run"
    answer = on_sqlite.request("POST", path, parameters={"request": request_}, state={"type": "SCHEDULED"})
    assert answer.status_code == 409
    assert reason in answer.json()["detail"]
    assert "request" in answer.json()["detail"]


def test_fields_may_be_left_empty_or_null_and_languages_may_be_several(on_sqlite: Deployed) -> None:
    path = f"/deployments/{on_sqlite.deployments['transcribe/one-recording']}/create_flow_run"
    request = {"source": "a.wav", "max_speakers": None, "initial_prompt": None, "language": "en,fr"}
    state = {"type": "SCHEDULED", "state_details": {"scheduled_time": "2999-01-01T00:00:00Z"}}
    assert on_sqlite.request("POST", path, parameters={"request": request}, state=state).status_code == 201


def test_every_deployment_is_registered_with_a_version_and_tags(on_sqlite: Deployed) -> None:
    names = {
        "transcribe/one-recording",
        "transcribe/recording-of-batch",
        "batch/folder-or-feed",
        "batch/nightly",
        "gc/clean-up",
        "evaluate/compare-models",
    }
    assert set(on_sqlite.deployments) == {*names, "notify/webhook"}
    for name, id_ in on_sqlite.deployments.items():
        found = on_sqlite.call("GET", f"/deployments/{id_}")
        assert found["version"] and found["tags"] and found["description"]
        # Webhooks have a pool of their own: recordings cannot keep them waiting.
        assert found["work_pool_name"] == StenoSettings().deploy.pool + ("-webhooks" if name == "notify/webhook" else "")
        assert found["concurrency_options"]["collision_strategy"] == "ENQUEUE"
        assert not found["pull_steps"]
    nightly = on_sqlite.call("GET", f"/deployments/{on_sqlite.deployments['batch/nightly']}")
    assert nightly["parameters"]["request"]["options"] == {"language": "fr"}


def test_events_that_come_again_are_kept_once(on_sqlite: Deployed) -> None:
    """As clients send them after a reconnection."""

    def event(name: str) -> dict[str, Any]:
        known = {"event": "call.heard", "resource": {"prefect.resource.id": f"call.{name}"}}
        return known | {"id": str(uuid.uuid5(uuid.NAMESPACE_URL, name)), "occurred": datetime.now(UTC).isoformat()}

    def kept() -> set[str]:
        found = on_sqlite.call("POST", "/events/filter", filter={"event": {"name": ["call.heard"]}})["events"]
        assert len({one["id"] for one in found}) == len(found)
        return {one["resource"]["prefect.resource.id"] for one in found}

    for name in ("first", "first", "second"):
        httpx.post(f"{on_sqlite.url}/events", json=[event(name)], trust_env=False).raise_for_status()
        until(lambda name=name: f"call.{name}" in kept())  # type: ignore[misc]
    assert "dropping" not in on_sqlite.tail("server", 1000)


def test_nothing_is_left_when_the_worker_s_parent_is_killed(on_sqlite: Deployed) -> None:
    """`steno up` holds the worker's standard input; here the test does."""
    pid = on_sqlite.worker.pid
    process = on_sqlite.worker._process
    assert process is not None and process.stdin is not None
    process.stdin.close()
    assert process.wait(30) == 0
    assert not psutil.pid_exists(pid)
    on_sqlite.restart_worker()
    os.kill(on_sqlite.worker.pid, signal.SIGCONT)


@pytest.mark.matrix
def test_a_machine_that_slept_has_not_crashed_its_runs(on_sqlite: Deployed, recording: Path) -> None:
    """Server, worker and run stop for longer than the automation waits for a sign of life, and go on."""
    on_sqlite.plan(seconds={"asr": 45})
    with noticed_within(on_sqlite, 40, ZOMBIES):
        since = time.time()
        run = at_work(on_sqlite, {"source": str(recording), "name": "on a laptop"})
        on_sqlite.wait_for_stage("asr", after=since)
        asleep = [on_sqlite.server.pid, on_sqlite.worker.pid, *on_sqlite.flow_pids(run)]
        for pid in asleep:
            os.kill(pid, signal.SIGSTOP)
        time.sleep(60)
        for pid in asleep:
            os.kill(pid, signal.SIGCONT)
        on_sqlite.wait(run, {"COMPLETED"}, timeout=200)
    assert "Crashed" not in on_sqlite.states(run)
