"""Prefect automations for our runs: detect dead ones, restart them, notify operators.

A process worker reports a run as crashed when the run's process dies. The zombie automation covers what nobody is left to
report: the worker died as well, or its machine did. No loop is possible: a run whose process keeps dying ends as Failed
(`flows.attempts`), and nothing here starts a failed run again.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from deployments.catalog import CHILD_TAG, TAG, WEBHOOK_TAG, Change
from flows.attempts import RESTARTED
from infra.settings import StenoSettings
from stenoflow.errors import InvalidOption

if TYPE_CHECKING:
    from uuid import UUID

    from prefect.client.orchestration import PrefectClient
    from prefect.events.schemas.automations import AutomationCore

ZOMBIES = "stenoflow: no sign of life"
RESTART = "stenoflow: restart crashed runs"
NOTIFY = "stenoflow: report failures"
LATE = "stenoflow: report late runs"
CANCELLED = "stenoflow: end cancelled runs"

WEBHOOK_BLOCK = "stenoflow"
"""The notification block made from STENO_DEPLOY__NOTIFY_URL."""

_ALIVE = {"heartbeat", "Pending", "Running"}
_ENDED = {"Cancelled", "Completed", "Failed", "Crashed"}
_SUBJECT = "Stenoflow: {{ flow_run.name }}: {{ flow_run.state.name }}"
_BODY = (
    "{{ flow.name }} run {{ flow_run.name }} is {{ flow_run.state.name }}: {{ flow_run.state.message }}\n{{ flow_run|ui_url }}"
)


async def register_automations(client: PrefectClient, settings: StenoSettings) -> list[Change]:
    """Create or update the automations; those that nothing is configured for any more are removed.

    An automation that an operator has paused stays paused. Raises InvalidOption when the notification block is not there.
    """
    blocks = await _notification_blocks(client, settings)
    wanted = automations(settings, blocks)
    changes = [await _upsert(client, automation) for automation in wanted]
    for name in {NOTIFY} - {automation.name for automation in wanted}:
        for found in await client.read_automations_by_name(name):
            await client.delete_automation(found.id)
            changes.append(Change("automation", name, "removed"))
    return changes


def automations(settings: StenoSettings, blocks: Iterable[UUID] = ()) -> list[AutomationCore]:
    """The automations of these settings; `blocks` are notified of failures and late runs."""
    from prefect.client.schemas.objects import StateType
    from prefect.events.actions import ChangeFlowRunState, DoNothing, SendNotification
    from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture

    deploy = settings.deploy
    tell: list[Any] = [SendNotification(block_document_id=block, subject=_SUBJECT, body=_BODY) for block in blocks]
    late = timedelta(minutes=deploy.late_minutes)

    def trigger(
        tags: list[str], posture: Any, within: timedelta, types: list[str] | None = None, **events: set[str]
    ) -> EventTrigger:
        return EventTrigger(
            match={"prefect.resource.id": ["prefect.flow-run.*"], **({"prefect.state-type": types} if types else {})},
            match_related={
                "prefect.resource.role": "tag",
                "prefect.resource.id": [f"prefect.tag.{tag}" for tag in tags],
            },
            for_each={"prefect.resource.id"},
            posture=posture,
            within=within,
            threshold=1,
            **{kind: {f"prefect.flow-run.{name}" for name in names} for kind, names in events.items()},
        )

    found = [
        AutomationCore(
            name=ZOMBIES,
            description=f"Marks a run without a heartbeat for {deploy.zombie_seconds} s as crashed.",
            trigger=trigger(
                [TAG, CHILD_TAG, WEBHOOK_TAG],
                Posture.Proactive,
                timedelta(seconds=deploy.zombie_seconds),
                after=_ALIVE,
                expect={"*"},
            ),
            actions=[
                ChangeFlowRunState(
                    state=StateType.CRASHED,
                    message=f"No heartbeat for {deploy.zombie_seconds} s: its process or its machine is down.",
                )
            ],
        ),
        AutomationCore(
            name=RESTART,
            description="Puts a crashed run back into the queue; finished stages are reused.",
            trigger=trigger([TAG, WEBHOOK_TAG], Posture.Reactive, timedelta(0), expect={"Crashed"}),
            actions=[ChangeFlowRunState(state=StateType.SCHEDULED, name="AwaitingRetry", message=RESTARTED)],
        ),
        AutomationCore(
            name=CANCELLED,
            description=f"Marks a run that is still cancelling after {deploy.zombie_seconds} s as cancelled.",
            trigger=trigger(
                [TAG, CHILD_TAG],
                Posture.Proactive,
                timedelta(seconds=deploy.zombie_seconds),
                after={"Cancelling"},
                expect=_ENDED,
            ),
            actions=[ChangeFlowRunState(state=StateType.CANCELLED, message="Its process ended without reporting it.")],
        ),
        AutomationCore(
            name=LATE,
            description=f"Reports a run that no worker has started {deploy.late_minutes:g} minutes after it was due.",
            trigger=trigger([TAG, WEBHOOK_TAG], Posture.Proactive, late, after={"Late"}, expect={"*"}),
            actions=tell or [DoNothing()],
        ),
    ]
    if tell:
        found.append(
            AutomationCore(
                name=NOTIFY,
                description="Reports runs that failed, crashed or completed without speakers.",
                trigger=trigger([TAG], Posture.Reactive, timedelta(0), types=["FAILED", "CRASHED"], expect={"*"}),
                actions=tell,
            )
        )
    return found


async def _upsert(client: PrefectClient, automation: AutomationCore) -> Change:
    found = await client.read_automations_by_name(automation.name)
    if not found:
        await client.create_automation(automation)
        return Change("automation", automation.name, "created")
    automation = automation.model_copy(update={"enabled": found[0].enabled})
    if _plain(found[0]) == _plain(automation):
        return Change("automation", automation.name, "unchanged")
    await client.update_automation(found[0].id, automation)
    return Change("automation", automation.name, "updated")


def _plain(automation: AutomationCore) -> Any:
    """What an automation does, without ids the server gave it and without an order where there is none."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(item) for key, item in sorted(value.items()) if key != "id" and item is not None}
        if isinstance(value, list | tuple | set):
            return sorted((plain(item) for item in value), key=repr)
        return value

    return plain(automation.model_dump(mode="json", include={"name", "description", "enabled", "trigger", "actions"}))


