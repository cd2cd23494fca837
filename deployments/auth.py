"""What callers of Prefect's API under `steno up` must send: a string of the operator's, or one made here and kept private."""

from __future__ import annotations

import os
import secrets
import tempfile
from dataclasses import dataclass
from pathlib import Path

from flows.local_server.server import configured
from infra.listening import is_loopback
from infra.settings import StenoSettings
from stenoflow.errors import InvalidOption

SERVER_AUTH = "PREFECT_SERVER_API_AUTH_STRING"
"""What Prefect's server asks for; its clients send PREFECT_API_AUTH_STRING."""


@dataclass(frozen=True)
class Auth:
    """The string, and where an operator finds it: the path of a file, or the name of the setting."""

    string: str
    source: str


def server_auth(host: str, settings: StenoSettings) -> Auth | None:
    """What the server at `host` asks its callers for; None where it lets in everybody who reaches it.

    Raises InvalidOption where these would be others than the users of this machine.
    """
    made = made_string(settings.home_path)
    if own := configured(SERVER_AUTH):
        return Auth(own, SERVER_AUTH)
    asked = settings.deploy.auth
    if not is_loopback(host):
        if asked is False:
            raise InvalidOption(
                f"{host or 'An empty host'} is not a loopback address, and STENO_DEPLOY__AUTH=false lets everyone who can reach it "
                f"use Prefect; listen on 127.0.0.1, unset STENO_DEPLOY__AUTH, or set {SERVER_AUTH}."
            )
        asked = True
    return Auth(made, str(auth_file(settings.home_path))) if asked else None


def auth_file(home: Path) -> Path:
    return home / "prefect-auth"


def made_string(home: Path) -> str:
    """The string of this home, made when it is first asked for: `steno:` and 32 random characters, for its owner's eyes.

    Raises InvalidOption when the file holds none.
    """
    path = auth_file(home)
    if not path.exists():
        home.mkdir(parents=True, exist_ok=True)
        _write_once(path, f"steno:{secrets.token_urlsafe(24)}\n")
    path.chmod(0o600)
    string = path.read_text().strip()
    if not string:
        raise InvalidOption(f"{path} is empty; delete it, and the next `steno up` creates a new one.")
    return string


def _write_once(path: Path, text: str) -> None:
    """Whole or not at all, and the first of several at once wins."""
    descriptor, aside = tempfile.mkstemp(dir=path.parent)  # with mode 0600
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
        try:
            os.link(aside, path)
        except FileExistsError:
            return
    finally:
        Path(aside).unlink()
