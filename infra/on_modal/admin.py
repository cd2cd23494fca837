"""What `steno modal` does: deploy the app, check its GPUs, fill its weights volume, say how it is and what it has cost. Awaited in an
event loop."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections import defaultdict
from datetime import date, datetime
from typing import Any

from infra.on_modal import about
from infra.on_modal.contract import CLASSES, RECORDINGS, code_fingerprint
from infra.on_modal.errors import modal_errors
from infra.settings import ModalSettings, StenoSettings
from stenoflow import isolated
from stenoflow.errors import ModalNotDeployed


async def require_account() -> None:
    """Raises ModalDenied without a token that Modal accepts."""
    import modal

    with modal_errors("a greeting"):
        client = await modal.Client.from_env.aio()
        await client.hello.aio()  # type: ignore[no-untyped-call]


def secret_name(settings: ModalSettings) -> str:
    """Of the secret that `deploy` makes of the hub token."""
    return f"{settings.app}-hub-token"


async def has_secret(settings: ModalSettings) -> bool:
    """Whether an earlier deployment made it."""
    import modal
    from modal import exception

    with modal_errors("a look at the secrets"):
        try:
            await modal.Secret.from_name(secret_name(settings), environment_name=settings.environment).hydrate.aio()
        except exception.NotFoundError:
            return False
    return True


async def make_secret(settings: ModalSettings, token: str) -> None:
    """Keep the hub token as a Modal secret, in place of an earlier one."""
    import modal

    name, where = secret_name(settings), settings.environment
    with modal_errors("making the secret of the hub token"):
        await modal.Secret.objects.delete.aio(name, allow_missing=True, environment_name=where)
        await modal.Secret.objects.create.aio(name, {"HF_TOKEN": token}, environment_name=where)


async def deploy(settings: StenoSettings, *, quiet: bool, hf_secret: str = "") -> str:
    """`modal deploy`, with its own words on the terminal unless `quiet`. What it printed, when it succeeds.

    `hf_secret` names the secret with the hub token, if the settings name none.

    Raises ModalDenied, and ModalNotDeployed when Modal refuses the app.
    """
    await require_account()
    command = isolated.command("infra.on_modal.deploy")
    if settings.modal.environment:
        command += ["--env", settings.modal.environment]
    secret = settings.modal.hf_secret or hf_secret
    env = os.environ | {"STENO_MODAL__HF_SECRET": secret}
    done = await asyncio.to_thread(
        subprocess.run, command, stdin=subprocess.DEVNULL, capture_output=quiet, text=True, check=False, env=env
    )
    if done.returncode:
        said = [line.strip(" │") for line in (done.stderr or done.stdout or "").splitlines() if line.strip(" │╭╰─╮╯")]
        raise ModalNotDeployed(
            f"`modal deploy` failed ({said[-1] if said else 'see above'}); the previous deployment is unchanged."
        )
    await asyncio.to_thread(about.write, settings.modal, settings.models_path, token=bool(secret))
    return done.stdout or ""


async def check(settings: StenoSettings) -> dict[str, Any]:
    """Facts of a container that was asked to use its GPU; `problems` says what does not work. Starts a container."""
    import modal

    with modal_errors("the check"):
        function = modal.Function.from_name(settings.modal.app, "smoke", environment_name=settings.modal.environment)
        facts: dict[str, Any] = await function.remote.aio()
    if facts["code"] != code_fingerprint():
        facts["problems"].append("The deployed app has another version than this machine; run `steno modal deploy`.")
    return facts


async def warm(settings: StenoSettings, models: list[str], languages: list[str]) -> list[dict[str, Any]]:
    """A row for each set of weights that is now on the volume, or why it is not."""
    import modal

    with modal_errors("fetching weights"):
        function = modal.Function.from_name(settings.modal.app, "warm", environment_name=settings.modal.environment)
        rows: list[dict[str, Any]] = await function.remote.aio(models, languages)
    return rows


async def status(settings: StenoSettings) -> dict[str, Any]:
    """The app's page, and for each class its containers and the calls that wait."""
    import modal

    where = {"app": settings.modal.app, "environment": settings.modal.environment or "default"}
    classes: dict[str, Any] = {}
    with modal_errors("a look at the app"):
        for name in sorted({*CLASSES.values(), RECORDINGS}):
            kind = modal.Cls.from_name(settings.modal.app, name, environment_name=settings.modal.environment)
            stats = await kind().ready.get_current_stats.aio()  # its methods share their containers
            classes[name] = {"containers": stats.num_total_runners, "waiting": stats.backlog}
        page = await (
            await modal.App.lookup.aio(settings.modal.app, environment_name=settings.modal.environment)
        ).get_dashboard_url.aio()
    return where | {"dashboard": page, "classes": classes}


async def billed(settings: StenoSettings, start: datetime, end: datetime) -> dict[date, float]:
    """What Modal itself says: dollars of the deployed app by day, in UTC: all of its functions, with what containers take to start and to wait.

    `start` and `end` are midnights in UTC. Raises ModalDenied and TransientError.
    """
    import modal

    days: defaultdict[date, float] = defaultdict(float)
    with modal_errors("a look at the bill"):
        for item in await modal.Workspace.from_context().billing.report.aio(start=start, end=end):
            elsewhere = settings.modal.environment and item.environment_name != settings.modal.environment
            if item.description == settings.modal.app and not elsewhere:
                days[item.interval_start.date()] += float(item.cost)
    return dict(days)
