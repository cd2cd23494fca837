"""A job's events, as a browser's EventSource reads them (WHATWG HTML, 9.2): ids, coming back, and an end for good."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from tests.api.live import LiveApi

pytestmark = pytest.mark.slow


class Source:
    """An EventSource: it comes back with the last id after every end, until it is answered with anything but a stream."""

    def __init__(self, live: LiveApi, job: str) -> None:
        self.address = f"{live.url}/transcribes/{job}/events"
        self.last_id = ""
        self.events: list[tuple[str, dict[str, Any]]] = []

    def open(self, most: int = 1000) -> int:
        """Read a stream to its end, or until so many events have come; the answer's status."""
        headers = {"Last-Event-ID": self.last_id} if self.last_id else {}
        with (
            httpx.Client(trust_env=False, timeout=90) as client,
            client.stream("GET", self.address, headers=headers) as stream,
        ):
            name, heard = "", 0
            for line in stream.iter_lines():
                field, _, value = line.partition(": ")
                if field == "event":
                    name = value
                elif field == "id":
                    self.last_id = value
                elif field == "data":
                    self.events.append((name, json.loads(value)))
                    heard += 1
                    if heard == most:
                        break
            return stream.status_code


def test_a_source_that_comes_back_is_told_what_is_new_and_at_the_end_to_stay_away(live_api: LiveApi) -> None:
    live_api.deployed.plan(seconds={"asr": 3})
    source = Source(live_api, live_api.submit({"audio_url": live_api.recording()}))
    opened = 0
    while (status := source.open(most=3)) == 200:
        opened += 1
        assert opened < 100
    assert status == 204 and opened >= 3
    names = [name for name, _ in source.events]
    assert names[-1] == "completed" and names.count("completed") == 1
    told = [(name, json.dumps(data, sort_keys=True)) for name, data in source.events if name != "stage"]
    assert len(told) == len(set(told)), "nothing is told twice"
    states = [(data["stage"], data["state"]) for name, data in source.events if name == "stage"]
    assert len(states) == len(set(states))
    fresh = Source(live_api, source.address.split("/")[-2])
    assert fresh.open() == 200 and [name for name, _ in fresh.events][-1] == "completed"
    assert fresh.open() == 204


def test_a_job_that_was_retried_or_deleted_is_another_story(live_api: LiveApi) -> None:
    live_api.deployed.plan(fail={"asr": {"error": "StageFailed", "message": "out of order"}})
    job = live_api.submit({"audio_url": live_api.recording()})
    source = Source(live_api, job)
    assert source.open() == 200 and source.events[-1][0] == "failed" and source.open() == 204
    live_api.deployed.plan()
    assert live_api.post(f"/transcribes/{job}/retry").status_code == 202
    assert source.open() == 200 and source.events[-1][0] == "completed" and source.open() == 204
    live_api.request("DELETE", f"/transcribes/{job}")
    assert source.open() == 404


@pytest.mark.parametrize("last_id", ["x", "[]", "W10=", "bnVsbA==", "W1tdLHt9LDVd", "WzEsWzFdLFszXV0="])
def test_ids_that_were_made_up_are_no_ids(live_api: LiveApi, last_id: str) -> None:
    job = live_api.submit({"audio_url": live_api.recording()})
    live_api.ended(job)
    source = Source(live_api, job)
    source.last_id = last_id
    assert source.open() == 200 and source.events[-1][0] == "completed"
