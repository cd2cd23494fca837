"""The transcript's files, as a task."""

from __future__ import annotations

from typing import Any

from prefect import Task
from prefect.cache_policies import NO_CACHE

from infra.jobs import in_thread
from tasks.rendering import ExportCall, Exported, render_and_write
from tasks.report import RunLog, defects_contained, progress_of, started
from tasks.retrying import current_attempts, retry_condition, with_retries
from tasks.stopping import ends_cancelled


async def export(log: RunLog, call: ExportCall) -> Exported:
    """Write the files. Raises OutputNotWritable and its kinds, StorageFull."""
    return Exported.model_validate(await log.perform("export", with_retries(export_task), call))


@ends_cancelled
async def _export(call: ExportCall) -> dict[str, Any]:
    current_attempts().begin(1)
    started("export")
    with defects_contained("export"):
        exported = await in_thread(lambda report: render_and_write(call, report), progress_of("export"), "export")
    return exported.model_dump(mode="json")


export_task: Task[Any, Any] = Task(
    fn=_export,
    name="export",
    task_run_name="export {call.stem}",
    cache_policy=NO_CACHE,
    persist_result=False,
    retry_condition_fn=retry_condition,
)
