"""What we use of Prefect's private parts is there: these fail when an upgrade moves them, each with a sentence."""

from __future__ import annotations

import ast
import inspect
import logging
from importlib import metadata
from pathlib import Path

import prefect.engine
import pytest
from packaging.requirements import Requirement
from prefect.logging.handlers import PrefectConsoleHandler
from prefect.results import ResultStore
from prefect.runner._flow_run_executor import FlowRunExecutorContext
from prefect.runner._hook_runner import FlowRunHookRunner
from prefect.workers.base import BaseJobConfiguration, BaseWorker

from flows.prefect_compat import pinned
from flows.prefect_compat.client import log_errors_only
from flows.prefect_compat.pinned import PARTS, Part, changed
from flows.prefect_compat.worker import NoHooks
from tests.test_layering import is_public_part, private_imports

ROOM = Path(pinned.__file__).parent


@pytest.mark.parametrize("part", PARTS, ids=[part.name for part in PARTS])
def test_a_private_part_is_as_we_use_it(part: Part) -> None:
    assert changed(part) is None


def test_a_part_that_moved_or_takes_something_else_is_told_of_with_its_reason() -> None:
    gone = changed(Part("prefect.engine:no_such_thing", "it was needed", issue=7))
    assert gone is not None and "has no `prefect.engine:no_such_thing`: it was needed (https://github.com" in gone
    other = changed(Part("prefect.engine:handle_engine_signals", "it was needed", "flow_run"))
    assert other is not None and "take (flow_run_id), and we count on (flow_run)" in other
    more = changed(Part("prefect.flow_engine:load_flow_run", "it was replaced", "", replaced=True))
    assert more is not None and "take (flow_run_id), and we count on ()" in more


@pytest.mark.parametrize("path", sorted(ROOM.glob("*.py")), ids=lambda path: path.name)
def test_every_private_part_that_the_room_imports_is_pinned(path: Path) -> None:
    pins = {part.name for part in PARTS}
    modules = {name.partition(":")[0] for name in pins}
    for name in private_imports(ast.parse(path.read_text(encoding="utf-8"))):
        module, _, attribute = name.partition(":")
        pinned_part = any(pin == name or pin.startswith(f"{name}.") for pin in pins)
        assert pinned_part or f"{module}.{attribute}".removesuffix(".") in modules, f"{path.name} uses {name}"


def test_documented_modules_are_not_taken_for_private() -> None:
    assert is_public_part("prefect.client.orchestration", "get_client")
    assert not is_public_part("prefect.server.database", "provide_database_interface")
    assert not is_public_part("prefect.flow_engine", "run_flow_async")
    assert not is_public_part("prefect.states", "_private")


def test_prefects_own_requirements_are_met() -> None:
    """Also where another Prefect stands over the locked one (`make test-bounds`)."""
    for text in metadata.requires("prefect") or ():
        wanted = Requirement(text)
        if wanted.marker is None or wanted.marker.evaluate({"extra": ""}):
            assert wanted.specifier.contains(metadata.version(wanted.name), prereleases=True), text


# -- how a part behaves, where its parameters do not say it -------------------------------------------------------------


def test_a_configuration_comes_from_one_function() -> None:
    """The worker overrides it: whatever reads the pool's template or job variables must go through it."""
    assert "cls.from_template_and_values(" in inspect.getsource(BaseJobConfiguration.resolve_for_flow_run)
    submitting = inspect.getsource(BaseWorker._submit_run_and_capture_errors)
    assert "self.job_configuration.resolve_for_flow_run(" in submitting
    assert "base_job_template" not in submitting and "job_variables" not in submitting


def test_a_runs_process_is_that_of_prefects_engine_but_for_what_it_loads() -> None:
    main = inspect.getsource(prefect.engine).partition('if __name__ == "__main__":')[2]
    for name in ("PREFECT__FLOW_RUN_ID", "configure_from_env()", "handle_engine_signals(flow_run_id)", "load_flow_run("):
        assert name in main


def test_hooks_are_run_by_what_the_executor_is_given() -> None:
    asked = {name for name in vars(FlowRunHookRunner) if name.startswith("run_")}
    assert asked == {name for name in vars(NoHooks) if name.startswith("run_")}


def test_a_run_is_stopped_by_its_executors_channel() -> None:
    assert "control_channel" in dir(FlowRunExecutorContext()) or "control_channel" in inspect.getsource(FlowRunExecutorContext)


def test_a_storages_absolute_path_is_asked_for_and_may_be_none() -> None:
    assert "_resolve_path" in inspect.getsource(ResultStore._resolved_key_path)


def test_the_workers_slots_are_those_of_one_limiter() -> None:
    assert "self._limiter.acquire_on_behalf_of_nowait(flow_run.id)" in inspect.getsource(BaseWorker)


def test_only_prefects_console_is_limited_to_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    console, other = PrefectConsoleHandler(), logging.StreamHandler()
    monkeypatch.setattr(logging.getLogger(), "handlers", [console, other])
    log_errors_only()
    assert (console.level, other.level) == (logging.ERROR, logging.NOTSET)
