"""The Prefect API that is deployed to: asked before anything is changed, so that what is wrong is said in a sentence."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from deployments.catalog import Change
from flows import orphans
from flows.local_server.server import check_api, find_api, refusal, shown
from flows.prefect_compat.client import log_errors_only
from infra.settings import StenoSettings
from stenoflow.errors import ApiUnreachable, NoApi


def target() -> str:
    """The URL of the configured API, or of the `steno up` that runs here, once it answers. Raises NoApi or ApiUnreachable."""
    url = find_api()
    if not url:
        raise NoApi(
            "No Prefect API to deploy to: set PREFECT_API_URL (and PREFECT_API_KEY for Prefect Cloud), "
            "or start one on this machine with `steno up`."
        )
    check_api(url)
    return url


def deploy(settings: StenoSettings, url: str) -> list[Change]:
    """Register everything at `url`. Raises ApiDenied, ApiUnreachable, ApiRefused, and InvalidOption for settings."""
    from deployments.register import register

    async def registered() -> list[Change]:
        from prefect.client.orchestration import get_client

        async with get_client(httpx_settings={"timeout": 60.0}) as client:
            return await register(client, settings)

    return asyncio.run(_translated(registered(), url))


def registered(settings: StenoSettings, url: str) -> bool:
    """Whether our work pool is there. Raises as `deploy` does."""

    async def there() -> bool:
        from prefect.client.orchestration import get_client
        from prefect.exceptions import ObjectNotFound

        async with get_client() as client:
            try:
                return bool(await client.read_work_pool(settings.deploy.pool))
            except ObjectNotFound:
                return False

    return bool(asyncio.run(_translated(there(), url)))


def end_orphans(url: str) -> int:
    """End the runs of this machine whose process is gone; how many there were. Raises as `deploy` does."""
    return int(asyncio.run(_translated(orphans.end_orphans(), url)))


async def _translated(work: Any, url: str) -> Any:
    """The result of `work`; errors of Prefect's client are translated to ours."""
    import httpx

    _quieten()
    try:
        return await work
    except httpx.HTTPStatusError as error:
        raise refusal(error.response, url) from error
    except httpx.HTTPError as error:
        raise ApiUnreachable(
            f"The Prefect API at {shown(url)} stopped responding ({type(error).__name__}); try again."
        ) from error
    except RuntimeError as error:
        # Prefect's client turns what goes wrong in its first request into one of these.
        cause = error.__cause__ or error.__context__
        if isinstance(cause, httpx.HTTPStatusError):
            raise refusal(cause.response, url) from error
        raise ApiUnreachable(f"The Prefect API at {shown(url)} could not be used ({type(cause or error).__name__}).") from error


def _quieten() -> None:
    """Show only errors of Prefect's log lines on this command's console.

    Here, where Prefect has read the URL of its API, and not by an environment variable: the worker of `steno up` would inherit
    it, and through it every run, whose Logs tab would stay empty.
    """
    if "PREFECT_LOGGING_LEVEL" not in os.environ:
        log_errors_only()
