"""The settings of a process: the environment's, with what its command line says above them; read once, compared by value."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from infra.compute import get_store
from infra.settings import StenoSettings, get_settings

pytestmark = pytest.mark.usefixtures("steno")


def test_what_a_command_says_stands_above_the_environment_and_leaves_the_rest_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STENO_COMPUTE__DEVICE", "cuda")
    monkeypatch.setenv("STENO_COMPUTE__WORKERS", "3")
    before = dict(os.environ)
    get_settings.use(compute={"device": "cpu", "threads": 2})
    compute = get_settings().compute
    assert (compute.device, compute.threads, compute.workers) == ("cpu", 2, 3)
    assert dict(os.environ) == before
    get_settings.cache_clear()
    assert get_settings().compute.device == "cuda"


def test_a_child_process_has_the_settings_of_its_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    get_settings.use(compute={"device": "cpu", "threads": 2})
    code = "from infra.settings import get_settings; print(get_settings().compute.device, get_settings().compute.threads)"
    environment = os.environ | get_settings.environment() | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["cpu", "2"]


def test_the_process_that_computes_a_batch_has_the_options_of_its_command() -> None:
    from flows.batching.here import _environment

    get_settings.use(compute={"device": "cpu"})
    assert _environment()["STENO_COMPUTE__DEVICE"] == "cpu"


def test_equal_settings_have_one_store_and_others_another(tmp_path: Path) -> None:
    first, same = (StenoSettings(home=tmp_path) for _ in range(2))
    assert first is not same
    assert get_store(first) is get_store(same)
    assert get_store(first).locks is get_store(same).locks
    assert get_store(StenoSettings(home=tmp_path / "other")) is not get_store(first)
