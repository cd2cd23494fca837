"""One served API for all tests of this folder that do not restart or limit it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.api.guarded import guarded_api
from tests.api.live import LiveApi

__all__ = ["guarded_api"]


@pytest.fixture(scope="package")
def served_api(tmp_path_factory: pytest.TempPathFactory, models_dir: Path) -> Iterator[LiveApi]:
    with LiveApi.start(tmp_path_factory.mktemp("api"), {"STENO_MODELS_DIR": str(models_dir)}) as live:
        yield live


@pytest.fixture
def live_api(served_api: LiveApi) -> Iterator[LiveApi]:
    """The served API, whose stages succeed at once unless the test plans otherwise."""
    served_api.deployed.plan()
    yield served_api
    served_api.deployed.plan()
