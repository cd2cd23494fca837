"""A stage's record is data: whoever may write to the store cannot have a run execute what it says."""

from __future__ import annotations

import base64
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
from prefect.results import ResultRecord  # type: ignore[attr-defined]

from infra.artifacts import StageOutcome
from infra.compute import get_store
from tasks.calls import outcome_in
from tasks.records import RecordStorage

KEY = "a" * 64
pytestmark = pytest.mark.usefixtures("steno")


class Evil:
    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return open, (str(self.trace), "w")


def outcome(tmp_path: Path, key: str = KEY, **meta: Any) -> StageOutcome:
    path = tmp_path / "output.json"
    path.write_text("{}")
    return StageOutcome(artifact=get_store().put(path, "asr", meta=meta), seconds=1.0, key=key)


def record(result: str, serializer: dict[str, Any]) -> bytes:
    return json.dumps({"metadata": {"storage_key": KEY, "serializer": serializer}, "result": result}).encode()


async def test_a_record_that_names_pickle_is_not_unpickled(tmp_path: Path) -> None:
    trace = tmp_path / "pickle-was-run"
    evil = base64.b64encode(pickle.dumps(Evil(trace))).decode()
    get_store().write_record(KEY, record(evil, {"type": "pickle"}))
    with pytest.raises(FileNotFoundError):
        await RecordStorage().read_path(KEY)
    assert not trace.exists()


@pytest.mark.parametrize("serializer", [{"type": "json", "jsonlib": "pickle"}, {"type": "json", "object_decoder": "os.system"}])
async def test_what_a_record_says_of_its_reading_is_not_obeyed(tmp_path: Path, serializer: dict[str, str]) -> None:
    left = outcome(tmp_path)
    get_store().write_record(KEY, record(left.model_dump_json(), serializer))
    found = ResultRecord.deserialize(await RecordStorage().read_path(KEY))
    assert StageOutcome.model_validate(found.result) == left


async def test_no_object_is_made_of_a_class_that_a_record_names(tmp_path: Path) -> None:
    left = outcome(tmp_path, language={"__class__": "pathlib.Path", "data": "/etc/passwd"})
    get_store().write_record(KEY, record(left.model_dump_json(), {"type": "json"}))
    found = ResultRecord.deserialize(await RecordStorage().read_path(KEY))
    assert found.result["artifact"]["meta"]["language"] == {"__class__": "pathlib.Path", "data": "/etc/passwd"}


async def test_a_record_of_another_stage_and_a_damaged_one_lead_nowhere(tmp_path: Path) -> None:
    other = record(outcome(tmp_path, key="b" * 64).model_dump_json(), {"type": "json"})
    for content in (other, b'{"metadata": tru', b'{"result": "{}"}', b'{"result": 5}', b"[]", b"\0" + other):
        get_store().write_record(KEY, content)
        with pytest.raises(FileNotFoundError):
            await RecordStorage().read_path(KEY)


def test_a_field_of_a_later_version_is_left_out(tmp_path: Path) -> None:
    left = outcome(tmp_path)
    later = json.loads(left.model_dump_json()) | {"carbon": 0.1}
    later["artifact"]["codec"] = "opus"
    assert outcome_in(record(json.dumps(later), {"type": "json"}), KEY) == left