# -- whom to tell -------------------------------------------------------------------------------------------------------


async def _notification_blocks(client: PrefectClient, settings: StenoSettings) -> list[UUID]:
    deploy = settings.deploy
    blocks = []
    if deploy.notify_block:
        blocks.append(await _named_block(client, deploy.notify_block))
    if deploy.notify_url:
        blocks.append(await _webhook_block(deploy.notify_url.get_secret_value()))
    return blocks


async def _named_block(client: PrefectClient, reference: str) -> UUID:
    from prefect.exceptions import ObjectNotFound

    kind, _, name = reference.partition("/")
    try:
        return (await client.read_block_document_by_name(name, kind, include_secrets=False)).id
    except ObjectNotFound:
        raise InvalidOption(
            f"There is no Prefect block {reference!r}; create one under Blocks in the UI, and give it as in the address of its "
            "page: slack-webhook/NAME, custom-webhook/NAME."
        ) from None


async def _webhook_block(url: str) -> UUID:
    """A block that posts JSON to the URL, which is kept as a secret: in the webhook formats of chat systems it is one."""
    from prefect.blocks.notifications import CustomWebhookNotificationBlock

    data = {"subject": "{{subject}}", "body": "{{body}}", "text": "{{subject}}\n{{body}}"}
    block = CustomWebhookNotificationBlock(name="Stenoflow", url="{{url}}", json_data=data, secrets={"url": url})
    return await block.save(WEBHOOK_BLOCK, overwrite=True)  # type: ignore[no-any-return]
