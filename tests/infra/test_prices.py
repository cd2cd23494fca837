"""What computing costs, against sums done by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.artifacts import ArtifactRef, StageOutcome
from infra.prices import (
    GPU_SECOND,
    Rented,
    dollars,
    gpu_second,
    own_cost,
    region_factor,
    rented_cost,
    shared_seconds,
    total_cost,
)
from infra.settings import StenoSettings
from tasks.reports import Costs


def test_every_gpu_that_modal_rents_has_a_price() -> None:
    assert set(GPU_SECOND) == {"T4", "L4", "A10", "L40S", "A100-40GB", "A100-80GB", "H100", "H200", "B200"}
    assert list(GPU_SECOND.values()) == sorted(GPU_SECOND.values())


@pytest.mark.parametrize(
    ("gpu", "second"),
    [("L4", 0.000222), ("h100!", 0.001097), ("A100", 0.000583), ("A100-80GB:2", 0.001388), ("", 0.0), ("Z9", None)],
)
def test_gpus_are_found_as_modal_writes_them(gpu: str, second: float | None) -> None:
    assert gpu_second(gpu) == pytest.approx(second) if second is not None else gpu_second(gpu) is None


def test_a_container_costs_its_gpu_its_cores_and_its_memory() -> None:
    assert rented_cost(100, Rented("L4", 4, 16)) == pytest.approx(100 * (0.000222 + 4 * 0.0000131 + 16 * 0.00000222))
    assert rented_cost(100, Rented()) is None
    assert rented_cost(100, Rented("Z9", 4, 16)) is None


@pytest.mark.parametrize(("regions", "factor"), [((), 1), (("eu",), 1.5), (("us-east",), 1.75), (("eu", "us-west-2"), 1.75)])
def test_a_chosen_region_multiplies_the_price(regions: tuple[str, ...], factor: float) -> None:
    assert region_factor(regions) == factor
    listed = rented_cost(100, Rented("L4", 4, 16))
    assert listed is not None
    assert rented_cost(100, Rented("L4", 4, 16, region_factor(regions))) == pytest.approx(factor * listed)


def test_stages_at_work_at_once_share_the_machine() -> None:
    shares = shared_seconds({"segment": (0, 10), "asr": (10, 70), "embed": (10, 50), "merge": (80, 81)})
    assert shares == {"segment": 10, "asr": 40, "embed": 20, "merge": 1}


def test_a_sum_with_an_unknown_price_is_unknown() -> None:
    assert total_cost([0.25, 0.5]) == 0.75
    assert total_cost([0.25, None]) is None


def test_own_and_rented_stages_of_one_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STENO_PRICES__MACHINE_HOUR", "3.6")
    settings = StenoSettings(home=tmp_path)
    artifact = ArtifactRef(kind="asr", path="x", sha256="0", bytes=1)
    costs = Costs()
    rented = StageOutcome(artifact=artifact, seconds=5, worker_seconds=20, backend="modal", gpu="L4", cores=2, memory=8)
    costs.computed("asr", 0.0, rented)
    costs.spans["merge"] = (10.0, 12.0)
    priced = costs.by_stage(settings)
    assert priced["asr"] == pytest.approx(20 * (0.000222 + 2 * 0.0000131 + 8 * 0.00000222))
    assert priced["merge"] == pytest.approx(own_cost(2.0, settings)) == pytest.approx(0.002)


def test_dollars_are_written_as_people_read_them() -> None:
    assert [dollars(cost) for cost in (None, 0.0, 0.00001, 0.01234, 12.3)] == [
        "unknown",
        "$0",
        "under $0.0001",
        "$0.0123",
        "$12.30",
    ]
