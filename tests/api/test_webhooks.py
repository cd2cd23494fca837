"""Webhooks, as receivers meet them: a served API, a real Prefect server, a courier that is killed, a receiver that fails.

Most jobs here end by being cancelled in Prefect, as an operator would, while no worker is at work: an end like any other.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import Webhook

from api import keys
from deployments import processes
from deployments.processes import Child
from infra import webhooks
from infra.store import Store
from tests.api.live import LiveApi
from tests.api.receiver import HANG, HUGE, REDIRECT, Message, Receiver
from tests.deployed import _kill

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

TOKEN = "T0ken-of-the-address"
"""Part of every address here; nobody but the receiver may ever be shown it."""
SETTINGS = {
    "STENO_NET__ALLOW_HOSTS": '["127.0.0.1"]',
    "STENO_WEBHOOKS__DELAYS": "[2, 0.5]",
    "STENO_WEBHOOKS__TIMEOUT": "3",
    "STENO_WEBHOOKS__POLL": "0.3",
}


@dataclass
class Told:
    """All that is needed to be told of ends of jobs."""

    live: LiveApi
    receiver: Receiver
    courier: Child
    store: Store
    owner: str
    """The id of the key that everything is asked with."""
    other: str
    """Somebody else's key."""
    patient: Child
    """The courier as it would be with hours between attempts; started by the test that wants it."""

    def submit(self, path: str, **options: Any) -> str:
        """The id of a new job whose end is told to that path of the receiver."""
        body = {"audio_url": self.live.recording(), "webhook_url": f"{self.receiver.url}{path}?token={TOKEN}"} | options
        return self.live.submit(body)

    def canceled(self, path: str, state: str = "CANCELLED", **options: Any) -> str:
        """The id of such a job that has been cancelled in Prefect."""
        job = self.submit(path, **options)
        self.live.deployed.call("POST", f"/flow_runs/{job}/set_state", state={"type": state}, force=True)
        return job

    def between_attempts(self) -> None:
        """Wait until the latest delivery waits for its next attempt."""
        deadline = time.monotonic() + 60
        while self.live.deployed.runs("notify/webhook", sort="EXPECTED_START_TIME_DESC")[0]["state_name"] != "AwaitingRetry":
            assert time.monotonic() < deadline
            time.sleep(0.1)

    def webhook(self, job: str, until: Callable[[dict[str, Any]], bool], timeout: float = 90) -> dict[str, Any]:
        """What the API says of telling about the job, once that is so."""
        deadline, found = time.monotonic() + timeout, None
        while time.monotonic() < deadline:
            found = self.live.job(job).get("webhook")
            if found is not None and until(found):
                return dict(found)
            time.sleep(0.2)
        raise AssertionError(f"{found}\ncourier: {self.courier.log.read_text()[-3000:]}")

    def ended(self, job: str) -> dict[str, Any]:
        return self.webhook(job, lambda found: found["status"] != "pending")

    def secret(self, *options: str) -> str:
        """What an operator finds out for the owner."""
        command = [sys.executable, "-m", "stenoflow.cli.main", "keys", "webhook-secret", "tester", *options]
        done = subprocess.run(command, env=self.live.env, capture_output=True, text=True, check=True, timeout=120)
        return done.stdout.strip()

    def current_secret(self) -> str:
        return webhooks.current_secret(self.store, self.owner).secret

    def others(self, method: str, path: str) -> Any:
        return self.live.request(method, path, headers={"Authorization": f"Bearer {self.other}"})


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    home = tmp_path_factory.mktemp("webhooks")
    store = Store(str(home / "steno" / "store"), home / "scratch")
    made, other = keys.make(store, "tester"), keys.make(store, "other")
    with Receiver.listening() as receiver, LiveApi.start(home, SETTINGS, worker=False) as live:
        live.headers["Authorization"] = f"Bearer {made.secret}"
        courier = processes.courier("stenoflow-webhooks", "courier", live.env, home / "courier.log")
        hours = live.env | {"STENO_WEBHOOKS__DELAYS": "[3600]"}
        patient = processes.courier("stenoflow-webhooks", "patient", hours, home / "patient.log")
        with contextlib.ExitStack() as stack:
            for child in (courier, patient):
                stack.callback(child.stop, 10)
            courier.start()
            yield Told(live, receiver, courier, store, made.key.id, other.secret, patient)


def verified(message: Message, secret: str) -> dict[str, Any]:
    """The message, once the reference implementation has accepted its signature."""
    found: dict[str, Any] = Webhook(secret).verify(message.body, message.headers)
    return found


