"""One attempt at telling the owner of a job that it has ended."""

from __future__ import annotations

import asyncio
from typing import Any

from prefect import State, Task
from prefect.cache_policies import NO_CACHE
from prefect.states import Completed

from infra.compute import get_store
from infra.post import Answer, posted
from infra.settings import get_settings
from infra.webhooks import signed, subscription
from stenoflow.errors import StenoError
from tasks.records import RecordStorage

_NOBODY = Answer(None, "The address has expired")


async def _deliver(number: int, to: str, message_id: str, body: str) -> State[Answer]:
    """Sign the message and send it once; the state's data is the Answer, which says whose it is.

    `number` counts the attempts, `to` is the id of a subscription.
    """
    try:
        answer = await _answer(to, message_id, body.encode())
    except StenoError as error:
        answer = Answer(None, error.message.rstrip("."))
    # Completed in any case: what the attempt means is the flow's to say, and Prefect logs a failed task as a defect.
    return Completed(name="Accepted" if answer.accepted else "NotAccepted", message=f"{answer.said}.", data=answer)


async def _answer(to: str, message_id: str, body: bytes) -> Answer:
    settings = get_settings()
    store = await asyncio.to_thread(get_store, settings)
    address = await asyncio.to_thread(subscription, store, to)
    if address is None:
        return _NOBODY
    headers = await asyncio.to_thread(signed, store, address.owner, message_id, body)
    answer = await posted(address.url, body, headers, settings.net, settings.webhooks.timeout)
    return answer._replace(said=f"{address.host} {answer.said}")


deliver: Task[Any, Any] = Task(
    fn=_deliver, name="deliver", task_run_name="attempt {number}", cache_policy=NO_CACHE, persist_result=False
)
# As for every task of ours: Prefect's default storage is asked for with requests of its own.
deliver.result_storage = RecordStorage()
