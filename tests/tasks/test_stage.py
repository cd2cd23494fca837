"""Keys, pauses and time-outs of stages, and threads that stop when asked."""

from __future__ import annotations

import asyncio
import threading

import pytest

from infra.artifacts import ArtifactRef
from infra.jobs import ProgressSink, in_thread
from infra.on_modal.errors import rebuilt
from infra.on_modal.serving import _remote_error
from infra.settings import RetrySettings, TimeoutSettings
from stenoflow.errors import OutOfMemory, StageCancelled
from tasks.calls import StageCall
from tasks.retrying import Attempts, pauses
from tasks.time_limits import time_limit

AUDIO = ArtifactRef(kind="audio", path="artifacts/audio/aa/aa.flac", sha256="aa", bytes=1, meta={"duration": 1.0})


def call(**changes: object) -> StageCall:
    fields: dict[str, object] = {
        "stage": "segment",
        "inputs": {"audio": AUDIO},
        "params": {"model": "auto"},
        "models": {"segmentation": "diarization:seg@1"},
        "duration": 60.0,
    }
    return StageCall.model_validate(fields | changes)


@pytest.mark.parametrize(
    "change",
    [
        {"batch_size": 1},
        {"duration": 9.0},
        {"label": "another"},
        {"params": {"model": "/moved/folder"}},
        {"inputs": {"audio": AUDIO.model_copy(update={"path": "elsewhere", "bytes": 2, "meta": {}})}},
    ],
)
def test_key_does_not_know_how_or_where_a_stage_runs(change: dict[str, object]) -> None:
    assert call(**change).key == call().key


@pytest.mark.parametrize(
    "change",
    [
        {"inputs": {"audio": AUDIO.model_copy(update={"sha256": "bb"})}},
        {"models": {"segmentation": "diarization:seg@2"}},
        {"params": {"model": "auto", "language": "fr"}},
        {"stage": "embed"},
    ],
)
def test_key_knows_all_that_changes_the_output(change: dict[str, object]) -> None:
    assert call(**change).key != call().key


def test_out_of_memory_halves_the_batch_to_one_where_there_is_no_larger_gpu() -> None:
    attempts = Attempts()
    attempts.begin(8)
    sizes = []
    while attempts.again_after(OutOfMemory("too large")):
        sizes.append(attempts.batch_size)
    assert (sizes, attempts.larger) == ([4, 2, 1], 0)


def test_out_of_memory_of_a_batch_that_the_stage_found_is_answered_with_half_the_usual_one() -> None:
    attempts = Attempts()
    assert attempts.begin(None) is None
    assert attempts.again_after(OutOfMemory("too large"))
    assert attempts.begin(None) == 4


def test_out_of_memory_takes_larger_gpus_after_two_halvings() -> None:
    attempts = Attempts(larger_steps=2)
    attempts.begin(8)
    tried = []
    while attempts.again_after(OutOfMemory("too large")):
        tried.append((attempts.batch_size, attempts.larger))
    assert tried == [(4, 0), (2, 0), (2, 1), (2, 2)]


def test_pauses_grow_up_to_the_longest_allowed() -> None:
    assert pauses(RetrySettings(attempts=5, delay=2.0, max_delay=60.0)) == [2.0, 6.0, 18.0, 54.0, 60.0]


def test_time_limit_grows_with_the_recording() -> None:
    settings = TimeoutSettings()
    assert time_limit(1.0, settings) == settings.floor
    assert time_limit(3 * 3600.0, settings) == settings.factor * 3 * 3600


async def test_cancelled_thread_ends_at_its_next_report_before_the_caller_goes_on() -> None:
    at_work, ended = threading.Event(), threading.Event()

    def work(report: ProgressSink) -> None:
        try:
            while True:
                report(0.5)
                at_work.set()
        except StageCancelled:
            ended.set()
            raise

    task = asyncio.create_task(in_thread(work, lambda fraction: None, "asr"))
    await asyncio.to_thread(at_work.wait)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()


async def test_progress_stays_between_none_and_all() -> None:
    seen: list[float] = []

    def work(report: ProgressSink) -> None:
        for fraction in (-0.1, 0.5, 1.2):
            report(fraction)

    await in_thread(work, seen.append, "asr")
    assert seen == [0.0, 0.5, 1.0]


def test_a_batch_that_the_stage_chose_itself_is_halved_from_what_it_tried() -> None:
    attempts = Attempts()
    assert attempts.begin(None) is None
    error = OutOfMemory("too large")
    error.tried = 56
    assert attempts.again_after(error)
    assert attempts.begin(None) == 28


def test_what_was_tried_travels_from_a_container() -> None:
    error = OutOfMemory("Memory ran out during asr", cure="use a smaller --batch-size or model")
    error.tried = 56
    found = rebuilt(_remote_error(error))
    assert isinstance(found, OutOfMemory)
    assert found.tried == 56