def test_the_end_of_a_job_is_told_thinly_and_signed(told: Told) -> None:
    live = told.live
    job = told.submit("/done", metadata={"order": "N° 7"}, tags=["sales"])
    assert "webhook" not in live.job(job), "it has not ended"
    live.deployed.restart_worker()
    try:
        assert live.ended(job, 240)["status"] == "completed"
    finally:
        live.deployed.kill_worker()
    secret = told.current_secret()
    [message] = told.receiver.got("/done", 1)
    body = verified(message, secret)
    assert set(body) == {"type", "timestamp", "data"} and body["type"] == "transcribe.completed"
    where = f"/transcribes/{job}"
    assert body["data"] == {"job_id": job, "status": "completed", "url": where, "metadata": {"order": "N° 7"}}
    assert "morning" in live.get(f"{where}.txt").text and b"morning" not in message.body
    assert message.headers["content-type"] == "application/json"

    said = told.ended(job)
    assert said["id"] == message.headers["webhook-id"] and said["job_id"] == job
    assert (said["status"], said["attempts"], said["type"]) == ("delivered", 1, body["type"])

    # A rotated secret and the one before both verify for a while.
    rotated = told.secret("--rotate")
    again = told.canceled("/rotated")
    failed = told.canceled("/rotated", "FAILED")
    kinds = {told.ended(one)["type"] for one in (again, failed)}
    messages = told.receiver.got("/rotated", 2)
    assert {verified(message, rotated)["type"] for message in messages} == kinds
    assert {verified(message, secret)["type"] for message in messages} == {"transcribe.canceled", "transcribe.failed"}


def test_attempts_go_on_under_the_same_id_whatever_is_killed_between_them(told: Told) -> None:
    told.receiver.answers("/flaky", 500, 503, 204)
    job = told.canceled("/flaky")
    told.receiver.got("/flaky", 1)
    told.between_attempts()
    _kill(told.courier)
    told.live.kill_api()
    told.live.start_api()
    told.courier.start()
    # On a slow machine it was killed in the next attempt, which counts as crashed after a minute and a half.
    said = told.webhook(job, lambda found: found["status"] != "pending", timeout=240)
    assert said["status"] == "delivered"
    messages = told.receiver.got("/flaky", 3)
    assert {message.headers["webhook-id"] for message in messages} == {said["id"]}
    assert len({message.body for message in messages}) == 1
    times = [int(message.headers["webhook-timestamp"]) for message in messages]
    assert times == sorted(times)
    secret = told.current_secret()
    assert all(verified(message, secret) for message in messages)


@pytest.mark.matrix
def test_an_attempt_whose_courier_is_killed_is_made_again(told: Told) -> None:
    told.receiver.answers("/killed", HANG, 204)
    job = told.canceled("/killed")
    told.receiver.got("/killed", 1)
    _kill(told.courier)
    told.courier.start()
    said = told.webhook(job, lambda found: found["status"] != "pending", timeout=300)
    assert (said["status"], said["attempts"]) == ("delivered", 2)
    assert len({message.headers["webhook-id"] for message in told.receiver.got("/killed", 2)}) == 1


def test_what_is_given_up_is_listed_and_delivered_again_when_asked(told: Told) -> None:
    told.receiver.answers("/dead", 500)
    job = told.canceled("/dead")
    said = told.ended(job)
    assert (said["status"], said["attempts"], said["next_attempt_at"]) == ("dead", 3, None)
    assert said["message"] == "Given up after 3 attempts; last attempt: 127.0.0.1 answered 500."
    dead = told.live.get("/webhooks/dead").json()["webhooks"]
    assert said in dead and {found["status"] for found in dead} == {"dead"}
    mine = told.live.get("/webhooks", params={"job_id": job}).json()["webhooks"]
    assert mine == [said]

    assert told.others("GET", "/webhooks").json() == {"webhooks": [], "next_cursor": None}
    assert told.others("POST", f"/webhooks/{said['id']}/redeliver").status_code == 404

    told.receiver.answers("/dead", 204)
    again = told.live.post(f"/webhooks/{said['id']}/redeliver")
    assert again.status_code == 202 and again.json()["status"] == "pending" and again.json()["id"] == said["id"]
    assert told.ended(job)["status"] == "delivered"
    messages = told.receiver.got("/dead", 4)
    assert {message.headers["webhook-id"] for message in messages} == {said["id"]} and len(messages) == 4
    # What was delivered once can be had again as well, by who has lost it.
    assert told.live.post(f"/webhooks/{said['id']}/redeliver").status_code == 202
    told.receiver.got("/dead", 5)
    unknown = told.live.post("/webhooks/msg_00000000000000000000000000000000/redeliver")
    assert unknown.status_code == 404 and unknown.json()["code"] == "webhook_not_found"


