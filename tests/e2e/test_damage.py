"""Whatever is damaged of what a run left, or of the models, the next run of the same command has the right transcript."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import damage
from bench.batch import prefect_server
from bench.damage import READ_BY, RECORDS, Case, environment_of, finished
from tests.damage import WAYS
from tests.prefect_home import prefect_home
from tests.s3_faults import serving

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=["folder", "s3"])
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, models_dir: Path) -> Iterator[Case]:
    folder = tmp_path_factory.mktemp(request.param)
    with serving() as s3, prefect_server(prefect_home(folder / "prefect")) as (api, _):
        bucket = s3.bucket() if request.param == "s3" else ""
        url = f"s3://{bucket}/store" if bucket else str(folder / "store")
        environment = environment_of(folder, models_dir) | api | (s3.environment(bucket) if bucket else {})
        yield finished(folder, url, environment, s3.settings if bucket else None, other=False)


def test_every_artifact_damaged_at_once_each_in_its_way(case: Case) -> None:
    case.restore()
    for kind, way in zip(READ_BY, itertools.cycle(WAYS), strict=False):
        case.damage(case.artifacts(kind), way)
    assert case.transcribe(case.folder / "talk.wav") == case.truth


def test_every_record_damaged_at_once_each_in_its_way(case: Case) -> None:
    case.restore()
    records = [path for path in case.kept if path.startswith("records/")]
    assert len(records) > len(READ_BY)
    for record, way in zip(records, itertools.cycle(WAYS), strict=False):
        case.damage([record], way)
    assert case.transcribe(case.folder / "talk.wav") == case.truth


@pytest.mark.parametrize("case", ["folder"], indirect=True)
def test_a_damaged_network_does_not_take_a_speaker_away(case: Case) -> None:
    case.restore()
    for path in (case.models / "onnx").glob("*embedding*.onnx"):
        path.write_bytes(WAYS["flipped"](path.read_bytes(), b""))
    case.forget("embeddings")
    case.forget("diarization")
    case.forget("transcript")
    assert case.transcribe(case.folder / "talk.wav") == case.truth


@pytest.mark.matrix
@pytest.mark.timeout(7200)
def test_every_kind_of_file_in_every_way_wherever_the_store_is(models_dir: Path) -> None:
    assert damage.main([]) == 0


def test_the_matrix_names_every_kind_of_artifact_and_record() -> None:
    from infra.artifacts import SUFFIXES

    assert set(READ_BY) == set(SUFFIXES) - {"shard"}
    assert set(RECORDS.values()) <= set(READ_BY)
