"""What dividing a long recording gains: `python -m bench.sharding [--hours 2] [--model tiny.en] [--workers 2] [--containers 2]`.

Each stage with a model runs undivided on one worker with one thread, then divided among `--workers` workers of one thread each,
as `STENO_COMPUTE__WORKERS` does it. Printed are the wall seconds of both, the efficiency (speed-up by worker), what putting the
shards together takes, and a projection for 64 workers: that serial part, a load of the model by each, and the largest shard.
The artifacts of both are compared byte for byte. Run it on an idle machine with as many cores as workers.

With `--containers` each stage is also divided among so many containers of the app, on a local server that speaks Modal's protocol:
starting them, uploading and loading are in their seconds, and all share this machine's cores.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.recordings import build, tiled
from infra.artifacts import ArtifactRef, StageOutcome
from infra.jobs import Compute, StageJob
from infra.local import LocalCompute
from infra.settings import ShardSettings, get_settings
from infra.sharding import ShardedCompute
from infra.store import Store
from speech.schema import RuntimeOptions, Shard, part_of

MANY = 64
UNITS = {"segment": 64, "asr": 8, "embed": 64}
"""Items at a multiple of which each stage is cut."""


@dataclasses.dataclass(frozen=True)
class Point:
    """One stage, undivided and divided."""

    stage: str
    items: int
    alone: float
    divided: float
    workers: int
    shards: int
    combining: float
    loading: float
    same: bool
    in_containers: float | None = None
    same_in_containers: bool = True

    @property
    def efficiency(self) -> float:
        return self.alone / (self.workers * self.divided)

    def projected(self, workers: int) -> float:
        """Wall seconds on so many workers that each load the model: the largest shard, then putting all together."""
        parts = [part_of(self.items, Shard(index=i, count=workers), UNITS[self.stage]) for i in range(workers)]
        largest = max(last - first for first, last in parts)
        return self.loading + (self.alone - self.loading) * largest / max(self.items, 1) + self.combining


class Timed(ShardedCompute):
    """Remembers how long putting the shards together took."""

    combining = 0.0

    def _combined(self, job: StageJob, outcomes: Any) -> StageOutcome:
        began = time.perf_counter()
        try:
            return super()._combined(job, outcomes)
        finally:
            self.combining = time.perf_counter() - began


def quiet(fraction: float) -> None:
    pass


async def seconds(compute: Compute, job: StageJob) -> tuple[float, StageOutcome]:
    began = time.perf_counter()
    outcome = await compute.run(job, quiet)
    return time.perf_counter() - began, outcome


async def measure(audio: Path, model: str, workers: int, folder: Path, stages: list[str], containers: int = 0) -> list[Point]:
    import soundfile

    store = Store(str(folder / "store"), folder / "scratch")
    duration = soundfile.info(audio).duration
    inputs: dict[str, ArtifactRef] = {"audio": store.put(audio, "audio", meta={"duration": duration})}
    runtime = RuntimeOptions(threads=1, device="cpu", models_dir=str(get_settings().models_path), offline=True)
    points: list[Point] = []
    for stage in stages:
        params = {"model": model, "language": "en"} if stage == "asr" else {}
        job = StageJob(stage=stage, key=stage, inputs=inputs, params=params, runtime=runtime)  # type: ignore[arg-type]
        local = LocalCompute(store)
        # Weights that are joined or converted once are no part of it.
        short = ShardSettings(threshold=0, min_seconds=duration / 4)
        print(f"{stage} …", file=sys.stderr, flush=True)
        alone, whole = await seconds(local, job)
        sharded = Timed(
            local, store, short if duration < 2 * 600 else ShardSettings(threshold=0), workers=workers, one_machine=True
        )
        divided, together = await seconds(sharded, job)
        remote, elsewhere = None, together
        if containers:
            from infra.on_modal.compute import ModalCompute

            called = ShardedCompute(ModalCompute(local, store, get_settings()), store, sharded.settings, workers=containers)
            remote, elsewhere = await seconds(called, job)
        points.append(
            Point(
                stage=stage,
                items=_items(store, stage, whole.artifact, inputs),
                alone=alone,
                divided=divided,
                workers=workers,
                shards=together.shards,
                combining=sharded.combining,
                loading=whole.load_seconds,
                same=whole.artifact == together.artifact,
                in_containers=remote,
                same_in_containers=whole.artifact == elsewhere.artifact,
            )
        )
        print(table(points[-1:]).splitlines()[-1], file=sys.stderr, flush=True)
        inputs = inputs | {whole.artifact.kind: whole.artifact} if stage == "segment" else inputs
    return points


def _items(store: Store, stage: str, artifact: ArtifactRef, inputs: dict[str, ArtifactRef]) -> int:
    """Windows, chunks of speech, or windows in which someone speaks: what the stage goes through."""
    from speech.chunks import plan
    from speech.diarize.segmentation import Segmentation

    with store.local(artifact if stage == "segment" else inputs["segmentation"]) as path:
        segmentation = Segmentation.load(path)
    if stage == "asr":
        return len(plan(segmentation))
    return int(segmentation.activity.any(axis=(1, 2)).sum()) if stage == "embed" else len(segmentation.activity)


def table(points: list[Point]) -> str:
    workers, containers = points[0].workers, points[0].in_containers is not None
    lines = [
        f"| stage | 1 worker | {workers} workers | shards | efficiency | putting together | {MANY} workers, projected "
        "| its efficiency | bytes |" + (" containers | bytes |" if containers else "")
    ]
    lines.append("|" + " --- |" * (11 if containers else 9))
    for point in points:
        many = point.projected(MANY)
        lines.append(
            f"| {point.stage} | {point.alone:.1f} s | {point.divided:.1f} s | {point.shards} | {100 * point.efficiency:.0f} % "
            f"| {point.combining:.2f} s | {many:.1f} s | {100 * point.alone / (MANY * many):.0f} % "
            f"| {_sameness(point.same)} |"
            + (f" {point.in_containers:.1f} s | {_sameness(point.same_in_containers)} |" if point.in_containers else "")
        )
    return "\n".join(lines)


def _sameness(same: bool) -> str:
    return "the same" if same else "DIFFERENT"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.sharding", description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--hours", type=float, default=2.0, help="length of the recording (default: %(default)s)")
    parser.add_argument("--model", default="tiny.en", help="Whisper weights (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=2, help="workers of one thread each (default: %(default)s)")
    parser.add_argument("--containers", type=int, default=0, help="and containers (default: none)")
    parser.add_argument("--stages", default="segment,asr,embed", help="which stages; segment comes first")
    parser.add_argument("--output", type=Path, help="also write the points as JSON")
    asked = parser.parse_args()
    audio = tiled(build("sample").audio, asked.hours)
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        if asked.containers:
            from tests.modal_app import deployed

            stack.enter_context(deployed(get_settings().models_path))
        points = asyncio.run(
            measure(audio, asked.model, asked.workers, Path(folder), asked.stages.split(","), asked.containers)
        )
    print(table(points))
    if asked.output:
        asked.output.write_text(json.dumps([dataclasses.asdict(point) for point in points], indent=1) + "\n")


if __name__ == "__main__":
    main()
