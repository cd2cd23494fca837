"""`steno up` and `steno deploy`."""

from __future__ import annotations

import json

import click


@click.command("deploy")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per registered item.")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
def deploy(as_json: bool, debug: bool) -> None:
    """Register the work pool, the deployments and the automations with the configured Prefect API.

    The API is PREFECT_API_URL: your own server, or Prefect Cloud with PREFECT_API_KEY; by default that of a running
    `steno up`. Existing items are updated; running it twice changes nothing. STENO_DEPLOY__... settings configure it: the
    nightly batch needs STENO_DEPLOY__NIGHTLY_SOURCE, for example.
    """
    from deployments import api
    from infra.settings import get_settings

    settings = get_settings()
    url = api.target()
    changes = api.deploy(settings, url)
    if as_json:
        for change in changes:
            click.echo(json.dumps({"type": "change", **change._asdict()}))
        return
    for change in changes:
        click.echo(f"{change.what:<10}{change.kind:<12}{change.name}")
    click.echo("\nStart a worker with `steno up --no-server`.")


@click.command("up")
@click.option(
    "--host", default="127.0.0.1", show_default=True, metavar="ADDRESS", help="Address to listen on; 0.0.0.0 for all."
)
@click.option("--port", default=4200, show_default=True, type=click.IntRange(1, 65535), help="Port of Prefect's UI and API.")
@click.option(
    "--limit", default=0, type=click.IntRange(min=0), metavar="N", help="Concurrent runs on this machine; 0 for unlimited."
)
@click.option(
    "--database-url",
    metavar="URL",
    help="PostgreSQL database for Prefect. STENO_DEPLOY__DATABASE_URL keeps the password out of the process list.",
)
@click.option("--no-server", is_flag=True, help="Start only a worker, for the server at PREFECT_API_URL.")
@click.option("--no-worker", is_flag=True, help="Start only the server; workers run elsewhere.")
@click.option(
    "--api/--no-api",
    default=None,
    help="Serve the page and the REST API, on STENO_API__HOST and STENO_API__PORT. By default where server and worker are started.",
)
@click.option("--verbose", "-v", is_flag=True, help="Show the logs of server and worker here instead of writing them to files.")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
def up(
    host: str,
    port: int,
    limit: int,
    database_url: str | None,
    no_server: bool,
    no_worker: bool,
    api: bool | None,
    verbose: bool,
    debug: bool,
) -> None:
    """Start Prefect's server and UI, a worker, the page, the deployments and the automations on this machine.

    \b
    steno up                                     server, UI, worker, and the page
    steno up --no-worker --host 0.0.0.0          the server, for workers elsewhere
    PREFECT_API_URL=http://SERVER:4200/api PREFECT_API_AUTH_STRING=... steno up --no-server     a worker there
    """
    if no_server and no_worker:
        raise click.UsageError("--no-server and --no-worker leave nothing to start.")
    from pydantic import SecretStr

    from deployments.up import Plan, can_serve_page, print_line
    from deployments.up import up as run
    from infra.settings import get_settings

    settings = get_settings()
    if api is None:
        api = not no_server and not no_worker and can_serve_page(settings.api, print_line)
    if database_url:  # for the server alone: neither the worker nor its runs need the password
        kept = settings.deploy.model_copy(update={"database_url": SecretStr(database_url)})
        settings = settings.model_copy(update={"deploy": kept})
    run(Plan(host, port, limit, not no_server, not no_worker, verbose, api), settings, print_line)
