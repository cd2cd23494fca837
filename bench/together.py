"""What calls on Modal cost beside the work: `python -m bench.together [--recordings 200] [--at-once 64]`, and `--starts SECONDS`.

Recordings of a minute go through Modal's real client and container runtime, on a local server that speaks Modal's protocol; the
containers do all that they do with a call except run a model, so that all seconds are overhead: looked up, uploaded, spawned, noted,
committed, answered, downloaded. Three ways: a call for each stage, a call for each recording, and several recordings to a call.
There is no Prefect in it; `bench.overhead` has that.

`--starts 600` has a recording of that many seconds transcribed with real models instead, each time with no container running: how
long the run waited for containers, and in how many starts one after the other.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from bench.tables import markdown

if TYPE_CHECKING:
    from infra.artifacts import ArtifactRef
    from infra.jobs import Following
    from infra.on_modal.compute import ModalCompute
    from infra.store import Store
    from tests.modal_server import ModalServer


class Way(NamedTuple):
    name: str
    one_container_below: float
    recordings: int
    ahead: bool
    """Whether a stage says what follows it."""


WAYS = (
    Way("a call for each stage", 0, 1, False),
    Way("a call for each recording", 1800, 1, True),
    Way("several recordings to a call", 1800, 16, True),
)
SECONDS = 60.0


def following() -> tuple[Following, ...]:
    from infra.jobs import Following

    return tuple(Following(stage=stage, params={"model": "none"}, models={}) for stage in ("asr", "embed"))


async def transcribed(compute: ModalCompute, audio: ArtifactRef, way: Way) -> None:
    """The calls of one recording, as a run makes them."""
    from infra.jobs import StageJob, key_of
    from speech.schema import RuntimeOptions

    def job(stage: str, inputs: dict[str, ArtifactRef], then: tuple[Following, ...] = ()) -> StageJob:
        params: dict[str, Any] = {"model": "none"}
        key = key_of(stage, inputs, params, {})
        return StageJob(stage=stage, key=key, inputs=inputs, params=params, runtime=RuntimeOptions(), then=then)

    def ignore(fraction: float) -> None:
        pass

    first = await compute.run(job("segment", {"audio": audio}, following() if way.ahead else ()), ignore)
    known = {"audio": audio, "segmentation": first.artifact}
    await asyncio.gather(*(compute.run(job(stage, known), ignore) for stage in ("asr", "embed")))


def recorded(store: Store, folder: Path, number: int) -> ArtifactRef:
    from tests.stage_double import recording

    path = recording(folder / f"{number}.wav", seed=number)
    return store.put(path, "audio", meta={"duration": SECONDS}, by="bench")


async def measure(server: ModalServer, folder: Path, way: Way, count: int, at_once: int) -> list[str]:
    from bench.overhead_backends import Nothing
    from infra.on_modal.compute import ModalCompute
    from infra.settings import ModalSettings, StenoSettings
    from infra.store import Store

    modal = ModalSettings(one_container_below=way.one_container_below, recordings=way.recordings, calls=at_once)
    settings = StenoSettings(home=folder, modal=modal)
    store = Store(str(folder / "store"), folder / "scratch")
    compute = ModalCompute(Nothing(store), store, settings)
    before, started = len(server.calls), len(server.containers)
    audio = [recorded(store, folder, number) for number in range(count)]
    free = asyncio.Semaphore(at_once)

    async def one(ref: ArtifactRef) -> None:
        async with free:
            await transcribed(compute, ref, way)

    began = time.perf_counter()
    await asyncio.gather(*(one(ref) for ref in audio))
    wall = time.perf_counter() - began
    await asyncio.to_thread(server.until, lambda: all(call["state"] == "succeeded" for call in server.calls[before:]))
    calls = server.calls[before:]
    paid = sum(attempt["ended"] - attempt["began"] for call in calls for attempt in call["attempts"])
    starts = len(server.containers) - started
    return [way.name, str(len(calls)), str(starts), f"{wall / count:.3f}", f"{paid / count:.3f}"]


def many(count: int, at_once: int, ways: Sequence[Way]) -> None:
    with tempfile.TemporaryDirectory() as name:
        os.environ |= {"STENO_HOME": str(Path(name, "home")), "STENO_MODAL__GPU": "[]"}
        from bench.overhead_backends import modal_server

        with modal_server() as server:
            rows = [["", "calls", "starts", "seconds per recording", "of them in containers"], ["---", *["---:"] * 4]]
            for way in ways:
                server.scale_to_zero()
                rows.append(asyncio.run(measure(server, Path(name, way.name.replace(" ", "-")), way, count, at_once)))
                print(markdown(rows[-1:]), flush=True)
    print(f"{count} recordings, {at_once} at once\n{markdown(rows)}")


# -- the starts that one recording waits for -----------------------------------------------------------------------------


async def started(server: ModalServer, source: Path, way: Way) -> list[str]:
    """A row: what a run of the whole flow waited for."""
    from flows import pipeline
    from flows.request import TranscribeRequest
    from flows.transcribe import transcribe
    from infra.settings import get_settings

    async def nothing(*_: object) -> tuple[()]:
        return ()

    folder = source.parent / way.name.replace(" ", "-")
    os.environ |= {"STENO_HOME": str(folder), "STENO_MODAL__ONE_CONTAINER_BELOW": str(way.one_container_below)}
    get_settings.cache_clear()
    if not way.ahead:
        pipeline._after_segmentation = nothing  # type: ignore[assignment]
    server.scale_to_zero()
    before, alive = len(server.calls), len(server.containers)
    result = await transcribe(TranscribeRequest(source=str(source), output_dir=str(folder / "out")))
    calls = [call for call in server.calls[before:] if not call["function"].endswith(".ready")]
    waits = [call["began_at"] - call["created_at"] for call in calls]
    begun = len(server.containers) - alive
    return [
        way.name,
        str(len(calls)),
        str(begun),
        f"{waits[0] + max(waits[1:], default=0.0):.1f}",
        f"{result.total_seconds:.1f}",
    ]


def starts(seconds: float) -> None:
    from bench.overhead import environment
    from infra.settings import get_settings
    from tests.modal_app import bursts, deployed

    ways = (
        Way("two containers in series", 0, 1, False),
        Way("two at the same time", 0, 1, True),
        Way("one", 1800, 1, True),
    )
    models = get_settings().models_path
    with tempfile.TemporaryDirectory() as name, environment(Path(name), "modal"), deployed(models) as server:
        source = bursts(Path(name, "talk.wav"), round(seconds / 7))
        rows = [["containers", "calls", "started", "seconds waited for them", "seconds in all"], ["---", *["---:"] * 4]]
        for way in reversed(ways):
            rows.insert(2, asyncio.run(started(server, source, way)))
            print(markdown(rows[2:3]), flush=True)
    print(f"a recording of {seconds:.0f} s\n{markdown(rows)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recordings", type=int, default=200)
    parser.add_argument("--at-once", type=int, default=64)
    parser.add_argument("--starts", type=float, metavar="SECONDS", help="of one recording, instead")
    asked = parser.parse_args()
    if asked.starts:
        starts(asked.starts)
    else:
        many(asked.recordings, asked.at_once, WAYS)


if __name__ == "__main__":
    main()
