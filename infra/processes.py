"""Which process wrote something into the store, so that another one of the same machine can tell that it is gone."""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path


def this_process() -> str:
    """Machine, boot, process namespace (a container has its own), process, and when it was started. ASCII."""
    return "/".join((*_machine(), str(os.getpid()), _started(os.getpid())))


def is_gone(process: str) -> bool:
    """Whether the process that `this_process` named was one of this machine and is no more. Of others nothing is known."""
    host, boot, namespace, pid, started = (process.split("/") + [""] * 5)[:5]
    if (host, boot, namespace) != _machine() or not (boot and namespace and started):
        return False
    return not pid.isdigit() or _started(int(pid)) != started


def _machine() -> tuple[str, str, str]:
    """Its name, boot and process namespace; empty where there is no /proc: then only time tells whether a process is gone."""
    host = socket.gethostname().encode("ascii", "replace").decode().replace("/", "?")
    boot = namespace = ""
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        namespace = str(Path("/proc/self/ns/pid").readlink())
    return host, boot, namespace


def _started(pid: int) -> str:
    """When the process was started, in ticks since boot; empty when there is none, or it is a zombie."""
    with contextlib.suppress(OSError, IndexError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return "" if fields[0] in "ZX" else fields[19]
    return ""
