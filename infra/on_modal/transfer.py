"""Artifacts and folders of weights to Modal's volumes, once per content, and artifacts back. Awaited in the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from infra.artifacts import SUFFIXES, ArtifactRef
from infra.on_modal import copies
from infra.on_modal.contract import WEIGHTS_PATH, artifacts_name, weights_name
from infra.on_modal.errors import modal_errors
from infra.settings import ModalSettings
from infra.store import Store
from stenoflow.errors import TransientError

if TYPE_CHECKING:
    import modal

BELIEVED = 600.0
"""Seconds for which an artifact that was seen on the volume is taken to be there still."""


class Transfer:
    """Between the local store and the volumes of one app."""

    def __init__(self, store: Store, settings: ModalSettings) -> None:
        self.store = store
        self.settings = settings
        self._seen: dict[str, float] = {}
        self._noted = False
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    def _volume(self, name: str) -> modal.Volume:
        import modal

        return modal.Volume.from_name(name, environment_name=self.settings.environment)

    async def upload(self, refs: Iterable[ArtifactRef]) -> None:
        """Have the artifacts on the volume, at the paths they have in the store. What is there is not sent again."""
        if not self._noted:
            await asyncio.to_thread(copies.note, self.store, self.settings)
            self._noted = True
        volume = self._volume(artifacts_name(self.settings))
        wanted = {ref.path: ref for ref in refs}
        async with contextlib.AsyncExitStack() as stack:
            for path in sorted(wanted):
                await stack.enter_async_context(self._locks[path])
            with modal_errors("uploading a recording"):
                there = await asyncio.gather(*(self._known(volume, path) for path in wanted))
                missing = [ref for ref, known in zip(wanted.values(), there, strict=True) if not known]
                if missing:
                    files = {ref.path: stack.enter_context(self.store.local(ref)) for ref in missing}
                    async with volume.batch_upload(force=True) as batch:
                        for path, file in files.items():
                            batch.put_file(file, f"/{path}")
            for path in wanted:
                self._saw(path)

    async def _known(self, volume: modal.Volume, path: str) -> bool:
        return time.monotonic() - self._seen.get(path, -BELIEVED) < BELIEVED or await _is_there(volume, path)

    async def upload_weights(self, folder: Path, revision: str) -> str:
        """Have a folder of weights on the weights volume; its path in containers. Named by its revision, so sent once."""
        target = PurePosixPath("folders", revision.rpartition(":")[2], folder.name)
        volume = self._volume(weights_name(self.settings))
        async with self._locks[str(target)]:
            if str(target) not in self._seen:
                with modal_errors("uploading weights"):
                    if not await _is_there(volume, str(target)):
                        async with volume.batch_upload(force=True) as batch:
                            batch.put_directory(folder, f"/{target}")
                self._saw(str(target))
        return f"{WEIGHTS_PATH}/{target}"

    async def download(self, ref: ArtifactRef, by: str) -> ArtifactRef:
        """Bring an artifact that a container left on the volume into the store, whole and with the content it is named by.

        `by` is the key that it was computed under.
        """
        volume = self._volume(artifacts_name(self.settings))
        self.store.scratch.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(prefix="modal-", suffix=SUFFIXES[ref.kind], dir=self.store.scratch) as file:
            digest = hashlib.sha256()
            with modal_errors("fetching a result"):
                async for block in volume.read_file.aio(ref.path):
                    digest.update(block)
                    await asyncio.to_thread(file.write, block)
            file.flush()
            if digest.hexdigest() != ref.sha256:
                raise TransientError(f"The {ref.kind} artifact from Modal arrived damaged; it is recomputed.")
            kept = await asyncio.to_thread(self.store.put, Path(file.name), ref.kind, meta=ref.meta, by=by)
        self._saw(ref.path)
        return kept

    def forget(self) -> None:
        """Look again before the next call: something was missing that was believed to be there."""
        self._seen.clear()

    def _saw(self, path: str) -> None:
        now = time.monotonic()
        self._seen = {known: at for known, at in self._seen.items() if now - at < BELIEVED} | {path: now}
        self._locks.pop(path, None)


async def _is_there(volume: modal.Volume, path: str) -> bool:
    from modal.exception import NotFoundError

    await volume.hydrate.aio()  # so that an unknown volume is not taken for a missing file
    try:
        return bool(await volume.listdir.aio(path))
    except NotFoundError:
        return False
