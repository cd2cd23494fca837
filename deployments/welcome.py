"""What `steno up` says once everything runs: where it answers, who may use it, and what keeps others out."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from deployments.auth import SERVER_AUTH, Auth
from infra.api_settings import ApiSettings
from infra.listening import is_loopback


@dataclass(frozen=True)
class Served:
    """What is to be said; None leaves a line out."""

    prefect: str | None
    """The URL of Prefect's API, where its server was started here."""
    host: str
    """Where that listens."""
    auth: Auth | None
    api: ApiSettings | None
    transcripts: Path | None
    logs: Path | None


def welcome(served: Served) -> str:
    lines = []
    if served.api:
        lines.append(f"The page:     http://{reachable(served.api.host)}:{served.api.port}")
    if served.prefect:
        lines += [f"Prefect's UI: {served.prefect.removesuffix('/api')}", f"Its API:      {served.prefect}", _callers(served)]
    if served.transcripts:
        lines.append(f"Transcripts:  {served.transcripts} (relative paths of requests are resolved here)")
    if served.api:
        lines.append(f"REST API:     http://{reachable(served.api.host)}:{served.api.port} (documentation: /docs)")
    if served.logs:
        lines.append(f"Logs:         {served.logs}")
    return "\n".join([*lines, *_beyond(served), "Ctrl-C stops everything."])


def _callers(served: Served) -> str:
    if served.auth is None:
        return "Its password: none; every user of this machine can use it (STENO_DEPLOY__AUTH=true requires one)"
    if served.auth.source == SERVER_AUTH:
        return f"Its password: that of {SERVER_AUTH}; commands on this machine send it automatically"
    return f"Its password: in {served.auth.source}; commands on this machine send it automatically"


def _beyond(served: Served) -> list[str]:
    """A line for each thing that other machines reach, and what protects it."""
    lines = []
    if served.prefect and not is_loopback(served.host):
        port = urlsplit(served.prefect).port
        lines.append(
            f"Other machines can reach Prefect's UI and API ({_names(served.host)}:{port}), protected by the password. "
            "It is sent unencrypted; use a TLS proxy on networks that others share."
        )
    if served.api and not is_loopback(served.api.host):
        lines.append(
            f"Other machines can reach the REST API ({_names(served.api.host)}:{served.api.port}), protected by API keys. "
            "They are sent unencrypted; use a TLS proxy on networks that others share."
        )
    return lines


def _names(host: str) -> str:
    return socket.gethostname() if host in ("0.0.0.0", "::", "") else host


def reachable(host: str) -> str:
    """The address under which this machine reaches a service that listens at `host`."""
    if host in ("0.0.0.0", "::", ""):
        return "127.0.0.1" if host != "::" else "[::1]"
    return f"[{host}]" if ":" in host else host
