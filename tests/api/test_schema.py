"""The service held to its own OpenAPI document by schemathesis: no 5xx, and every answer as it is documented.

The requests are written to a real process of the API. No worker is at work meanwhile: what is accepted stays queued, and is
deleted afterwards.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.api.guarded import GuardedApi

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "missing_required_header",
    "unsupported_method",
    "use_after_free",
    "ignored_auth",
)

CONFIG = """
[[operations]]
include-path-regex = "^/v1/audio/"
checks.not_a_server_error.expected-statuses = ["2xx", "4xx", 504]

[[operations]]
include-path = "/health/ready"
checks.not_a_server_error.expected-statuses = ["2xx", "4xx", 503]
"""
"""Without a worker, calls that wait for a transcript are told that it takes too long, and after a while the service is not ready."""


@pytest.fixture
def idle_api(guarded_api: GuardedApi) -> Iterator[GuardedApi]:
    """The API without a worker."""
    live = guarded_api.live
    live.deployed.kill_worker()
    yield guarded_api
    while jobs := live.get("/transcribes", params={"limit": 100}).json()["jobs"]:
        for job in jobs:
            assert live.request("DELETE", f"/transcribes/{job['job_id']}").status_code == 200
    live.deployed.restart_worker()


def run(api: GuardedApi, folder: Path, *options: str) -> int:
    """Have schemathesis ask; how many cases it made. Fails when an answer is not as documented."""
    # A stream of a job that waits has no end. Asked with a key that has no jobs, it is refused like everything else.
    others = _run(api, api.key, folder, "--exclude-path-regex", "/events$", *options)
    return others + _run(api, api.other, folder, "--include-path-regex", "/events$", *options)


def _run(api: GuardedApi, key: str, folder: Path, *options: str) -> int:
    command = [str(Path(sys.executable).with_name("st")), "run", f"{api.live.url}/openapi.json"]
    command += ["--header", f"Authorization: Bearer {key}", "--checks", ",".join(CHECKS)]
    command += ["--request-timeout", "15", "--generation-database", "none", "--no-color", *options]
    (folder / "schemathesis.toml").write_text(CONFIG)
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False, timeout=3000)
    said = done.stdout.replace(key, "KEY")
    print(said[-1500:])
    assert done.returncode == 0, f"{said[-12000:]}\n{done.stderr[-2000:]}"
    log = api.live.log()
    assert "Traceback" not in log and '"level": "error"' not in log
    found = re.search(r"(\d+) generated", said)
    assert found, said[-3000:]
    return int(found[1])


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_slice_of_all_requests_is_answered_as_documented(idle_api: GuardedApi, tmp_path: Path) -> None:
    assert run(idle_api, tmp_path, "--phases", "fuzzing", "--max-examples", "30", "--seed", "7") >= 150


@pytest.mark.matrix
@pytest.mark.timeout(3300)
def test_thousands_of_requests_are_answered_as_documented(idle_api: GuardedApi, tmp_path: Path) -> None:
    phases = "examples,coverage,fuzzing,stateful"
    assert run(idle_api, tmp_path, "--phases", phases, "--max-examples", "150", "--seed", "11") >= 2000
