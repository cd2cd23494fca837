"""Prefect's private parts that we use: their names, their parameters, why, and where upstream speaks of it.

An upgrade that moves one fails in `tests/flows/test_prefect_compat.py`, with the sentence that `changed` gives. A part of which Prefect's
documentation speaks, but which is used in a way it does not, counts as private.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator
from typing import Any, NamedTuple

ISSUES = "https://github.com/PrefectHQ/prefect/issues"


class Part(NamedTuple):
    """One private part."""

    name: str
    """`module:attribute`."""
    why: str
    takes: str = ""
    """Parameters that it is called with, by name; all of them, in order, where it is replaced or overridden."""
    replaced: bool = False
    issue: int | None = None
    """Upstream, where there is one."""


def _parts() -> Iterator[Part]:  # noqa: PLR0915  a table
    def used(name: str, why: str, takes: str = "", issue: int | None = None) -> Part:
        return Part(name, why, takes, issue=issue)

    def replaced(name: str, why: str, takes: str = "", issue: int | None = None) -> Part:
        return Part(name, why, takes, replaced=True, issue=issue)

    # -- engine
    there = "executes a run that was made elsewhere; a flow's own call makes a new one"
    yield used("prefect.flow_engine:run_flow_async", there, "flow flow_run parameters return_type")
    yield used("prefect.flow_engine:run_flow", there, "flow flow_run return_type")
    worker = "the process of a run does as `prefect.engine` does, but for what it loads"
    yield used("prefect.flow_engine:load_flow_run", worker, "flow_run_id")
    yield used("prefect._internal.control_listener:configure_from_env", worker)
    yield used("prefect.engine:handle_engine_signals", worker, "flow_run_id")
    yield replaced("prefect.flow_engine:capture_sigterm", "SIGTERM would raise out of a command's event loop", issue=23025)
    yield used("prefect.logging.handlers:APILogWorker.drain_all", "a command that ends at once sends its last lines", "timeout")
    yield used("prefect.transactions:Transaction.write_on_commit", "a cancelled stage leaves no result")
    yield used("prefect.context:FlowRunContext.run_results", "Prefect draws edges by the address of results", issue=20558)
    yield used(
        "prefect.results:ResultStore._resolved_key_path", "it asks a storage for absolute paths; our keys are names", "key"
    )
    # -- client
    yield used("prefect.context:refresh_global_settings_context", "a command finds its server after Prefect read its settings")
    yield used("prefect.main:Flow", "importing `prefect.main` makes the handlers of the log")
    # -- worker
    back = "a worker that is stopped puts its runs back into the queue"
    yield used("prefect.runner._control_channel:ControlSignalStatus.ALREADY_CONCLUDED", back, issue=16746)
    yield used("prefect.runner._control_channel:ControlSignalStatus.ACKNOWLEDGED", back, issue=16746)
    yield used("prefect.utilities.engine:propose_state", back, "client state flow_run_id", issue=16746)
    ours = "a run's process is started by its worker alone, with nothing that the API names"
    executor = "prefect.runner._flow_run_executor:FlowRunExecutorContext"
    yield used(f"{executor}.create_executor", ours, "flow_run starter hook_runner propose_submitting")
    yield used(f"{executor}.process_manager", back, issue=16746)
    yield used(f"{executor}.client", back, issue=16746)
    turn = "runs are executed one after another by processes that stay"
    yield used("prefect.runner._process_manager:ProcessHandle", turn, "_process termination_scope")
    scope = "prefect.runner._process_manager:ProcessTerminationScope"
    yield used(f"{scope}.wait_after_graceful_kill", turn)
    yield replaced(f"{scope}.is_alive", turn, "self pid")
    yield replaced(f"{scope}.graceful_kill", turn, "self pid")
    yield replaced(f"{scope}.hard_kill", turn, "self pid")
    yield replaced(f"{scope}.close", turn, "self")
    yield replaced("prefect.runner._flow_run_executor:ProcessStarter.start", turn, "self flow_run task_status")
    yield used("prefect.runner._control_channel:ControlChannel.register", turn, "flow_run_id")
    yield used("prefect._internal.control_listener:stop", turn)
    yield used("prefect._internal.control_listener:get_intent", turn)
    yield used("prefect.events.worker:EventsWorker.drain_all", turn, "timeout")
    yield replaced("prefect.runner._hook_runner:FlowRunHookRunner.run_cancellation_hooks", ours, "self flow_run state")
    yield replaced("prefect.runner._hook_runner:FlowRunHookRunner.run_crashed_hooks", ours, "self flow_run state")
    yield replaced(
        "prefect.workers.base:BaseJobConfiguration.from_template_and_values", ours, "cls base_job_template values client"
    )
    base = "prefect.workers.base:BaseWorker"
    soon = "a run that is due again while it holds its slot ends the worker"
    yield replaced(f"{base}.get_and_submit_flow_runs", "a worker that is shutting down takes no more runs", "self")
    yield replaced(f"{base}._get_scheduled_flow_runs", soon, "self", 16806)
    yield replaced(f"{base}._submit_scheduled_flow_runs", soon, "self flow_run_response", 16806)
    yield replaced(f"{base}.run", ours, "self flow_run configuration task_status")
    yield used("prefect.workers.base:BaseVariables", "the courier's runs have no variables")
    yield used("prefect.workers.base:BaseWorkerResult", "the courier's runs are no processes", "identifier status_code")
    early = "a run that is cancelled before its process starts would stay Cancelling"
    yield used(f"{base}._mark_flow_run_as_cancelled", early, "flow_run state_updates")
    yield replaced("prefect.workers.process:ProcessWorker.run", early, "self flow_run configuration task_status")
    yield used("prefect.workers.process:ProcessJobConfiguration", ours, "command env stream_output working_dir")
    yield used("prefect.workers.process:ProcessWorkerResult", ours, "identifier status_code")
    # -- server
    app = "Prefect's server with our doors, turns and routes"
    yield used("prefect.server.api.server:create_app", app, "ephemeral final")
    locked = "transactions on SQLite that read first and write then are refused at once"
    sqlite = "prefect.server.database.configurations:AioSqliteConfiguration"
    yield replaced(f"{sqlite}.begin_transaction", locked, "self session with_for_update", 18934)
    yield replaced(f"{sqlite}.setup_sqlite", "what is deleted is overwritten", "self conn record")
    yield used("prefect.server.database.dependencies:MODELS_DEPENDENCIES", locked, issue=18934)
    twice = "events that come twice fail the whole batch, and what is new in it is dropped"
    yield replaced("prefect.server.events.storage.database:_write_sqlite_events", twice, "db session events")
    yield used("prefect.server.events.storage.database:_in_safe_batches", twice, "events")
    tables = "what a run left is erased with it, and old runs are pruned"
    interface = "prefect.server.database.interface:PrefectDBInterface"
    yield used("prefect.server.database:provide_database_interface", tables)
    yield used(f"{interface}.session_context", tables, "begin_transaction with_for_update")
    yield used(f"{interface}.session", tables)
    yield used(f"{interface}.dialect", tables)
    yield used(f"{interface}.create_db", "one process at a time migrates the database")
    yield used(
        "prefect.server.database.orm_models:BaseORMConfiguration.versions_dir", "a newer database is refused in a sentence"
    )
    for table in (
        *("Artifact", "ArtifactCollection", "AutomationBucket", "AutomationEventFollower", "CompositeTriggerChildFiring"),
        *("Event", "EventResource", "Flow", "FlowRun", "FlowRunInput", "FlowRunState", "Log", "TaskRun", "TaskRunState"),
        "TaskRunStateCache",
    ):
        yield used(f"prefect.server.database.orm_models:{table}", tables)
    yield used("prefect.server.schemas.states:TERMINAL_STATES", tables)
    yield replaced(
        "prefect.server.events.services.event_persister:write_events", "three of four events are not stored", "session events"
    )
    asleep = "a machine that slept is not one whose runs are silent"
    yield replaced("prefect.server.events.triggers:reactive_evaluation", asleep, "event depth", 16459)
    yield replaced("prefect.server.events.triggers:evaluate_proactive_triggers", asleep, "", 16459)
    yield used("prefect.server.events.models.automations:automations_session", asleep, "begin_transaction", 16459)
    restart = "after a restart, automations would wait for events that the server before has handled"
    yield replaced("prefect.server.events.ordering.memory:CausalOrdering.wait_for_leader", restart, "self event")
    yield used("prefect.server.events.schemas.events:ReceivedEvent", restart)


PARTS = tuple(_parts())


def changed(part: Part) -> str | None:
    """What an installed Prefect does otherwise with this part, in a sentence; None where it is as it was."""
    import prefect

    said = f"Prefect {prefect.__version__} has no `{part.name}`"
    try:
        found = _find(part.name)
    except (ImportError, AttributeError):
        found = None
    else:
        needed = part.takes.split()
        there = list(inspect.signature(found).parameters) if needed or part.replaced else []
        if there == needed if part.replaced else not set(needed) - set(there):
            return None
        said = (
            f"Prefect {prefect.__version__} has `{part.name}` take ({', '.join(there)}), and we count on ({', '.join(needed)})"
        )
    issue = f" ({ISSUES}/{part.issue})" if part.issue else ""
    return f"{said}: {part.why}{issue}. Mend `flows.prefect_compat`, or lower the bound on Prefect in pyproject.toml."


def _find(name: str) -> Any:
    """The part itself; of a field, its class. Raises ImportError or AttributeError."""
    module, _, path = name.partition(":")
    found: Any = importlib.import_module(module)
    for step in path.split("."):
        if isinstance(found, type) and _is_field(found, step):
            return found
        found = inspect.getattr_static(found, step)
        if isinstance(found, classmethod | staticmethod):
            found = found.__func__
    return found


def _is_field(owner: type, name: str) -> bool:
    return not hasattr(owner, name) and any(name in inspect.get_annotations(base) for base in owner.__mro__)
