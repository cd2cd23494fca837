"""A recording that is deleted is gone: from Prefect's whole database, SQLite or PostgreSQL, from the store and its file names.

A real server, worker and API; the stages are stand-ins that hear known words, which the report is told to show.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests import dumps
from tests.api.live import LiveApi
from tests.postgres import postgres
from tests.stage_double import TEXT

pytestmark = pytest.mark.slow

PRIVATE = (TEXT, "zebratalk", "zebratag", "zebrakey", "zebravalue", "zebracaller", "zebrabroken")
"""What is said, what the recordings are called, and what their owners said of them."""


@dataclass
class Place:
    """A service, and where it keeps things."""

    live: LiveApi
    database: str

    @property
    def store(self) -> Path:
        return self.live.deployed.home / "steno"

    def found(self, words: tuple[str, ...] = PRIVATE) -> dict[tuple[str, str], int]:
        return dict(dumps.found_in(self.database, words))

    def remnants(self) -> dict[tuple[str, str], int]:
        """Also what SQLite leaves in free pages, and in files beside the database."""
        folder = self.live.deployed.home / "prefect"
        return dict(dumps.found_under(self.store, PRIVATE)) | dict(dumps.found_under(folder, PRIVATE))

    def events(self) -> set[str]:
        """What the events are called that are stored."""
        return {one["event"] for one in self.live.deployed.call("POST", "/events/filter")["events"]}

    def settle(self) -> None:
        """Prefect gathers events for some seconds before it writes them."""
        deadline = time.monotonic() + 60
        while "prefect.flow-run.Completed" not in self.events():
            assert time.monotonic() < deadline
            time.sleep(0.2)

    def delete(self, *jobs: str) -> None:
        """As callers do, and wait until the rest is removed."""
        for job in jobs:
            assert self.live.request("DELETE", f"/transcribes/{job}").status_code == 200
        self.wait_for_removal(*jobs)

    def wait_for_removal(self, *jobs: str) -> None:
        deadline = time.monotonic() + 120
        while any("cleaning" in self.live.deployed.run(job)["tags"] for job in jobs):
            assert time.monotonic() < deadline, self.live.log()[-2000:]
            time.sleep(0.2)


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, models_dir: Path) -> Iterator[Place]:
    home = tmp_path_factory.mktemp("erasure")
    env = {"STENO_MODELS_DIR": str(models_dir), "STENO_REPORT__PREVIEW_WORDS": "60"}
    if request.param == "sqlite":
        with LiveApi.start(home, env) as live:
            yield Place(live, str(home / "prefect" / "prefect.db"))
        return
    with postgres() as url:
        asynchronous = url.replace("postgresql://", "postgresql+asyncpg://")
        with LiveApi.start(home, env | {"PREFECT_SERVER_DATABASE_CONNECTION_URL": asynchronous}) as live:
            yield Place(live, url)


def spoken(place: Place, name: str) -> str:
    """The id of a job that has heard the words."""
    marks: dict[str, Any] = {"tags": "zebratag", "metadata": json.dumps({"zebrakey": "zebravalue"})}
    job = place.live.upload(place.live.file(name, seconds=4.0), diarize="true", **marks)
    assert place.live.ended(job)["status"] == "completed"
    return job


def called(place: Place, name: str) -> str:
    """The same through OpenAI's door."""
    with place.live.file(name, seconds=2.0).open("rb") as file, httpx.Client(trust_env=False, timeout=120) as client:
        form = {"model": "whisper-1"}
        answer = client.post(f"{place.live.url}/v1/audio/transcriptions", files={"file": (name, file)}, data=form)
    assert answer.status_code == 200 and TEXT in answer.text, answer.text
    return answer.headers["X-Steno-Job-Id"]


def broken(place: Place, name: str) -> str:
    """The id of a job whose recording is none: its states and logs say so by its name."""
    path = place.live.files / name
    path.write_bytes(b"no sound at all" * 100)
    job = place.live.upload(path)
    assert place.live.ended(job)["status"] == "failed"
    return job


def test_nothing_of_deleted_jobs_is_left_anywhere(place: Place) -> None:
    other = broken(place, "another.wav")
    jobs = [spoken(place, "zebratalk.wav"), called(place, "zebracaller.wav"), broken(place, "zebrabroken.wav")]
    place.settle()
    before = place.found()
    assert {word for _, word in before} == set(PRIVATE), before
    assert {"events", "event_resources", "log", "task_run", "artifact", "artifact_collection"} <= {table for table, _ in before}
    assert {word for _, word in dumps.found_under(place.store, PRIVATE)} >= {TEXT}
    assert not {name for name in place.events() if name.startswith(("prefect.task-run", "prefect.artifact"))}
    place.delete(*jobs)
    assert place.found() == {}
    assert place.remnants() == {}
    left = place.found(("another.wav",))
    assert {"events", "log", "flow_run"} <= {table for table, _ in left}, "other people's jobs are as they were"
    assert place.live.job(other)["status"] == "failed"
    tombstone_is_bare(place, jobs[0])


