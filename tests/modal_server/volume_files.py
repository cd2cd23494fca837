"""The files of volumes: what is committed, and each container's own view of it until it commits or reloads.

As on Modal a container sees the volume as it was when it started; `commit` publishes what it changed (the last writer of a
file wins), `reload` brings in what others published, and fails while it has files of the volume open. Large files are linked
rather than copied: one that is changed in place, not replaced, changes for all at once, which Modal would not do.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from grpclib import Status
from modal_proto import api_pb2

from .objects import Named
from .rpc import refuse
from .state import Container

LINKED = 8 * 1024 * 1024
"""Bytes from which a file is hard-linked: weights are hundreds of megabytes and never changed."""
Mark = tuple[int, int, int]


@dataclass
class Volume(Named):
    version: int = api_pb2.VOLUME_FS_VERSION_V1
    folder: Path = field(default_factory=Path)
    marks: dict[str, int] = field(default_factory=dict)
    """committed file → a number that grows with each change of it"""
    counter: int = 0
    commits: int = 0

    def metadata(self) -> api_pb2.VolumeMetadata:
        version = api_pb2.VolumeFsVersion.ValueType(self.version)
        return api_pb2.VolumeMetadata(version=version, name=self.name, creation_info=self.info())


@dataclass
class View:
    volume: Volume
    folder: Path
    known: dict[str, tuple[Mark, int]] = field(default_factory=dict)
    """file → how it looked when last in step with the volume, and the volume's number for it"""


class VolumeFiles:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.volumes: dict[str, Volume] = {}
        self.lock = threading.RLock()

    def view(self, volume_id: str, folder: Path) -> View:
        view = View(self.volumes[volume_id], folder)
        folder.mkdir(parents=True)
        with self.lock:
            self._pull(view)
        return view

    def put(self, volume: Volume, source: Path, name: str, mode: int = 0o644, *, move: bool = False) -> None:
        """Commit one file (or link); `move`: the source is not needed any more."""
        with self.lock:
            target = inside(volume.folder, name)
            if target.is_dir() and not target.is_symlink():
                raise refuse(Status.INVALID_ARGUMENT, f"{name} is a directory")
            _place(source, target, move=move)
            if not target.is_symlink():
                target.chmod(mode or 0o644)
            self._mark(volume, name)

    def remove(self, volume: Volume, name: str) -> None:
        with self.lock:
            target = inside(volume.folder, name)
            if target.is_dir() and not target.is_symlink():
                shutil.rmtree(target)
            else:
                target.unlink()
            prefix = os.path.relpath(target, volume.folder)
            for gone in [each for each in volume.marks if each == prefix or each.startswith(prefix + "/")]:
                del volume.marks[gone]

    def _mark(self, volume: Volume, name: str) -> None:
        volume.counter += 1
        volume.marks[os.path.normpath(name.lstrip("/"))] = volume.counter

    def commit(self, view: View) -> None:
        """Publish what changed in the view since it was last in step."""
        with self.lock:
            present = dict(_scan(view.folder))
            for name, mark in present.items():
                known = view.known.get(name)
                if known is None or known[0] != mark:
                    self.put(view.volume, view.folder / name, name, (view.folder / name).lstat().st_mode & 0o7777)
                    view.known[name] = (mark, view.volume.marks[name])
            for name in set(view.known) - set(present):
                if name in view.volume.marks:
                    self.remove(view.volume, name)
                del view.known[name]
            view.volume.commits += 1

    def reload(self, view: View, container: Container) -> None:
        if self.in_use(view, container):
            raise refuse(Status.FAILED_PRECONDITION, "there are open files preventing the operation")
        with self.lock:
            self.commit(view)
            self._pull(view)

    def _pull(self, view: View) -> None:
        for name, number in view.volume.marks.items():
            known = view.known.get(name)
            if known is None or known[1] != number:
                target = view.folder / name
                _place(view.volume.folder / name, target)
                view.known[name] = (_mark_of(target), number)
        for name in set(view.known) - set(view.volume.marks):
            (view.folder / name).unlink(missing_ok=True)
            del view.known[name]

    def in_use(self, view: View, container: Container) -> bool:
        """Whether a process of the container has a file of the view open."""
        mine = {(mark[2], mark[1]) for _, mark in _scan(view.folder)}
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if os.getsid(int(folder.name)) != container.pid:
                    continue
                for link in (folder / "fd").iterdir():
                    with contextlib.suppress(OSError):
                        about = link.stat()
                        if (about.st_ino, about.st_size) in mine:
                            return True
        return False

    def seed(self, volume: Volume, source: Path, to: str = "/") -> int:
        """Fill a volume from a folder of this machine, as an upload would; returns the number of files."""
        names = [name for name, _ in _scan(source)]
        for name in names:
            self.put(volume, source / name, f"{to}/{name}", (source / name).lstat().st_mode & 0o7777)
        return len(names)


def inside(folder: Path, name: str) -> Path:
    target = Path(os.path.normpath(folder / name.lstrip("/")))
    if target != folder and folder not in target.parents:
        raise refuse(Status.INVALID_ARGUMENT, f"{name} is outside the volume")
    return target


def _scan(folder: Path) -> Iterator[tuple[str, Mark]]:
    for parent, folders, files in os.walk(folder):
        for name in files + [each for each in folders if Path(parent, each).is_symlink()]:
            path = Path(parent, name)
            yield os.path.relpath(path, folder), _mark_of(path)


def _mark_of(path: Path) -> Mark:
    about = path.lstat()
    return about.st_mtime_ns, about.st_size, about.st_ino


def _place(source: Path, target: Path, *, move: bool = False) -> None:
    """Put a copy at the target at once, never a half of it; large files are linked, since they are replaced, not changed."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{time.monotonic_ns()}")
    if source.is_symlink():
        partial.symlink_to(source.readlink())
    elif move:
        shutil.move(source, partial)
    elif source.stat().st_size >= LINKED:
        try:
            os.link(source, partial)
        except OSError:
            shutil.copy2(source, partial)
    else:
        shutil.copy2(source, partial)
    partial.replace(target)