def test_receivers_that_misbehave_hold_nobody_up(told: Told) -> None:
    planned = {"/hang": HANG, "/redirect": REDIRECT, "/gone": 410, "/huge": HUGE, "/well": 204}
    for path, answer in planned.items():
        told.receiver.answers(path, answer)
    jobs = {path: told.canceled(path) for path in planned}
    said = {path: told.ended(job) for path, job in jobs.items()}
    assert {path: (found["status"], found["attempts"]) for path, found in said.items()} == {
        "/hang": ("dead", 3),
        "/redirect": ("dead", 3),
        "/gone": ("dead", 1),
        "/huge": ("delivered", 1),
        "/well": ("delivered", 1),
    }
    assert said["/hang"]["message"].endswith("127.0.0.1 did not answer within 3 s.")
    assert not told.receiver.got("/elsewhere")


def test_lists_are_paged(told: Told) -> None:
    everything = [found["id"] for found in told.live.get("/webhooks", params={"limit": 100}).json()["webhooks"]]
    assert len(everything) >= 6
    seen, cursor = [], None
    for _ in everything:
        page = told.live.get("/webhooks", params={"limit": 2} | ({"cursor": cursor} if cursor else {})).json()
        assert len(page["webhooks"]) <= 2
        seen += [found["id"] for found in page["webhooks"]]
        if (cursor := page["next_cursor"]) is None:
            break
    assert seen == everything


def test_a_deleted_job_is_told_no_more(told: Told) -> None:
    told.courier.stop(10)
    told.patient.start()
    told.receiver.answers("/deleted", 500)
    job = told.canceled("/deleted", metadata={"customer": "somebody"})
    said = told.webhook(job, lambda found: found["attempts"] == 1 and found["message"].startswith("Attempt 1"))
    assert said["next_attempt_at"] is not None
    assert told.live.request("DELETE", f"/transcribes/{job}").status_code == 200
    assert told.live.get("/webhooks", params={"job_id": job}).json()["webhooks"] == []
    assert told.live.post(f"/webhooks/{said['id']}/redeliver").status_code == 404
    runs = json.dumps(told.live.deployed.runs("notify/webhook"))
    assert job not in runs and "somebody" not in runs
    told.patient.stop(10)
    told.courier.start()


def test_an_end_that_nobody_was_there_for_is_told_later(told: Told) -> None:
    told.courier.stop(10)
    job = told.canceled("/later")
    told.courier.start()
    assert told.ended(job)["status"] == "delivered"
    time.sleep(1)
    assert len(told.receiver.got("/later")) == 1


@pytest.mark.matrix
def test_deliveries_outlive_the_server(told: Told) -> None:
    told.receiver.answers("/outlived", 500, 204)
    job = told.canceled("/outlived")
    told.receiver.got("/outlived", 1)
    told.live.deployed.kill_server()
    time.sleep(3)
    told.live.deployed.restart_server()
    said = told.webhook(job, lambda found: found["status"] != "pending", timeout=300)
    assert said["status"] == "delivered"
    assert len({message.headers["webhook-id"] for message in told.receiver.got("/outlived", 2)}) == 1


def test_nothing_secret_was_shown_anywhere(told: Told) -> None:
    """Last: of all that was told above."""
    home: Path = told.live.deployed.home
    shown = {path.name: path.read_text(errors="replace") for path in home.glob("*.log")}
    runs = told.live.deployed.runs("notify/webhook")
    assert runs
    shown["runs"] = json.dumps([*runs, *told.live.deployed.runs("transcribe/one-recording")])
    shown["run logs"] = "".join(told.live.deployed.logs(run["id"]) for run in runs)
    shown["webhooks"] = told.live.get("/webhooks", params={"limit": 100}).text
    secret = told.current_secret().removeprefix("whsec_")
    assert shown["courier.log"] and shown["api.log"] and shown["run logs"]
    for name, text in shown.items():
        for hidden in (TOKEN, "/flaky", "whsec_", secret):
            assert hidden not in text, f"{hidden} in {name}"
    assert "Traceback" not in shown["courier.log"] + shown["api.log"] + shown["run logs"]