@pytest.mark.parametrize("place", ["sqlite"], indirect=True)
def test_an_upload_stays_for_the_job_that_is_made_of_it_while_another_is_deleted(place: Place) -> None:
    """The same recording, sent again and again while the job before is deleted."""
    file = place.live.file("zebraagain.wav", seconds=2.0)
    kept = place.live.deployed.home / "steno" / "store" / "uploads"
    jobs = [place.live.upload(file)]
    for _ in range(4):
        with ThreadPoolExecutor(1) as pool:
            again = pool.submit(place.live.upload, file)
            place.live.request("DELETE", f"/transcribes/{jobs[-1]}")
            jobs.append(again.result())
    assert place.live.ended(jobs[-1])["status"] == "completed"
    assert dumps.found_under(kept, ("RIFF",))
    place.delete(jobs[-1])
    place.wait_for_removal(*jobs)
    assert not dumps.found_under(kept, ("RIFF",))


@pytest.mark.parametrize("place", ["sqlite"], indirect=True)
def test_an_address_with_a_secret_goes_with_the_last_job_of_it(place: Place) -> None:
    handles = place.live.deployed.home / "steno" / "store" / "records" / "handles"
    address = f"{place.live.recording('zebrasigned.wav')}?signature=zebrasecret"
    jobs = [place.live.submit({"audio_url": address}), place.live.submit({"audio_url": address, "align": False})]
    for job in jobs:
        assert place.live.ended(job)["status"] == "completed"
    assert dumps.found_under(handles, ("zebrasecret",))
    place.delete(jobs[0])
    assert dumps.found_under(handles, ("zebrasecret",))
    place.delete(jobs[1])
    assert not dumps.found_under(place.store, ("zebrasecret", "zebrasigned"))
    assert place.found(("zebrasecret", "zebrasigned")) == {}


def test_collecting_takes_runs_that_are_past_their_retention_and_no_others(place: Place) -> None:
    deployed, source = place.live.deployed, str(place.live.file("zebratalk.wav", seconds=3.0))
    promised = deployed.submit({"source": source, "retention_days": 0, "formats": []})
    listed = batch_of(place, "zebralisted.wav")
    kept = spoken(place, "another.wav")
    assert deployed.wait(promised)["state_type"] == deployed.wait(listed)["state_type"] == "COMPLETED"
    broken(place, "zebrabroken.wav")
    theirs = another_flow_s_run(place)
    place.settle()
    assert place.found()
    said = collected(place)
    assert said["runs"] == 1
    assert deployed.request("GET", f"/flow_runs/{promised}").status_code == 404
    assert place.live.job(kept)["status"] == "completed"
    assert "zebrabroken" in str(place.found(("zebrabroken",)))
    assert {"artifact", "flow_run", "events"} <= {table for table, _ in place.found(("zebralisted",))}
    said = collected(place, "--older-than", "0")
    assert said["runs"] >= 2 and said["artifacts"] > 0
    assert place.found((*PRIVATE, "another.wav", "zebralisted")) == {}
    assert place.remnants() == {}
    assert deployed.run(theirs)["name"] == "theirs"


def batch_of(place: Place, name: str) -> str:
    """The id of a batch run of one recording, which its table names."""
    folder = place.live.files / "listed"
    folder.mkdir(exist_ok=True)
    place.live.file(name, seconds=2.0).rename(folder / name)
    request = {"source": str(folder), "output_dir": str(place.live.deployed.home / "out"), "options": {"formats": []}}
    return place.live.deployed.submit(request, "batch/folder-or-feed")


def another_flow_s_run(place: Place) -> str:
    """An ended run that is none of ours."""
    flow = place.live.deployed.call("POST", "/flows/", name="theirs")["id"]
    made = place.live.deployed.call("POST", "/flow_runs/", flow_id=flow, name="theirs", state={"type": "COMPLETED"})
    return str(made["id"])


def collected(place: Place, *options: str) -> dict[str, Any]:
    """`steno gc` beside the server."""
    command = [sys.executable, "-m", "stenoflow.cli.main", "gc", "--json", *options]
    done = subprocess.run(command, env=place.live.env, capture_output=True, text=True, timeout=200, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def tombstone_is_bare(place: Place, job: str) -> None:
    """It says that there was a job, whose it was, and no more."""
    assert place.live.get(f"/transcribes/{job}").json()["code"] == "job_deleted"
    run = place.live.deployed.run(job)
    assert (run["name"], run["parameters"]) == ("deleted", {})
    assert {tag.partition(":")[0] for tag in run["tags"]} == {"stenoflow", "deleted-of", "payload"}
    assert place.live.deployed.task_runs(job) == place.live.deployed.artifacts(job) == []
    assert place.live.deployed.logs(job) == ""
    assert place.live.deployed.states(job) == ["Completed"]
