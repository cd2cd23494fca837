"""`steno api`: the REST service in this process."""

from __future__ import annotations

import click


@click.command("api")
@click.option(
    "--host", metavar="ADDRESS", help="Address to listen on. Loopback by default; others require a key (`steno keys make`)."
)
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on; 8765 by default, 0 for a free one.")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
def command(host: str | None, port: int | None, debug: bool) -> None:
    """Serve the REST API. Each job is a run of the Prefect deployment.

    \b
    steno up --api                                 server, worker and API in one terminal
    steno api                                      only the API, next to a running `steno up`
    curl -d '{"audio_url": "https://…/talk.mp3"}' -H 'Content-Type: application/json' http://127.0.0.1:8765/transcribes
    """
    from api import service
    from infra.settings import get_settings

    service.quieten()
    service.check_orchestrator()
    settings = get_settings()
    given = {name: value for name, value in (("host", host), ("port", port)) if value is not None}
    service.serve(settings.model_copy(update={"api": settings.api.model_copy(update=given)}), click.echo)
