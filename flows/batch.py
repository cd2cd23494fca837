"""Many recordings, as a flow: list them, skip what is done, transcribe the rest, say what came of each."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, ClassVar, cast

from prefect import flow
from prefect.context import FlowRunContext
from prefect.states import Failed

from flows.attempts import retried_by_a_person
from flows.batching.children import DEPLOYMENT, Children, find_deployment
from flows.batching.drive import BatchEvent, Drive, notify
from flows.batching.lease import leased
from flows.batching.request import BatchRequest
from flows.batching.table import BatchResult, Table, publish_table
from flows.cancellation import cancelled_from_outside
from flows.served import requested, served
from infra.names import display_name
from infra.settings import get_settings
from stenoflow.errors import InvalidOption, StenoError

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import FlowRun

__all__ = ["BatchIncomplete", "BatchRequest", "BatchResult", "batch"]


class BatchIncomplete(StenoError):
    """Some recordings of the batch could not be transcribed; its result says which."""

    code: ClassVar[str] = "batch_incomplete"

    def __init__(self, message: str, result: BatchResult | None = None) -> None:
        super().__init__(message)
        self.result = result


def _run_name() -> str:
    return f"batch of {display_name(requested('source'))}"


@flow(name="batch", flow_run_name=_run_name, persist_result=False, validate_parameters=False)
@served
async def batch(request: BatchRequest) -> BatchResult:
    """Transcribe every new recording that a source lists: a folder, a bucket, a manifest, a podcast feed.

    Recordings that were done before with these options are skipped, failures of some do not end the others, and a batch
    that was killed goes on where it was. Raises BatchBusy when the same batch is at work already, BatchIncomplete when
    some recordings failed, and the errors of `infra.listing`.

    Args:
        request: What lists the recordings, their options, and where the files go.
    """
    async with cancelled_from_outside():
        result = await _run(request)
    if result.failed or result.quarantined or result.trouble:
        return cast(BatchResult, _incomplete(result))
    return result


async def _run(request: BatchRequest) -> BatchResult:
    context = FlowRunContext.get()
    assert context is not None and context.flow_run is not None
    run, client = context.flow_run, cast("PrefectClient", context.client)
    notify(BatchEvent("started", run.name, str(run.id)))
    retry = request.retry_failed or await _retried(client, run)
    deployment = await find_deployment(client)
    if request.run_on == "workers" and deployment is None:
        raise InvalidOption(
            f"The deployment {DEPLOYMENT} is not registered, so no worker can take runs; run `steno deploy` first."
        )
    async with leased(request.key(get_settings()), str(run.id)) as campaign:
        children = Children(client, run.id, campaign, deployment)
        await children.find_left()
        table = Table(request.output_dir, str(run.id))
        try:
            await Drive(request, table, children, campaign, retry=retry).run()
            return await _finish(table, request)
        except BaseException:
            with contextlib.suppress(OSError):
                table.discard()
            raise


async def _finish(table: Table, request: BatchRequest) -> BatchResult:
    import asyncio

    result = await asyncio.to_thread(table.finish)
    await publish_table(table, result, display_name(request.source))
    return result


async def _retried(client: PrefectClient, run: FlowRun) -> bool:
    """Whether a person pressed Retry on this batch: then what failed in it is tried again."""
    if run.run_count == 0:
        return False
    states = sorted(await client.read_flow_run_states(run.id), key=lambda state: state.timestamp)
    last_end = max((place for place, state in enumerate(states) if state.is_failed()), default=None)
    return last_end is not None and any(retried_by_a_person(state) for state in states[last_end:])


def _incomplete(result: BatchResult) -> Any:
    message = f"{result.sentence} Retry the batch to repeat the failed ones; {result.table or 'its table'} has the reasons."
    if result.trouble:
        message = f"{result.sentence} {result.trouble}"
    return Failed(name="Incomplete", message=message, data=BatchIncomplete(message, result))
