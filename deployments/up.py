"""Everything for one machine: Prefect's server and UI, a worker, the deployments, the automations."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from deployments import processes
from deployments.api import deploy, end_orphans, registered, target
from deployments.auth import SERVER_AUTH, Auth, server_auth
from deployments.catalog import Change, courier_pool
from deployments.environment import flow_environment
from deployments.processes import Child
from deployments.supervisor import Supervisor
from deployments.welcome import Served, reachable, welcome
from flows.local_server import running
from flows.local_server.server import START_TIMEOUT
from infra.api_settings import ApiSettings
from infra.listening import is_loopback, listen
from infra.settings import StenoSettings
from stenoflow.errors import ApiUnreachable, InvalidOption, PortTaken

LOG_BYTES = 20 * 2**20
"""Bytes above which the log of the last start is rotated, replacing the one before."""


@dataclass(frozen=True)
class Plan:
    """What is started here."""

    host: str
    port: int
    limit: int
    """Runs at once on this machine; 0 for any number."""
    server: bool
    worker: bool
    verbose: bool
    api: bool = False
    """Whether the REST API is served as well."""


def can_serve_page(api: ApiSettings, say: Callable[[str], None]) -> bool:
    """Whether the page can be served without being asked for: to this machine, and on a port that is free."""
    if not is_loopback(api.host):
        return False
    try:
        listen(api.host, api.port).close()
    except PortTaken:
        say(f"The page is not served: port {api.port} is taken (STENO_API__PORT chooses another).")
        return False
    return True


def up(plan: Plan, settings: StenoSettings, say: Callable[[str], None]) -> None:
    """Start what is planned and keep it running until Ctrl-C or SIGTERM; then leave no process behind.

    Raises PortTaken, NoApi, ApiUnreachable, ApiDenied, ProcessKeepsEnding, and InputError for a host, a database URL, or a
    server that strangers could use.
    """
    supervisor = Supervisor(say)
    supervisor.watch_signals()
    logs = settings.home_path / "logs"
    auth = server_auth(plan.host, settings) if plan.server else None
    try:
        with _server(plan, settings, auth, supervisor, logs) as url:
            if supervisor.stopping:
                return
            # A further worker leaves what is registered to the machine with the server, or to `steno deploy`.
            if plan.server or not registered(settings, url):
                _print_changes(deploy(settings, url), say)
            if ended := end_orphans(url):
                say(f"Ended {ended} runs whose process no longer exists; those of deployments are restarted.")
            if plan.worker:
                supervisor.start(_worker(plan, settings, logs))
                supervisor.start(_courier(plan, settings, logs))
            if plan.api:
                log = _rotated(logs / "api.log")
                child = processes.api(os.environ | {"PREFECT_API_URL": url}, log, echo=plan.verbose)
                supervisor.start(child)
                address = f"http://{reachable(settings.api.host)}:{settings.api.port}"
                with contextlib.suppress(ApiUnreachable):  # one that ends is the supervisor's affair
                    # What is said to be served answers: its address is opened as soon as it is shown.
                    processes.wait_healthy(address, child, START_TIMEOUT, until=lambda: supervisor.stopping)
            say(welcome(_served(plan, settings, auth, url, logs)))
            supervisor.run()
    finally:
        if plan.worker and supervisor.stopping:
            say("Stopping. Running recordings go back to the queue; finished stages are kept.")
        supervisor.end()


@contextlib.contextmanager
def _server(plan: Plan, settings: StenoSettings, auth: Auth | None, supervisor: Supervisor, logs: Path) -> Iterator[str]:
    """The API's URL: of a server started here, or of the configured one. Prefect's clients in here are set up for it."""
    if not plan.server:
        yield target()
        return
    string = auth.string if auth else None
    with processes.listen(plan.host, plan.port) as listener:
        url = f"http://{reachable(plan.host)}:{listener.getsockname()[1]}/api"
        os.environ.pop(SERVER_AUTH, None)  # for the server alone
        running.use(url, string)
        env = server_environment(settings, url, os.environ) | ({SERVER_AUTH: string} if string else {})
        log = _rotated(logs / "server.log")
        child = processes.server(listener, env, log, names=(plan.host,), echo=plan.verbose)
        supervisor.start(child)
        processes.wait_healthy(url, child, START_TIMEOUT, until=lambda: supervisor.stopping)
        with running.announced(url, string):
            yield url


def server_environment(settings: StenoSettings, url: str, env: Mapping[str, str]) -> dict[str, str]:
    """What the server runs with: ours where the environment does not say otherwise."""
    ours = {
        "PREFECT_HOME": str(Path("~/.prefect").expanduser()),
        # A relative address: the browser may reach this machine under any name.
        "PREFECT_UI_API_URL": "/api",
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_LOGGING_LEVEL": "WARNING",
        # A run that waits for its turn is asked again this often; Prefect's 30 s are long beside a short recording.
        "PREFECT_SERVER_DEPLOYMENTS_CONCURRENCY_SLOT_WAIT_SECONDS": "5",
        "PREFECT_SERVER_EVENTS_CAUSAL_ORDERING": "flows.prefect_compat.automations",
        # Kept in memory, as Prefect does by default, the places that running runs hold are lost with the server: they
        # stay taken for ever, and the runs are stopped when they cannot renew theirs.
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
    }
    theirs = dict(env)
    # By default Prefect prepares the UI's files inside its package, which may belong to somebody else.
    ours["PREFECT_UI_STATIC_DIRECTORY"] = str(Path(theirs.get("PREFECT_HOME", ours["PREFECT_HOME"]), "ui"))
    if settings.deploy.database_url:
        theirs["PREFECT_SERVER_DATABASE_CONNECTION_URL"] = database_url(settings.deploy.database_url.get_secret_value())
    return ours | theirs | {"PREFECT_API_URL": url}


def worker_environment(env: Mapping[str, str]) -> dict[str, str]:
    """What a worker runs with: ours where the environment does not say otherwise."""
    return flow_environment() | {"PREFECT_WORKER_QUERY_SECONDS": "1"} | dict(env)


def database_url(url: str) -> str:
    """The URL as Prefect wants it: `postgres://` and `postgresql://` get the driver that is installed.

    Raises InvalidOption for any other database.
    """
    scheme, separator, rest = url.partition("://")
    drivers = {"postgres": "postgresql+asyncpg", "postgresql": "postgresql+asyncpg", "sqlite": "sqlite+aiosqlite"}
    scheme = drivers.get(scheme, scheme)
    if not separator or scheme not in drivers.values():
        raise InvalidOption(
            "The database URL must start with postgresql:// (or sqlite:///); Prefect supports no other database."
        )
    return f"{scheme}://{rest}"


def _worker(plan: Plan, settings: StenoSettings, logs: Path) -> Child:
    settings.workdir_path.mkdir(parents=True, exist_ok=True)
    env = worker_environment(os.environ)
    log = _rotated(logs / "worker.log")
    return processes.worker(settings.deploy.pool, _process_name(), plan.limit, env, log, echo=plan.verbose)


def _courier(plan: Plan, settings: StenoSettings, logs: Path) -> Child:
    log = _rotated(logs / "courier.log")
    return processes.courier(courier_pool(settings), _process_name(), worker_environment(os.environ), log, echo=plan.verbose)


def _process_name() -> str:
    """As Prefect's pages show it: this machine's name and a number."""
    return re.sub(r"[/%&<>]+", "-", f"{platform.node() or 'worker'}-{os.getpid()}")


def _rotated(log: Path) -> Path:
    log.parent.mkdir(parents=True, exist_ok=True)
    if log.exists() and log.stat().st_size > LOG_BYTES:
        log.replace(log.with_suffix(".log.1"))
    return log


def _print_changes(changes: list[Change], say: Callable[[str], None]) -> None:
    for change in changes:
        if change.what != "unchanged":
            say(f"{change.what.capitalize()} {change.kind} {change.name}.")


def _served(plan: Plan, settings: StenoSettings, auth: Auth | None, url: str, logs: Path) -> Served:
    return Served(
        prefect=url if plan.server else None,
        host=plan.host,
        auth=auth,
        api=settings.api if plan.api else None,
        transcripts=settings.workdir_path if plan.worker else None,
        logs=None if plan.verbose else logs,
    )


def print_line(text: str) -> None:
    """One line for the operator, at once also where output is a pipe or a log."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
