"""What a container stands on: the store on the mounted volume, or one at a URL, and its GPU."""

from __future__ import annotations

import contextlib
import functools
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra.artifacts import SUFFIXES, ArtifactRef, Kind
from infra.on_modal.contract import DATA_PATH, artifacts_name
from infra.on_modal.gpus import modal_name
from infra.settings import get_settings
from infra.store import Store
from stenoflow.errors import TransientError

if TYPE_CHECKING:
    import modal


@functools.cache
def volume_store() -> VolumeStore:
    import modal

    settings = get_settings()
    return VolumeStore(modal.Volume.from_name(artifacts_name(settings.modal)), settings.scratch_path)


@functools.cache
def url_store(url: str) -> CallStore:
    settings = get_settings()
    return CallStore(url, settings.scratch_path, settings.s3)


@functools.cache
def gpu_name() -> str:
    """The container's GPU as Modal names it; empty without one."""
    try:
        asked = subprocess.run(
            ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"], capture_output=True, text=True, timeout=30, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    names = asked.stdout.split("\n")[:-1]
    return modal_name(names[0]) + (f":{len(names)}" if len(names) > 1 else "") if names else ""


class CallStore(Store):
    """A store that a container opens itself."""

    def commit(self) -> None:
        """Have others see what was put."""


class VolumeStore(CallStore):
    """The artifact store on the mounted volume, at the paths that artifacts have in every store.

    A volume cannot be reloaded while one of its files is open, whichever call opened it. So files are copied out and in under
    a lock, and stages work on the copies.
    """

    def __init__(self, volume: modal.Volume, scratch: Path) -> None:
        super().__init__(DATA_PATH, scratch)
        self.volume = volume
        self._guard = threading.Lock()

    @contextlib.contextmanager
    def _asked(self) -> Iterator[None]:
        """A volume refuses for a while: another call's file is open, another container commits, Modal is busy."""
        try:
            yield
        except Exception as error:
            raise TransientError(f"Modal's artifacts volume refused a container for now ({type(error).__name__}).") from None

    @contextlib.contextmanager
    def local(self, ref: ArtifactRef) -> Iterator[Path]:
        self.scratch.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(prefix="input-", suffix=SUFFIXES[ref.kind], dir=self.scratch) as file:
            with self._guard:
                if not Path(self.root, ref.path).is_file():
                    with self._asked():
                        self.volume.reload()
                with super().local(ref) as path:
                    shutil.copyfile(path, file.name)
            yield Path(file.name)

    def delete(self, path: str) -> None:
        super().delete(path)
        with self._asked():
            self.volume.commit()

    def put(
        self, source: Path, kind: Kind, *, sha256: str | None = None, meta: dict[str, Any] | None = None, by: str = ""
    ) -> ArtifactRef:
        with self._guard:
            return super().put(source, kind, sha256=sha256, meta=meta, by=by)

    def commit(self) -> None:
        with self._guard, self._asked():
            self.volume.commit()
