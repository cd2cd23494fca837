"""The application: routes, errors and the two things it holds open, Prefect's client and the store."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from fastapi import FastAPI

from api import docs_page, documents, observe, problems, web, webhooks
from api.jobs import Jobs
from api.openai import routes as openai
from api.routes import glossaries, jobs, revisions, submit, voices
from api.runs import Runs
from infra.compute import get_store
from infra.origins import host_names
from infra.settings import StenoSettings, get_settings

_PREFECT_TIMEOUT = 15.0
"""Seconds that one request to Prefect may take."""


def create_app(settings: StenoSettings | None = None, *, any_host: bool = False) -> FastAPI:
    """The service. It holds no state that matters: any number of it may run, and any may be restarted at any time.

    `any_host` is for where others give it its name, and callers need keys.
    """
    settings = settings or get_settings()

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        from prefect.client.orchestration import get_client

        await asyncio.to_thread(get_store)
        async with get_client(httpx_settings={"timeout": _PREFECT_TIMEOUT}) as client:
            runs = Runs(client, settings.api)
            app.state.jobs = Jobs(runs, settings)
            async with contextlib.aclosing(runs), app.state.jobs.removal.at_work(), app.state.jobs.chunks.at_work():
                yield

    app = FastAPI(
        title="Stenoflow",
        version=_version(),
        description="Recordings in, speaker-attributed, word-timed transcripts out.",
        lifespan=lifespan,
        redirect_slashes=False,
        docs_url=None,  # FastAPI's pages load their scripts from elsewhere
        redoc_url=None,
        generate_unique_id_function=documents.operation_id,
    )
    app.state.settings = settings
    problems.install(app)
    for router in (
        submit.router,
        revisions.router,
        jobs.router,
        voices.router,
        glossaries.router,
        webhooks.router,
        openai.router,
        web.router,
    ):
        app.include_router(router)
    observe.instrument(app, None if any_host else host_names(settings.api.host, settings.api.allowed_hosts))
    webhooks.describe(app)
    documents.describe(app)
    docs_page.install(app)
    return app


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("stenoflow")
    except PackageNotFoundError:
        return "0"
