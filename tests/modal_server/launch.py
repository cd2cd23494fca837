"""Start one container: build its file system in a mount namespace of its own, then become `modal._container_entrypoint`.

Runs as `python -I -S launch.py plan.json`, with the standard library only, and execs: the process id stays the container's.
The plan is made by `rootfs.plan`. Without a namespace (`"namespace": false`) only the working directory and the environment
are set; `python launch.py --probe FOLDER` says by its exit status whether a namespace can be had here.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

CLONE_NEWNS, CLONE_NEWUSER = 0x00020000, 0x10000000
MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 32, 4096, 16384, 1 << 18
PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None, use_errno=True)


def check(result: int, what: str) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")


def mount(source: str | Path, target: str | Path, kind: str | None, flags: int) -> None:
    encoded = kind.encode() if kind else None
    check(LIBC.mount(os.fsencode(source), os.fsencode(target), encoded, ctypes.c_ulong(flags), None), f"mount {target}")


def bind(source: Path, target: Path, read_only: bool = False) -> None:
    mount(source, target, None, MS_BIND | MS_REC)
    if read_only:
        mount(source, target, None, MS_BIND | MS_REC | MS_REMOUNT | MS_RDONLY)


def own_namespace() -> None:
    """A mount namespace; a user namespace around it where this process may not have one as it is."""
    user, group = os.getuid(), os.getgid()
    if LIBC.unshare(CLONE_NEWNS) != 0:
        check(LIBC.unshare(CLONE_NEWUSER | CLONE_NEWNS), "unshare")
        with contextlib.suppress(OSError):
            Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    mount("none", "/", None, MS_REC | MS_PRIVATE)


class Root:
    """A new root on a tmpfs: the host's folders bound into it, some replaced, none of them written to."""

    def __init__(self, folder: Path, replaced: set[Path]) -> None:
        mount("tmpfs", folder, "tmpfs", 0)
        self.path = folder
        self.ours = {Path("/")}
        """folders in which entries can be made without touching the host"""
        self.merged = 0
        self.adopt(Path("/"), folder, replaced)

    def at(self, place: Path) -> Path:
        return self.path / place.relative_to("/")

    def adopt(self, source: Path, target: Path, skip: Collection[Path] = ()) -> None:
        for entry in source.iterdir():
            place = target / entry.name
            if entry in skip:
                continue
            if entry.is_symlink():
                place.symlink_to(entry.readlink())
            elif entry.is_dir():
                place.mkdir()
                bind(entry, place)
            else:
                place.touch()
                bind(entry, place)

    def place(self, source: Path, target: Path, read_only: bool, owned: bool) -> None:
        """Make `source` appear at `target`; `owned`: what is placed there is the container's to write to."""
        inside = self.at(target)
        if not inside.is_symlink() and not inside.exists():
            self.parent(target.parent)
            if source.is_dir():
                inside.mkdir()
            else:
                inside.touch()
        bind(source, inside, read_only)
        if owned:
            self.ours.add(target)

    def parent(self, folder: Path) -> None:
        """Make `folder` exist and be ours to create entries in."""
        if folder in self.ours:
            return
        if any(up in self.ours and up != Path("/") for up in folder.parents):
            self.at(folder).mkdir(parents=True, exist_ok=True)
        elif self.at(folder).is_dir():
            self.merged += 1
            merged = self.path / f".merged{self.merged}"
            merged.mkdir()
            with contextlib.suppress(PermissionError):
                self.adopt(self.at(folder), merged)
            bind(merged, self.at(folder))
        else:
            self.parent(folder.parent)
            self.at(folder).mkdir()
        self.ours.add(folder)


def build(plan: dict[str, Any]) -> None:
    own_namespace()
    root = Root(Path(plan["root"]), {Path(each["target"]) for each in plan["binds"] if each["owned"]})
    for each in plan["binds"]:
        root.place(Path(each["source"]), Path(each["target"]), each["read_only"], each["owned"])
    os.chroot(plan["root"])


def probe(folder: str) -> None:
    own_namespace()
    Root(Path(folder), {Path("/tmp")})
    os.chroot(folder)
    Path("/proc/self/status").read_text()


def main() -> None:
    if sys.argv[1] == "--probe":
        probe(sys.argv[2])
        return
    plan = json.loads(Path(sys.argv[1]).read_text())
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != plan["parent"]:
        sys.exit("the server is gone")
    try:
        if plan["namespace"]:
            build(plan)
        os.chdir(plan["workdir"])
    except OSError as error:
        sys.exit(f"The container's file system could not be built: {error}")
    os.execve(plan["argv"][0], plan["argv"], plan["env"])


if __name__ == "__main__":
    main()
