"""The guide of the API, executed: its examples in order, in a folder of their own, against a served API."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from api.schemas import JobOptions
from stenoflow.jobs import JobStatus
from tests.api.live import LiveApi
from tests.guides import commands, shell, spoken

GUIDE = Path(__file__).parents[2] / "docs" / "api.md"
BLOCK = re.compile(r"^```(bash|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def prepared(live: LiveApi, folder: Path) -> dict[str, str]:
    """What the guide takes for granted, and the address that its URL stands for; the environment of its shell."""
    spoken(folder / "meeting.wav")
    live.recording("interview.wav", seconds=2.0)
    return commands(folder)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_example_of_the_guide_works(
    live_api: LiveApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    env, names, printed = prepared(live_api, tmp_path), dict[str, Any](), ""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    blocks = BLOCK.findall(GUIDE.read_text())
    assert len(blocks) >= 24
    for language, block in blocks:
        code = block.replace("http://127.0.0.1:8765", live_api.url).replace(
            "https://example.org/interview.wav", f"{live_api.files_url}/interview.wav"
        )
        if language == "bash":
            printed += shell(code, tmp_path, env)
        else:
            exec(compile(code, "docs/api.md", "exec"), names)
            printed += capsys.readouterr().out
    names["steno"].close()
    for said in (
        "good morning everyone",
        "WEBVTT",
        "event: completed",
        "100 % Completed.",
        "invalid_request",
        "job_deleted",
        '"status":"ready"',
        "steno_api_requests_total{",
    ):
        assert said in printed, f"{said!r} was not printed:\n{printed}"
    assert "Chicago" in printed  # the chunks are heard by the models themselves
    assert {path.name for path in (tmp_path / "transcripts").iterdir()} == {"meeting.srt", "meeting.txt", "meeting.json"}
    for job in live_api.get("/transcribes", params={"limit": 100}).json()["jobs"]:
        live_api.request("DELETE", f"/transcribes/{job['job_id']}")


def test_the_guide_names_every_option_and_status() -> None:
    text = GUIDE.read_text()
    assert all(f"`{name}`" in text for name in JobOptions.model_fields)
    assert all(f"`{status}`" in text for status in JobStatus.__args__)  # type: ignore[attr-defined]
