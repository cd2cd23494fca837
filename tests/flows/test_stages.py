"""One declaration per stage: what it says is what every door shows, and runs have it once the flow asks for it."""

from __future__ import annotations

from typing import Any

import pytest
from prefect.settings import PREFECT_API_URL

from tests.changed_tree import Change, changed_tree, seen_by

CHANGES = (
    Change("speech/schema.py", "class EmbedParams(Frozen):", 'class PunctuateParams(Frozen):\n    marks: str = ".,"\n\n\n'),
    Change("speech/stages.py", "    RuntimeOptions,\n    SegmentParams,", "    PunctuateParams,\n"),
    Change(
        "speech/stages.py",
        '    "embed": StageSpec(',
        """    "punctuate": StageSpec(
        version=1,
        inputs=("asr",),
        output="punctuation",
        params=PunctuateParams,
        entry="speech.punctuation:run",
        share=10.0,
        machine="Speech",
        suffix=".txt",
    ),
""",
    ),
    Change(
        "tasks/calls.py",
        "def embed_call(",
        """def punctuate_call(recording: Recording, text: ArtifactRef) -> StageCall:
    return StageCall(
        stage="punctuate",
        inputs={"asr": text},
        params={"marks": ".,"},
        models={},
        duration=recording.duration,
    )


""",
    ),
    Change(
        "flows/pipeline.py", "    if not request.align:", "    await steps.compute(calls.punctuate_call(recording, text))\n"
    ),
    Change("flows/pipeline.py", "from tasks.calls import (", "from tasks import calls\n"),
)
FILES = {
    "speech/punctuation.py": """from speech.schema import AsrResult
from speech.stored import read_json


def run(inputs, params, runtime, output, progress):
    text = read_json(AsrResult, inputs["asr"]).segments[0].text
    output.write_text(params.marks + text)
    return {"characters": len(text)}
"""
}
"""What CONTRIBUTING.md names: parameters, declaration, function, task, and its place in the run."""

LOOK = """
import asyncio, json, os
from pathlib import Path
from api.app import create_app
from api.states import Seen, stages_of
from deployments.form import parameter_form
from flows.progress import RunProgress
from flows.request import TranscribeRequest
from flows.transcribe import transcribe
from infra import compute, modal_app
from infra.local import LocalCompute
from infra.on_modal import gpus
from infra.progress import StageEvent
from infra.settings import ModalSettings
from prefect.client.schemas.objects import FlowRun
from prefect.states import Pending
from stenoflow.cli import retry
from stenoflow.cli.progress import StageTable
from tasks.graph import after, upstream
from tests import client_options
from tests.stage_double import ComputeDouble, recording
import click
import uuid

client_options.PATH.write_text(client_options.written())
from stenoflow.client.options import RetryFrom


class Compute(ComputeDouble):
    async def run(self, job, progress):
        if job.stage == "punctuate":
            self.jobs.append(job)
            return await LocalCompute(compute.get_store()).run(job, progress)
        return await super().run(job, progress)


async def both(request):
    first = await transcribe(request)
    return first, await transcribe(request.model_copy(update={"redo_from": "punctuate"}))


double = Compute()
compute.get_compute = lambda settings=None, asked=None: double
home = Path(os.environ["STENO_HOME"])
request = TranscribeRequest(source=str(recording(home / "a.wav")), output_dir=str(home / "out"))
first, again = asyncio.run(both(request))
progress = RunProgress("run")
for step in ("fetch", "segment", "asr", "align", "embed", "diarize", "merge", "export"):
    progress(StageEvent("run", step, "completed", 1.0))
schemas = create_app().openapi()["components"]["schemas"]
run = FlowRun(flow_id=uuid.uuid4(), state=Pending(), parameters={"request": {}})
print(json.dumps({
    "first": {report.stage: report.state for report in first.stages},
    "again": {report.stage: report.state for report in again.stages},
    "artifacts": [path.read_text()[:2] for path in home.rglob("artifacts/punctuation/*/*.txt")],
    "graph": [upstream("punctuate", after("fetch")), after("punctuate")],
    "left": progress.now().percent,
    "table": [*StageTable("").rows],
    "command": retry.command.get_help(click.Context(retry.command)),
    "form": parameter_form(transcribe)["definitions"]["TranscribeRequest"]["properties"]["redo_from"]["enum"],
    "API": schemas["RetryRequest"]["properties"]["from"]["anyOf"][0]["enum"],
    "jobs": [report.stage for report in stages_of(Seen(run), "queued")],
    "client": RetryFrom.__args__,
    "GPU": gpus.gpus_of("punctuate", ModalSettings(gpu=("H100",), voices_gpu=("T4",))),
    "Modal": [name for name in ("Speech", "Voices") if hasattr(getattr(modal_app, name)(), "punctuate")],
}))
"""
STEPS = ["fetch", "segment", "asr", "align", "punctuate", "embed", "diarize", "merge", "export"]


@pytest.fixture(scope="module")
def seen(prefect_server: None, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What every door shows of a stage, and what runs do with it, once the recipe's files say it."""
    tree = changed_tree(tmp_path_factory.mktemp("changed"), CHANGES, FILES)
    home = {"STENO_HOME": str(tmp_path_factory.mktemp("home")), "PREFECT_API_URL": PREFECT_API_URL.value()}
    return seen_by(tree, LOOK, **home)


def test_a_new_stage_is_computed_in_its_place_reported_and_computed_again_when_that_is_asked_for(seen: Any) -> None:
    assert seen["first"] == dict.fromkeys(STEPS, "computed")
    assert [step for step, state in seen["again"].items() if state == "computed"] == ["punctuate", "export"]
    assert seen["artifacts"] == [".,"]


def test_a_new_stage_is_shown_and_offered_at_every_door(seen: Any) -> None:
    assert seen["table"] == seen["jobs"] == STEPS
    assert seen["form"] == seen["API"] == seen["client"] == STEPS[:-1]
    assert "punctuate" in seen["command"]
    assert seen["graph"] == [["asr"], ["punctuate"]]
    assert 80 < seen["left"] < 90, "ten seconds of seventy are its own"


def test_a_new_stage_runs_where_its_declaration_says(seen: Any) -> None:
    assert (seen["Modal"], seen["GPU"]) == (["Speech"], ["H100"])
