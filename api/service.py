"""The REST service as a process: what `steno api` runs, and what `steno up` and Modal start."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastapi import FastAPI

    from infra.settings import StenoSettings

_QUIET = {
    # Callers are told to come back rather than kept waiting for minutes; jobs are submitted under a key, so that is safe.
    "PREFECT_CLIENT_MAX_RETRIES": "2",
    "PREFECT_CLIENT_SERVER_VERSION_CHECK_ENABLED": "false",
    "PREFECT_LOGGING_LEVEL": "ERROR",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
}


def quieten() -> None:
    """Set what Prefect reads when it is imported."""
    from infra.telemetry import hush

    os.environ |= _QUIET
    hush()


def application() -> FastAPI:
    """The service for a server that is not ours, as that of Modal; `PREFECT_API_URL` is set."""
    quieten()
    from api import logs
    from api.app import create_app

    logs.configure()
    return create_app(any_host=True)


def check_orchestrator() -> None:
    """Raise NoApi unless a Prefect API is configured, ApiUnreachable unless it answers."""
    from flows.local_server.server import check_api, find_api
    from stenoflow.errors import NoApi

    url = find_api()
    if not url:
        raise NoApi("No Prefect API is configured: set PREFECT_API_URL, or start server and worker with `steno up`.")
    check_api(url)


def serve(settings: StenoSettings, print_line: Callable[[str], None]) -> None:
    """Until SIGTERM or Ctrl-C. Raises PortTaken, and InputError for an address that is not this machine's."""
    import uvicorn

    from api import auth, logs
    from api.app import create_app
    from api.protocol import HEAD_SECONDS, PatientProtocol
    from infra.listening import listen

    auth.check_bind(settings.api.host)
    listener = listen(settings.api.host, settings.api.port)
    host, port = listener.getsockname()[:2]
    print_line(f"Stenoflow's API: http://{_reachable(host)}:{port} (documentation: /docs)")
    logs.configure()
    config = uvicorn.Config(
        create_app(settings),
        http=partial(PatientProtocol, head_seconds=min(HEAD_SECONDS, settings.api.body_timeout)),  # type: ignore[arg-type]
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=10,
        timeout_keep_alive=65,
        h11_max_incomplete_event_size=32 * 1024,
    )
    with listener:
        uvicorn.Server(config).run(sockets=[listener])


def _reachable(host: str) -> str:
    """The address in a URL for this machine: one that stands for all addresses is none to call."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"[{host}]" if ":" in host else host


def main() -> int:
    """The child of `steno up`: its exit code. The last line on standard error says what was wrong."""
    from infra.processes import end_with_parent
    from infra.settings import get_settings
    from stenoflow.errors import StenoError

    end_with_parent()
    quieten()
    try:
        check_orchestrator()
        serve(get_settings(), lambda line: print(line, flush=True))  # noqa: T201
    except StenoError as error:
        print(f"steno: error: {error.message}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
