"""What a run leaves in Prefect for its reader, read back through the API."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any
from uuid import UUID
from xml.etree import ElementTree

import pytest
from prefect.client.orchestration import PrefectClient, get_client
from prefect.flow_engine import run_flow_async
from prefect.states import Scheduled, State

import flows.result
import stenoflow.errors
from flows.report.advice import ADVICE, HELPS, kinds, retry_of
from flows.report.contents import beginning
from flows.report.timeline import Span, timeline
from flows.report.words import link, plain
from flows.request import TranscribeRequest
from flows.transcribe import transcribe
from infra.handles import concealed
from infra.settings import S3Settings, StenoSettings, get_settings
from stenoflow.errors import GatedModel, Retry, TransientError
from tests.prefect_views import artifacts, everything, logs, run_of
from tests.stage_double import TEXT, ComputeDouble, recording

STAGES = ["fetch", "segment", "asr", "align", "embed", "diarize", "merge", "export"]
server = pytest.mark.usefixtures("prefect_server", "steno")


def request(source: Path, **options: Any) -> TranscribeRequest:
    return TranscribeRequest(source=str(recording(source)), output_dir=str(source.parent / "out"), **options)


async def run(asked: TranscribeRequest) -> State[Any]:
    state: State[Any] = await transcribe(asked, return_state=True)
    return state


async def retried(run: UUID) -> State[Any]:
    """Executed again, as after the Retry button."""
    async with get_client() as client:
        await client.set_flow_run_state(run, Scheduled(name="AwaitingRetry"), force=True)
        flow_run = await client.read_flow_run(run)
    parameters = transcribe.validate_parameters(flow_run.parameters)
    state: State[Any] = await run_flow_async(transcribe, flow_run=flow_run, parameters=parameters, return_type="state")
    return state


def svg_in(uri: str) -> ElementTree.Element:
    kind, _, content = uri.partition(",")
    assert kind == "data:image/svg+xml;base64"
    return ElementTree.fromstring(base64.b64decode(content))


@server
async def test_a_finished_run_tells_what_came_of_it(
    tmp_path: Path, double: ComputeDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STENO_PRICES__MACHINE_HOUR", "3600")
    monkeypatch.setenv("STENO_REPORT__PREVIEW_WORDS", "60")
    get_settings.cache_clear()
    state = await run(request(tmp_path / "board <b>|call_1.wav", formats=("json", "srt")))
    found = await artifacts(run_of(state))
    report = str(found["transcription-report"].data)
    assert "board &lt;b&gt;\\|call\\_1.wav" in report
    for fact in ("4.0 s of English", "1 speaker,", "3 words", "× real time", "Cost: $"):
        assert fact in report, fact
    assert all(f"| {stage} | computed |" in report for stage in STAGES)
    assert f"**SPEAKER\\_00** `0:00` {TEXT}" in report
    for format_ in ("json", "srt"):
        assert f"- {format_}: `{tmp_path}/out/" in report
    rows = json.loads(str(found["transcription-stages"].data))
    assert [(row["stage"], row["outcome"], row["attempts"]) for row in rows] == [(stage, "computed", 1) for stage in STAGES]
    assert {row["where"] for row in rows if row["stage"] not in ("fetch", "export")} == {"local cpu"}
    assert set(found) == {"transcription-report", "transcription-stages", "transcription-progress"}
    (picture,) = re.findall(r"!\[Who speaks when\]\((data:[^)]+)\)", report)
    assert "SPEAKER_00" in "".join(svg_in(picture).itertext())
    assert found["transcription-report"].key == "transcription-report-board-b-call-1-wav"
    assert found["transcription-stages"].key == "transcription-stages-board-b-call-1-wav"
    result = await state.aresult()
    assert result.cost == pytest.approx(sum(stage.cost for stage in result.stages))
    assert 0 < result.cost <= result.total_seconds
    assert found["transcription-progress"].data == 100
    async with get_client() as client:
        assert set((await client.read_flow_run(run_of(state))).tags) == {"model:base", "language:en"}


@server
async def test_what_was_reused_cost_nothing_and_is_said_to_be_reused(tmp_path: Path, double: ComputeDouble) -> None:
    await run(request(tmp_path / "a.wav"))
    state = await run(request(tmp_path / "a.wav"))
    report = str((await artifacts(run_of(state)))["transcription-report"].data)
    assert "6 of 6 stages reused" in report
    rows = json.loads(str((await artifacts(run_of(state)))["transcription-stages"].data))
    assert "$" not in report and "| cost |" not in report
    assert not any("cost $" in row for row in rows)
    assert "| asr | reused |" in report
    assert (await state.aresult()).cost == 0


@server
async def test_what_was_said_is_nowhere_but_in_the_beginning_where_that_is_wanted(
    tmp_path: Path, double: ComputeDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STENO_REPORT__PREVIEW_WORDS", "60")
    get_settings.cache_clear()
    shown = await run(request(tmp_path / "a.wav"))
    monkeypatch.delenv("STENO_REPORT__PREVIEW_WORDS")
    get_settings.cache_clear()
    hidden = await run(request(tmp_path / "b.wav"))
    for state, expected in ((shown, {"transcription-report"}), (hidden, set())):
        found = await artifacts(run_of(state))
        kept = await everything(run_of(state)) + await logs(run_of(state), lambda text: "export" in text)
        holding = {key for key, one in found.items() if any(word in f"{one.data}{one.description}" for word in TEXT.split())}
        assert holding == expected
        assert not [word for word in TEXT.split() if word in kept]


@server
async def test_a_run_without_speakers_says_why_and_its_retry_writes_the_same_report_anew(
    tmp_path: Path, double: ComputeDouble
) -> None:
    double.failures["embed"] = [GatedModel("accept the licence first")]
    state = await run(request(tmp_path / "a.wav"))
    before = await artifacts(run_of(state))
    report = str(before["transcription-report"].data)
    for said in (
        "### Written without speakers",
        "> accept the licence first",
        "`gated_model` in the stage **embed**",
        HELPS[Retry.NEVER],
        ADVICE["gated_model"],
        "takes segment, asr, align from the cache and runs fetch, embed, diarize, merge, export.",
    ):
        assert said in report, said
    assert "embed failed" in (before["transcription-progress"].description or "")
    async with get_client() as client:
        assert "without-speakers" in (await client.read_flow_run(run_of(state))).tags
    assert (await retried(run_of(state))).is_completed()
    async with get_client() as client:
        assert set((await client.read_flow_run(run_of(state))).tags) == {"model:base", "language:en"}
    after = await artifacts(run_of(state))
    assert {key: one.id for key, one in after.items()} == {key: one.id for key, one in before.items()}
    assert "without speakers" not in str(after["transcription-report"].data)
    assert "| embed | computed |" in str(after["transcription-report"].data)
    assert (after["transcription-progress"].data, after["transcription-progress"].description) == (100, "done")


@server
async def test_a_failed_run_says_where_whether_and_what_to_do(tmp_path: Path, double: ComputeDouble) -> None:
    double.failures["asr"] = [TransientError("the worker was lost")] * 9
    state = await run(request(tmp_path / "a.wav"))
    found = await artifacts(run_of(state))
    report = str(found["transcription-report"].data)
    for said in ("### Failed: asr", "> the worker was lost", HELPS[Retry.LATER], "tried 4 times", ADVICE["transient"]):
        assert said in report, said
    assert "takes segment, embed, diarize from the cache and runs fetch, asr, align, merge, export." in report
    rows = {row["stage"]: row for row in json.loads(str(found["transcription-stages"].data))}
    assert (rows["asr"]["outcome"], rows["asr"]["attempts"]) == ("failed", 4)
    assert (found["transcription-progress"].description) == "stopped: asr failed"


@server
async def test_a_run_that_is_refused_at_once_has_a_report_too(tmp_path: Path, double: ComputeDouble) -> None:
    state = await run(request(tmp_path / "a.wav", model="larg-v3"))
    report = str((await artifacts(run_of(state)))["transcription-report"].data)
    assert "### Stopped before the first stage" in report
    assert ADVICE["unknown_model"] in report


@server
async def test_a_signed_address_is_nowhere(tmp_path: Path, double: ComputeDouble, steno: StenoSettings) -> None:
    address = "http://reader:hunter2@127.0.0.1:9/call.wav?signature=opensesame"
    asked = TranscribeRequest(source=concealed(address, steno), output_dir=str(tmp_path))
    state = await run(asked)
    found = await artifacts(run_of(state))
    assert ADVICE["source_forbidden"] in str(found["transcription-report"].data)
    text = await everything(run_of(state)) + await logs(run_of(state), lambda text: "fetch failed" in text)
    text += "".join(f"{one.data}{one.description}" for one in found.values())
    assert not [secret for secret in ("hunter2", "opensesame") if secret in text]


@server
async def test_artifacts_that_prefect_refuses_do_not_fail_a_run(
    tmp_path: Path, double: ComputeDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*args: Any, **kwargs: Any) -> None:
        raise ConnectionError("the server is away")

    monkeypatch.setattr(PrefectClient, "create_artifact", refuse)
    state = await run(request(tmp_path / "a.wav"))
    assert state.is_completed()
    assert await artifacts(run_of(state)) == {}


# -- without a server ---------------------------------------------------------------------------------------------------


def test_every_error_of_the_drawn_trees_has_its_advice() -> None:
    modules = (stenoflow.errors, flows.result)
    codes = {kind.code for kind in kinds() if kind.__module__ in {module.__name__ for module in modules}}
    assert codes - set(ADVICE) == set(), "say in flows/report/advice.py what a person can do about it"
    assert set(ADVICE) - codes == {"unexpected"}
    assert (retry_of("stage_timeout"), retry_of("out_of_memory"), retry_of("unexpected")) == (
        Retry.LATER,
        Retry.SMALLER,
        Retry.NEVER,
    )


def test_the_picture_is_small_whatever_the_length_and_names_cannot_break_it() -> None:
    spans = [Span(second, second + 0.7, f"</svg><b>&{second % 30}") for second in range(36_000)]
    svg = timeline(spans, 36_000.0)
    picture = ElementTree.fromstring(svg)
    assert len(svg) < 300_000
    assert "and 10 more" in "".join(picture.itertext())


def test_the_picture_sets_those_first_who_speak_most() -> None:
    picture = ElementTree.fromstring(timeline([Span(0, 1, "ann"), Span(1, 9, "bob"), Span(8, 10, "ann")], 10.0))
    texts = [text.text for text in picture.iter("{http://www.w3.org/2000/svg}text")]
    assert [text for text in texts if text in ("ann", "bob")] == ["bob", "ann"]
    assert {"0:08 · 80 %", "0:03 · 30 %"} <= set(texts)


def contrast(one: str, other: str) -> float:
    """WCAG 2.2's ratio of two colours, `#rrggbb`."""

    def luminance(colour: str) -> float:
        parts = (int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5))
        red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("page", ["#ffffff", "#0f172a"])
