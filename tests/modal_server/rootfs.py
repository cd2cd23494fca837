"""What a container sees of the file system: its local files and volumes at their real paths, and not the checkout.

The host's folders are there read-write as they are, except that `/root` and `/tmp` are the container's own, the checkout that
the tests run from is empty (only the interpreter stays reachable), and editable installs are masked: what the app did not add
to its image cannot be imported, as on Modal.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modal_proto import api_pb2

CHECKOUT = Path(__file__).parents[2]
LAUNCH = Path(__file__).with_name("launch.py")
HOME = "/root"
RUN = "/__modal/run"


def why_not_isolated(folder: Path) -> str:
    """Why this user cannot have a mount namespace here (root's own, or one inside a user namespace); "" when it can."""
    probe = folder / "probe"
    probe.mkdir(exist_ok=True)
    command = [sys.executable, "-I", "-S", str(LAUNCH), "--probe", str(probe)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    return "" if done.returncode == 0 else (done.stderr.strip().splitlines() or ["it ended at once"])[-1]


def editable_markers() -> list[Path]:
    """The .pth files that put folders of this machine on the import path."""
    folders = [Path(entry) for entry in sys.path if entry.endswith("site-packages") and Path(entry).is_dir()]
    found = []
    for pth in (pth for folder in folders for pth in folder.glob("*.pth")):
        lines = pth.read_text(errors="replace").splitlines()
        if any(line.startswith("/") or line.startswith("import __editable__") for line in lines):
            found.append(pth)
    return found


@dataclass
class Rootfs:
    """The shared parts: trees of local files by content, built once per set of mounts."""

    folder: Path
    files: Path
    isolated: bool
    mounts: dict[str, list[api_pb2.MountFile]] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    """without namespaces: path on this machine → what it was linked to"""
    made: list[Path] = field(default_factory=list)
    building: threading.Lock = field(default_factory=threading.Lock)

    def tree(self, mount_ids: list[str], copies: list[tuple[str, str]]) -> Path:
        """A folder with the files of all mounts at their paths; `copies`: (mount, where `COPY .` put it in the image)."""
        wanted = [("/", mount_id) for mount_id in sorted(mount_ids)] + [(target, mount_id) for mount_id, target in copies]
        files = {
            os.path.normpath("/".join((prefix, entry.filename.lstrip("/")))): entry
            for prefix, mount_id in wanted
            for entry in self.mounts.get(mount_id, ())
        }
        listing = "".join(f"{name}\0{entry.sha256_hex}\0{entry.mode}\n" for name, entry in sorted(files.items()))
        tree = self.folder / "trees" / hashlib.sha256(listing.encode()).hexdigest()[:16]
        with self.building:  # containers that start at the same time have the same tree
            if not tree.exists():
                partial = tree.with_suffix(".partial")
                for name, entry in files.items():
                    target = partial / name.lstrip("/")
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(self.files / entry.sha256_hex, target)
                    target.chmod(entry.mode or 0o644)
                partial.mkdir(parents=True, exist_ok=True)
                partial.rename(tree)
        return tree

    def plan(self, folder: Path, tree: Path, volumes: list[tuple[Path, str, bool]]) -> dict[str, Any]:
        """What `launch.py` does for a container in `folder`; `volumes`: (its view, mount path, read-only)."""
        if not self.isolated:
            return self._linked(folder, tree, volumes)
        for name in ("root", "tmp", "empty", "newroot"):
            (folder / name).mkdir()
        (folder / "tmp").chmod(0o1777)
        (folder / "nothing").touch()
        binds = [_bind(folder / "root", HOME, owned=True), _bind(folder / "tmp", "/tmp", owned=True)]
        binds.append(_bind(folder, RUN))
        if not _interpreter_is(CHECKOUT):
            binds.append(_bind(folder / "empty", str(CHECKOUT), owned=True))
        hidden = [each["target"] for each in binds if each["owned"]]
        binds += [_bind(keep, str(keep)) for keep in _interpreter() if any(_under(str(keep), place) for place in hidden)]
        binds += [_bind(folder / "nothing", str(marker)) for marker in editable_markers()]
        binds += [_bind(source, target) for source, target in _entries(tree)]
        binds += [_bind(view, path, read_only=read_only) for view, path, read_only in volumes]
        return {
            "namespace": True,
            "root": str(folder / "newroot"),
            "binds": binds,
            "workdir": HOME,
            "run": RUN,
            "home": HOME,
            "site": "",
        }

    def _linked(self, folder: Path, tree: Path, volumes: list[tuple[Path, str, bool]]) -> dict[str, Any]:
        """Without a namespace: a home folder instead of /root, and links at the other paths where these can be made."""
        home, site = folder / "root", folder / "site"
        home.mkdir()
        site.mkdir()
        (site / "sitecustomize.py").write_text(f"import sys; sys.path[:] = [p for p in sys.path if p != {str(CHECKOUT)!r}]\n")
        for source, target in _entries(tree):
            if target.startswith(HOME + "/"):
                (home / target.removeprefix(HOME + "/")).symlink_to(source)
            else:
                self._link(source, target)
        for view, path, _ in volumes:
            self._link(view, path)
        return {"namespace": False, "workdir": str(home), "run": str(folder), "home": str(home), "site": str(site)}

    def _link(self, source: Path, target: str) -> None:
        known = self.links.get(target)
        if known is None and os.path.lexists(target):
            raise OSError(f"{target} exists on this machine, and without a mount namespace a container cannot have its own")
        if known:
            Path(target).unlink()
        missing = [folder for folder in Path(target).parents if not folder.exists()]
        for parent in reversed(missing):
            parent.mkdir()
            self.made.append(parent)
        Path(target).symlink_to(source)
        self.links[target] = str(source)

    def close(self) -> None:
        for target in self.links:
            Path(target).unlink(missing_ok=True)
        for folder in reversed(self.made):
            with contextlib.suppress(OSError):
                folder.rmdir()


def _bind(source: Path, target: str, *, read_only: bool = False, owned: bool = False) -> dict[str, Any]:
    return {"source": str(source), "target": target, "read_only": read_only, "owned": owned}


def _under(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _interpreter() -> list[Path]:
    """The folders without which this Python does not run."""
    real = Path(os.path.realpath(sys.executable)).parents[1]
    return [Path(place) for place in dict.fromkeys([sys.prefix, sys.base_prefix, str(real)])]


def _interpreter_is(folder: Path) -> bool:
    return any(folder == place for place in _interpreter())


def _entries(tree: Path, at: str = "/") -> list[tuple[Path, str]]:
    """The largest parts of the tree that can be placed whole: below /root always its entries, elsewhere what is not yet there."""
    found: list[tuple[Path, str]] = []
    for entry in sorted(tree.iterdir()):
        target = Path(at, entry.name)
        if entry.is_dir() and (str(target) == HOME or (at != HOME and target.is_dir())):
            found += _entries(entry, str(target))
        else:
            found.append((entry, str(target)))
    return found
