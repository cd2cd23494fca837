"""What the worker and the runs' processes use of Prefect's private parts: these fail when an upgrade moves them."""

from __future__ import annotations

import inspect

import prefect.context
import prefect.engine
import prefect.flow_engine
from prefect._internal import control_listener
from prefect.runner._flow_run_executor import FlowRunExecutorContext
from prefect.runner._hook_runner import FlowRunHookRunner
from prefect.workers.base import BaseJobConfiguration, BaseWorker

from deployments.worker import NoHooks


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
    assert callable(control_listener.configure_from_env)
    assert list(inspect.signature(prefect.engine.handle_engine_signals).parameters) == ["flow_run_id"]
    assert {"flow", "flow_run", "return_type"} <= set(inspect.signature(prefect.flow_engine.run_flow).parameters)


def test_hooks_are_run_by_what_the_executor_is_given() -> None:
    assert "hook_runner" in inspect.signature(FlowRunExecutorContext.create_executor).parameters
    asked = {name for name in vars(FlowRunHookRunner) if name.startswith("run_")}
    assert asked == {name for name in vars(NoHooks) if name.startswith("run_")}


def test_settings_are_read_anew_when_a_command_has_found_its_server() -> None:
    assert callable(prefect.context.refresh_global_settings_context)
