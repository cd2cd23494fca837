"""Sources that carry a secret, by a handle that does not.

An orchestrator stores a run's parameters and shows them to everyone who may see the run. A signed URL, or one with a
password, is therefore kept in a file that only this user may read, and the run is given `secret://<id>/<name>` instead.
The handle works on this machine (or wherever `STENO_HOME` is shared) for as long as a retry may need it. A shared one is
kept in the artifact store, beside the recordings themselves, for runs that another machine may execute.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
import uuid
from pathlib import Path

from infra.compute import get_store
from infra.names import WEB, display_name, scheme_of
from infra.settings import StenoSettings
from stenoflow.errors import SourceNotFound

KEPT_DAYS = 7.0
_HANDLE = re.compile(r"secret://([0-9a-f]{32})/")


def concealed(source: str, settings: StenoSettings, *, shared: bool = False, of: str = "") -> str:
    """The source, or a handle for it when it is a URL with credentials or a query.

    If it is `shared`, the same one again `of` whom it is for.
    """
    name = handle_of(source, of)
    if name is None:
        return source
    if shared:
        get_store(settings).write_record(f"handles/{name}", source.encode())
        return f"secret://{name}/{display_name(source)}"
    folder = _folder(settings)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    _forget_old(folder)
    name = uuid.uuid4().hex
    descriptor = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(source)
    return f"secret://{name}/{display_name(source)}"


def handle_of(source: str, of: str) -> str | None:
    """The id of the handle that such a source gets if it is shared; None for one that needs none."""
    if scheme_of(source) in (None, "secret", "file") or not _may_be_secret(source):
        return None
    return hashlib.sha256(f"{of}{source}".encode()).hexdigest()[:32]


def revealed(source: str, settings: StenoSettings) -> str:
    """What the handle stands for; any other source as it is. Raises SourceNotFound when the handle is unknown here."""
    match = _HANDLE.match(source)
    if match is None:
        return source
    try:
        return (_folder(settings) / match[1]).read_text(encoding="utf-8")
    except FileNotFoundError:
        kept = get_store(settings).read_record(f"handles/{match[1]}")
    if kept is None:
        raise SourceNotFound(
            f"The address of {display_name(source)} is stored where the run was started; it has expired or is on another machine. Start a new run."
        )
    return kept.decode()


def _may_be_secret(source: str) -> bool:
    address = source.partition("://")[2]
    named = scheme_of(source) not in WEB  # in an object store `#` is part of the name
    return "?" in address or ("#" in address and not named) or "@" in address.partition("/")[0]


def _folder(settings: StenoSettings) -> Path:
    return settings.home_path / "secrets"


def _forget_old(folder: Path) -> None:
    before = time.time() - KEPT_DAYS * 86_400
    for path in folder.iterdir():
        if path.stat().st_mtime < before:
            path.unlink(missing_ok=True)
