"""Fixtures that every room may use: a home of its own for each test, and one real Prefect server for all."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.settings import StenoSettings, get_settings
from infra.telemetry import hush
from tests.cloud_storage import azure_storage, google_storage
from tests.prefect_home import prefect_home
from tests.s3_faults import faulty_s3, s3_service

# Here once: a module that imported them would have servers of its own.
__all__ = ["azure_storage", "faulty_s3", "google_storage", "s3_service"]

hush()


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A real Prefect server with a database of its own, started once: start-up is slow."""
    from prefect.settings import PREFECT_LOGGING_LEVEL, temporary_settings
    from prefect.testing import utilities

    home = prefect_home(tmp_path_factory.mktemp("prefect"))
    (home / "prefect.db").rename(home / "prefect-test.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(utilities, "mkdtemp", lambda: str(home))
        with (
            temporary_settings({PREFECT_LOGGING_LEVEL: "WARNING"}),
            utilities.prefect_test_harness(server_startup_timeout=240),
        ):
            yield


@pytest.fixture
def steno(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StenoSettings]:
    """Settings that keep everything under the test's folder and wait for nothing."""
    monkeypatch.setenv("STENO_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("STENO_RETRY__DELAY", "0.01")
    for name in ("STENO_STORE", "STENO_SCRATCH", "STENO_MODEL", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    get_settings.cache_clear()
    yield get_settings()
    get_settings.cache_clear()


@pytest.fixture(scope="session")
def models_dir() -> Iterator[Path]:
    """One folder of joined and converted weights for all tests and the processes they start: making it takes a minute."""
    with pytest.MonkeyPatch.context() as patch:
        folder = Path(os.environ.get("STENO_MODELS_DIR") or Path(__file__).parents[1] / ".cache" / "models")
        patch.setenv("STENO_MODELS_DIR", str(folder))
        yield folder


LENGTHY = {"test_audio", "test_networks", "test_wav2vec2", "test_sources"}
"""Modules that load models, decode dozens of files or wait for broken servers, and take most of a minute each."""


SLOWEST = 10


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say which files took longest, setting up and tearing down included: what to look at first when the suite gets slow."""
    seconds, tests = defaultdict[str, float](float), Counter[str]()
    for reports in terminalreporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport):
                seconds[report.nodeid.partition("::")[0]] += report.duration
                tests[report.nodeid.partition("::")[0]] += report.when == "call"
    if len(seconds) > SLOWEST:
        terminalreporter.section(f"slowest {SLOWEST} of {len(seconds)} files")
        for name, sum_ in sorted(seconds.items(), key=lambda file: -file[1])[:SLOWEST]:
            terminalreporter.write_line(f"{sum_:7.1f} s  {tests[name]:4} tests  {name}")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What needs a Prefect server, or is in a lengthy module, is no part of the fast tests."""
    for item in items:
        fixtures = getattr(item, "fixturenames", ())
        if "prefect_server" in fixtures or item.path.stem in LENGTHY:
            item.add_marker(pytest.mark.slow)
