"""The Prefect API a command talks to: the configured one, or one of its own for as long as the command lasts.

Prefect can start such a temporary server itself, but as a child of the terminal's process group: Ctrl-C would then stop
the server before the run can report that it was cancelled, and a killed command would leave the server behind. This one
sits in a session of its own, starts while the command is still importing, and ends when its parent does, however that
ends. It writes to the database under PREFECT_HOME, where `prefect server start` later finds the runs.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from flows.local_server import database, running
from flows.local_server.database import KnownSchema
from infra.processes import end_with_parent
from stenoflow import isolated
from stenoflow.errors import ApiDenied, ApiRefused, ApiUnreachable, StenoError

if TYPE_CHECKING:
    import uvicorn

START_TIMEOUT = 180.0
"""Seconds; the first start migrates a database, which is slow on a busy machine."""
_CONFIGURATION_FILES = ("prefect.toml", "pyproject.toml", ".env")


def configured_api_url() -> str | None:
    """The Prefect API that the environment, a profile or a file names; None when there is none."""
    return configured("PREFECT_API_URL")


def configured(name: str) -> str | None:
    """A setting of Prefect's, from the environment, a profile or a file; None when none of them has it.

    Prefect knows best, but takes seconds to import, so it is asked only when there is a file that may have it.
    """
    if value := os.environ.get(name):
        return value
    home = Path(os.environ.get("PREFECT_HOME") or "~/.prefect").expanduser()
    profiles = Path(os.environ.get("PREFECT_PROFILES_PATH") or home / "profiles.toml").expanduser()
    if not os.environ.get("PREFECT_PROFILE") and not any(
        _may_set(name, path) for path in (profiles, *map(Path, _CONFIGURATION_FILES))
    ):
        return None
    from prefect.settings import get_current_settings

    found: str | None = get_current_settings().to_environment_variables(exclude_unset=True).get(name)
    return found or None


def _may_set(name: str, path: Path) -> bool:
    try:
        text = path.read_text(errors="replace")
    except OSError:
        return False
    return path.name == "prefect.toml" or name in text or "[tool.prefect" in text


def find_api() -> str | None:
    """The Prefect API that is configured, or else that of a `steno up` which runs here; None when there is neither.

    Prefect's clients in this process will use it, with the authentication of such a `steno up` if that is what it is.
    """
    url, found = configured_api_url(), running.find()
    if found is not None and (url is None or running.is_at(found, url)):
        url = url or found.url
        running.use(url, found.auth)
    return url


def check_api(url: str) -> None:
    """Raise ApiUnreachable unless something answers at `url`. Any answer will do: access is the run's own question.

    A server that is busy with many runs accepts the connection at once and answers late.
    """
    import httpx

    try:
        httpx.get(f"{url.rstrip('/')}/health", timeout=httpx.Timeout(60.0, connect=10.0), headers=_authorization())
    except httpx.HTTPError as error:
        raise ApiUnreachable(
            f"The Prefect API at {shown(url)} does not answer ({type(error).__name__}); start it, or unset PREFECT_API_URL to run without a server."
        ) from error


def _authorization() -> dict[str, str]:
    key = os.environ.get("PREFECT_API_KEY")
    return {"Authorization": f"Bearer {key}"} if key else {}


def shown(url: str) -> str:
    """The URL without credentials or query."""
    from urllib.parse import urlsplit

    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname or ''}{f':{parts.port}' if parts.port else ''}{parts.path}"


def refusal(response: Any, url: str) -> StenoError:
    """What an answer of the Prefect API above 399 means: ApiDenied, ApiRefused, or what is wrong with its database."""
    if (trouble := database.in_answer(response)) is not None:
        return trouble
    status = response.status_code
    if status in (401, 403):
        sent = next((name for name in ("PREFECT_API_AUTH_STRING", "PREFECT_API_KEY") if os.environ.get(name)), None)
        given = f"rejects the configured {sent}" if sent else "requires authentication"
        return ApiDenied(
            f"The Prefect API at {shown(url)} {given} ({status}). For Prefect Cloud set PREFECT_API_KEY; for a server of your own, "
            "PREFECT_API_AUTH_STRING: `steno up` writes it to `prefect-auth` in its STENO_HOME."
        )
    detail = " ".join(response.text.split())[:300]
    return ApiRefused(f"The Prefect API at {shown(url)} answered {status} to {response.request.url.path}: {detail}")


class TemporaryServer:
    """A Prefect API in a child process, on a loopback port of its own."""

    def __init__(self, *, verbose: bool = False) -> None:
        # SQLite does not make the folder of its database, and on a new machine nothing has yet.
        Path(os.environ.get("PREFECT_HOME") or "~/.prefect").expanduser().mkdir(parents=True, exist_ok=True)
        listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}/api"
        self.auth = f"steno:{secrets.token_urlsafe(24)}"
        """Without it, any user of this machine could use the server."""
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  closed in stop()
        with listener:
            self._process = subprocess.Popen(
                isolated.command("flows.local_server.server", "ephemeral", str(listener.fileno())),
                stdin=subprocess.PIPE,
                stdout=self._log,
                stderr=None if verbose else self._log,
                pass_fds=(listener.fileno(),),
                start_new_session=True,
                env=os.environ | {"PREFECT_UI_ENABLED": "0", "PREFECT_SERVER_API_AUTH_STRING": self.auth},
            )
        # Prefect drains its log and event workers before atexit functions run, so the server outlives them.
        atexit.register(self.stop)

    def wait(self) -> None:
        """Return when the API answers. Raises ApiUnreachable with the server's last line when it does not start, and what is
        wrong with its database (`flows.local_server.database.prepared`)."""
        import httpx

        deadline = time.monotonic() + START_TIMEOUT
        with httpx.Client(trust_env=False) as client:
            while time.monotonic() < deadline and self._process.poll() is None:
                try:
                    if client.get(f"{self.url}/health", timeout=5.0).status_code == 200:
                        return
                except httpx.HTTPError:
                    pass
                time.sleep(0.05)
        log = self._read_log()
        if (trouble := database.error_in(log)) is not None:
            raise trouble
        last = f" ({log.splitlines()[-1].strip()[:300]})" if log else ""
        raise ApiUnreachable(f"Prefect's temporary server did not start{last}; `steno doctor` checks what it needs.")

    def _read_log(self) -> str:
        self._log.seek(0)
        return self._log.read().decode(errors="replace").strip()

    def stop(self) -> None:
        """End the server and wait for it; harmless when it has ended."""
        atexit.unregister(self.stop)
        if self._process.stdin:
            self._process.stdin.close()
        self._process.terminate()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()


def start(*, verbose: bool = False) -> TemporaryServer | None:
    """Make a Prefect API available to this process; the server to `wait()` for, or None when one is configured or runs here.

    Raises ApiUnreachable when the configured one does not answer.
    """
    if url := find_api():
        check_api(url)
        return None
    server = TemporaryServer(verbose=verbose)
    running.use(server.url, server.auth)
    return server


def _serve(kind: str, descriptor: int, *names: str) -> None:
    """The child: serve Prefect's API on the inherited socket until standard input, held by the parent, closes.

    `kind` is `ephemeral` for the server of one command, or `lasting`. It answers to its address, to `names` and to the settings' `deploy.allowed_hosts`.
    """
    # Importing Prefect's server makes a million objects that stay: looking for garbage among them is a tenth of the start.
    gc.disable()
    import uvicorn

    from flows.prefect_compat.server import make_app

    app = make_app(ephemeral=kind == "ephemeral")
    schema = _schema()
    listener = socket.socket(fileno=descriptor)
    if schema.database is not None:
        database.answer_database_errors(app.api_app, schema.database)
    config = uvicorn.Config(_guarded(app, listener, names), log_level="error", lifespan="on")
    gc.freeze()
    gc.enable()
    locked = contextlib.ExitStack()

    class Noting(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            schema.note()
            locked.close()

    server = Noting(config)
    end_with_parent(lambda: _end(server))
    try:
        current = locked.enter_context(database.prepared(schema))
    except StenoError as error:
        sys.stdout.write(database.error_line(error))
        sys.exit(1)
    with locked, _unchecked(schema, current=current):
        server.run(sockets=[listener])


def _guarded(app: Any, listener: socket.socket, names: tuple[str, ...]) -> Any:
    """The app behind the checks that keep web pages out: Prefect lets every page of every site call it."""
    from infra.origins import Origins, host_names
    from infra.settings import get_settings

    deploy = get_settings().deploy
    hosts = host_names(listener.getsockname()[0], (*names, *deploy.allowed_hosts))
    return Origins(app, hosts=hosts, origins=deploy.allowed_origins, setting="STENO_DEPLOY")


def _end(server: uvicorn.Server) -> None:
    """In order; after a quarter of a minute whatever is in the way."""
    server.should_exit = True
    time.sleep(15)
    os._exit(1)


def _schema() -> KnownSchema:
    """What is known of the database."""
    import prefect
    from prefect.settings import PREFECT_API_DATABASE_CONNECTION_URL

    return KnownSchema(str(PREFECT_API_DATABASE_CONNECTION_URL.value()), prefect.__version__)


def _unchecked(schema: KnownSchema, *, current: bool) -> contextlib.AbstractContextManager[Any]:
    """Settings that leave out what is known to be done: migrations of an SQLite file, and, when it is `current`, Prefect's own blocks."""
    from prefect.settings import (
        PREFECT_API_BLOCKS_REGISTER_ON_START,
        PREFECT_API_DATABASE_MIGRATE_ON_START,
        temporary_settings,
    )

    done = {PREFECT_API_DATABASE_MIGRATE_ON_START: False} if schema.database is not None else {}
    return temporary_settings({**done, **({PREFECT_API_BLOCKS_REGISTER_ON_START: False} if current else {})})


if __name__ == "__main__":
    _serve(sys.argv[1], int(sys.argv[2]), *sys.argv[3:])
