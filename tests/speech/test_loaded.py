"""Loaded models: each once, the least recently used let go when another needs its room, and never one that is in use."""

from __future__ import annotations

import threading
import time
import weakref
from pathlib import Path

import pytest

from speech import loaded
from speech.asr.whisper import load_whisper
from speech.loaded import LoadedModels, Room, bytes_in, using_models
from speech.models import resolve_asr
from speech.schema import RuntimeOptions
from stenoflow.errors import OutOfMemory


class Weights:
    """Of a model of so many bytes."""


def of(models: LoadedModels, name: str, size: int, *, device: str = "cpu", threads: int = 0, workers: int = 1) -> Weights:
    def load(room: Room) -> Weights:
        room(size)
        return Weights()

    return models.get((name,), load, device=device, threads=threads, workers=workers)


def names(models: LoadedModels) -> list[str]:
    return [key[0] for key in models]


def test_the_least_recently_used_goes_when_memory_is_short() -> None:
    models = LoadedModels(lambda device: 100)
    for name in ("a", "b"):
        of(models, name, 40)
    of(models, "a", 40)
    of(models, "c", 40)
    assert names(models) == ["a", "c"]


def test_what_goes_is_gone_before_the_next_is_loaded() -> None:
    models = LoadedModels(lambda device: 100)
    first = weakref.ref(of(models, "a", 80))
    alive: list[bool] = []

    def load(room: Room) -> Weights:
        room(80)
        alive.append(first() is not None)
        return Weights()

    models.get(("b",), load)
    assert alive == [False]


def test_no_more_goes_than_is_needed_and_of_no_other_device() -> None:
    models = LoadedModels({"cpu": 100.0, "cuda": 50.0}.__getitem__)
    for name in ("a", "b", "c"):
        of(models, name, 30)
    of(models, "on the gpu", 50, device="cuda")
    of(models, "d", 40)
    assert names(models) == ["b", "c", "on the gpu", "d"]


def test_a_model_in_use_stays_whatever_the_memory_and_goes_once_it_is_idle() -> None:
    models = LoadedModels(lambda device: 100)
    with models.in_use():
        used = of(models, "a", 80)
        of(models, "b", 80)
        assert of(models, "a", 80) is used
        assert names(models) == ["b", "a"]
    of(models, "c", 20)
    assert names(models) == ["a", "c"]


def test_what_one_of_two_stages_still_uses_stays() -> None:
    models = LoadedModels(lambda device: 100)
    with models.in_use():
        of(models, "a", 80)
        inside, leave = threading.Event(), threading.Event()

        def stage() -> None:
            with models.in_use():
                of(models, "a", 80)
                inside.set()
                assert leave.wait(10)

        other = threading.Thread(target=stage)
        other.start()
        assert inside.wait(10)
    of(models, "b", 80)
    assert names(models) == ["a", "b"]
    leave.set()
    other.join()
    of(models, "c", 20)
    assert names(models) == ["b", "c"]


def test_weights_for_more_workers_replace_those_for_fewer_and_serve_fewer_as_well() -> None:
    models = LoadedModels(lambda device: 1000)
    one = of(models, "a", 80, threads=2, workers=1)
    two = of(models, "a", 80, threads=2, workers=2)
    assert two is not one and names(models) == ["a"]
    assert of(models, "a", 80, threads=2, workers=1) is two
    assert of(models, "a", 80, threads=4, workers=1) is not two
    assert names(models) == ["a"]


def test_weights_in_use_are_shared_rather_than_loaded_twice() -> None:
    models = LoadedModels(lambda device: 1000)
    with models.in_use():
        one = of(models, "a", 80, workers=1)
        assert of(models, "a", 80, workers=4) is one
    assert of(models, "a", 80, workers=4) is not one


def test_when_memory_runs_out_in_a_stage_what_others_left_loaded_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    models = LoadedModels(lambda device: 1000)
    monkeypatch.setattr(loaded, "MODELS", models)
    of(models, "idle", 10)
    with pytest.raises(OutOfMemory), using_models("asr"):
        of(models, "used", 10)
        raise MemoryError
    assert names(models) == ["used"]


def test_whisper_is_loaded_once_although_shards_ask_for_other_workers(
    models_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = LoadedModels()
    monkeypatch.setattr(loaded, "MODELS", models)
    resolved = resolve_asr("tiny.en", None, models_dir=models_dir, offline=True)
    options = RuntimeOptions(models_dir=str(models_dir), offline=True, device="cpu", threads=2)
    with models.in_use():
        whole = load_whisper(resolved, models_dir, options)
        assert load_whisper(resolved, models_dir, options.model_copy(update={"threads": 1, "workers": 2})) is whole
    assert len(list(models)) == 1
    assert next(iter(models._kept.values())).size > 50e6


def test_the_bytes_of_a_folder_are_those_of_all_its_files(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "a").write_bytes(bytes(3))
    (tmp_path / "in" / "b").write_bytes(bytes(4))
    assert (bytes_in(tmp_path), bytes_in(tmp_path / "a")) == (7, 3)


def test_a_model_is_loaded_once_for_many_threads() -> None:
    models, loads = LoadedModels(), list[int]()

    def load(room: Room) -> object:
        loads.append(1)
        time.sleep(0.05)
        return object()

    found: list[object] = []
    threads = [threading.Thread(target=lambda: found.append(models.get(("shared",), load))) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(loads) == 1
    assert len(set(map(id, found))) == 1
    assert models.get(("other",), load) is not found[0]


def test_different_models_load_side_by_side() -> None:
    """One that takes long must not hold up another."""
    models, inside, release = LoadedModels(), threading.Event(), threading.Event()

    def slow(room: Room) -> str:
        inside.set()
        assert release.wait(10)
        return "slow"

    thread = threading.Thread(target=models.get, args=(("slow",), slow))
    thread.start()
    assert inside.wait(10)
    assert models.get(("quick",), lambda room: "quick") == "quick"
    release.set()
    thread.join()


def test_a_failed_load_is_tried_again() -> None:
    models = LoadedModels()

    def fail(room: Room) -> str:
        raise OSError("not this time")

    with pytest.raises(OSError, match="not this time"):
        models.get(("failing",), fail)
    assert models.get(("failing",), lambda room: "loaded") == "loaded"
