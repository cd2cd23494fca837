"""Copies of artifacts on the volumes of Modal apps: they go when the artifacts do.

The store knows which apps had some (`records/copies/<app>`), and which copies are still to be removed (`records/copies-left/…`),
so that whoever deletes needs no settings of Modal's, and a Modal that is out of reach is asked again by the next collection.
"""

from __future__ import annotations

import asyncio
import json
import logging
import uuid
from collections.abc import Iterable
from typing import TYPE_CHECKING

from infra.on_modal.contract import artifacts_name
from infra.settings import ModalSettings
from stenoflow.types import Frozen

if TYPE_CHECKING:
    from infra.store import Store

_APPS, _LEFT = "copies", "copies-left"
_AT_ONCE = 16
_PATIENCE = 120.0
"""Seconds for all copies of one removal."""

_log = logging.getLogger(__name__)


class _App(Frozen):
    app: str
    environment: str | None = None


class _Left(Frozen):
    """Copies that are still to be removed."""

    app: _App
    paths: tuple[str, ...]


def note(store: Store, settings: ModalSettings) -> None:
    """Have the store know that the app's volume is about to get copies."""
    name = f"{_APPS}/{settings.app}@{settings.environment or ''}"
    if store.read_record(name) is None:
        store.write_record(name, _App(app=settings.app, environment=settings.environment).model_dump_json().encode())


def remove(store: Store, paths: Iterable[str]) -> None:
    """Remove the copies of artifacts that were deleted. Blocks; what is not possible now is left to `remove_left`."""
    paths = tuple(paths)
    for file in list(store.files(f"records/{_APPS}")) if paths else ():
        content = store.read_record(file.path.removeprefix("records/"))
        if content:
            left = _Left(app=_App.model_validate_json(content), paths=paths)
            name = f"{_LEFT}/{uuid.uuid4().hex}"
            store.write_record(name, left.model_dump_json().encode())
            _remove(store, name, left)


def remove_left(store: Store) -> None:
    """Remove what earlier removals could not."""
    for file in list(store.files(f"records/{_LEFT}")):
        name = file.path.removeprefix("records/")
        if content := store.read_record(name):
            _remove(store, name, _Left.model_validate(json.loads(content)))


def _remove(store: Store, name: str, left: _Left) -> None:
    # An artifact that was computed again meanwhile may have its copy: it is asked for again, and uploaded again.
    try:
        asyncio.run(asyncio.wait_for(_removed(left), _PATIENCE))
    except Exception as error:
        _log.warning("%d copies on Modal's volume remain until the next collection: %s", len(left.paths), type(error).__name__)
        return
    store.delete_record(name)


async def _removed(left: _Left) -> None:
    import modal
    from modal.exception import NotFoundError

    name = artifacts_name(ModalSettings(app=left.app.app))
    volume = modal.Volume.from_name(name, environment_name=left.app.environment)
    try:
        await volume.hydrate.aio()
    except NotFoundError:
        return  # the volume is gone, and all copies with it
    free = asyncio.Semaphore(_AT_ONCE)

    async def one(path: str) -> None:
        async with free:
            try:
                await volume.remove_file.aio(f"/{path}")
            except (NotFoundError, FileNotFoundError):
                return

    await asyncio.gather(*(one(path) for path in left.paths))
