"""However many workers share a recording, the artifact is byte for byte what one worker makes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from speech.asr import whisper
from speech.diarize import embedding, segmentation
from speech.schema import RuntimeOptions, Shard, part_of
from speech.stages import combine_shards, run_stage
from tests import media

pytestmark = pytest.mark.slow
RATE = 16_000


@pytest.mark.parametrize(("total", "count", "unit"), [(0, 3, 8), (1, 7, 8), (17, 2, 8), (100, 7, 8), (290, 64, 8), (5, 5, 1)])
def test_shards_cover_everything_once_at_whole_batches(total: int, count: int, unit: int) -> None:
    parts = [part_of(total, Shard(index=i, count=count), unit) for i in range(count)]
    assert [item for first, last in parts for item in range(first, last)] == list(range(total))
    assert all(first % unit == 0 or first == total for first, _ in parts)


@pytest.fixture
def talk(recorded: Callable[..., Path]) -> Path:
    """Eighty seconds of the call with pauses, in several chunks."""
    speech = media.speech()
    pause = np.zeros(5 * RATE, dtype=np.float32)
    pieces = [
        speech[: 14 * RATE],
        pause,
        speech[14 * RATE :],
        pause,
        speech[5 * RATE : 22 * RATE],
        pause,
        speech[8 * RATE : 17 * RATE],
    ]
    return recorded(np.concatenate(pieces))


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards cut at every second item, so that a short recording fills several."""
    monkeypatch.setattr(segmentation, "_BATCH", {"cpu": 2})
    monkeypatch.setattr(embedding, "_BATCH", {"cpu": 2})
    monkeypatch.setattr(whisper, "SHARD_UNIT", 1)


def assert_same_in_shards(
    stage: Any, inputs: dict[str, Path], params: dict[str, Any], runtime: RuntimeOptions, folder: Path, counts: tuple[int, ...]
) -> None:
    """`inputs` gets the undivided stage's output."""
    one = folder / f"{stage}-whole"
    facts = run_stage(stage, inputs, params, runtime, one, lambda fraction: None)
    for count in counts:
        told: list[float] = []
        parts = []
        for index in range(count):
            parts.append(folder / f"{stage}-{index}-of-{count}")
            run_stage(stage, inputs, params, runtime, parts[-1], told.append, Shard(index=index, count=count))
        combined = folder / f"{stage}-{count}"
        meta = combine_shards(stage, inputs, params, runtime, parts, combined)
        assert combined.read_bytes() == one.read_bytes(), (stage, count)
        assert meta.items() <= facts.items()
        assert set(facts) - set(meta) <= {"load_seconds", "device", "batch_size"}
        assert all(0 < fraction <= 1 for fraction in told)


def test_a_talk_in_shards_is_the_talk(talk: Path, small_batches: None, runtime: RuntimeOptions, tmp_path: Path) -> None:
    one_each = runtime.model_copy(update={"batch_size": 1})
    inputs = {"audio": talk}
    assert_same_in_shards("segment", inputs, {}, one_each, tmp_path, (2, 7))
    inputs["segmentation"] = tmp_path / "segment-whole"
    assert_same_in_shards("asr", inputs, {"model": "tiny.en"}, one_each, tmp_path, (2, 7))
    assert_same_in_shards("embed", inputs, {}, one_each, tmp_path, (3,))


def test_every_shard_hears_the_language_of_the_whole(
    recorded: Callable[..., Path], small_batches: None, runtime: RuntimeOptions, tmp_path: Path
) -> None:
    options = runtime.model_copy(update={"batch_size": 1})
    pause = np.zeros(6 * RATE, dtype=np.float32)
    inputs = {"audio": recorded(np.concatenate([media.speech()[: 8 * RATE], pause, media.speech()[14 * RATE : 20 * RATE]]))}
    run_stage("segment", inputs, {}, options, tmp_path / "segmentation", lambda fraction: None)
    inputs["segmentation"] = tmp_path / "segmentation"
    assert_same_in_shards("asr", inputs, {"model": "base"}, options, tmp_path, (2,))


def test_silence_in_shards_is_silence(recorded: Callable[..., Path], runtime: RuntimeOptions, tmp_path: Path) -> None:
    inputs = {"audio": recorded(np.zeros(30 * RATE, dtype=np.float32))}
    assert_same_in_shards("segment", inputs, {}, runtime, tmp_path, (3,))
    inputs["segmentation"] = tmp_path / "segment-whole"
    assert_same_in_shards("asr", inputs, {"model": "tiny.en"}, runtime, tmp_path, (3,))
    assert_same_in_shards("embed", inputs, {}, runtime, tmp_path, (3,))