def test_the_picture_can_be_read_on_a_light_and_on_a_dark_page(page: str) -> None:
    svg = timeline([Span(number, number + 1, f"speaker {number}") for number in range(12)], 12.0)
    picture = ElementTree.fromstring(svg)
    written = re.findall(r"fill:(#[0-9a-f]{6})", svg)
    drawn = {
        str(shape.get(use))
        for shape in picture.iter()
        for use in ("fill", "stroke")
        if (shape.get(use) or "none") != "none" and not shape.get(f"{use}-opacity")
    }
    assert len(drawn) == 10 and written
    assert {colour: ratio for colour in written if (ratio := contrast(colour, page)) < 4} == {}
    assert {colour: ratio for colour in drawn if (ratio := contrast(colour, page)) < 3} == {}


def test_the_beginning_ends_after_the_words_asked_for_by_speaker() -> None:
    said = [
        {"start": 0.0, "text": "one two", "speaker": "A"},
        {"start": 1.0, "text": "three", "speaker": "A"},
        {"start": 2.0, "text": "four five six", "speaker": "B"},
        {"start": 3.0, "text": "seven", "speaker": None},
    ]
    assert [(one.speaker, one.text) for one in beginning(said, 5)] == [("A", "one two three"), ("B", "four five …")]
    assert [(one.speaker, one.text) for one in beginning(said, 6)][-1] == ("B", "four five six …")
    assert [(one.speaker, one.text) for one in beginning(said, 60)][-1] == ("", "seven")
    assert [one.text for one in beginning([{"start": 0.0, "text": "語" * 500, "speaker": "A"}], 5)] == ["語" * 40 + " …"]


@pytest.mark.parametrize(
    ("target", "shown"),
    [
        ("/data/a b.json", "`/data/a b.json`"),
        ("https://h/a b.json?sig=x", "[`https://h/a b.json`](https://h/a%20b.json)"),
        ("s3://key:secret@bucket/x/a.json", "[`s3://bucket/x/a.json`](http://minio:9000/bucket/x/a.json)"),
        ("memory://a.json", "`memory://a.json`"),
    ],
)
def test_outputs_are_linked_where_a_browser_can_follow(target: str, shown: str) -> None:
    assert link(target, S3Settings(endpoint_url="http://minio:9000")) == shown
    assert "console.aws.amazon.com/s3/object/bucket?prefix=x/a.json" in link("s3://bucket/x/a.json", S3Settings())


def test_names_are_never_taken_for_markup() -> None:
    assert plain("a|b*c_d`<img src=x>\n# [x](y)") == "a\\|b\\*c\\_d\\`&lt;img src\\=x&gt; \\# \\[x\\]\\(y\\)"
