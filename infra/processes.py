"""Which process wrote something into the store, so that another one of the same machine can tell that it is gone."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Callable
from pathlib import Path


def this_process() -> str:
    """Machine, boot, process namespace (a container has its own), process, and when it was started. ASCII."""
    return "/".join((*_machine(), str(os.getpid()), _started(os.getpid())))


def has_exited(process: str) -> bool:
    """Whether the process that `this_process` named ran on this machine and has exited. False for other machines."""
    host, boot, namespace, pid, started = (process.split("/") + [""] * 5)[:5]
    if (host, boot, namespace) != _machine() or not (boot and namespace and started):
        return False
    return not pid.isdigit() or _started(int(pid)) != started


def ending_signals() -> tuple[signal.Signals, ...]:
    """What asks a process to end in order: Ctrl-C, SIGTERM, and a terminal that is closed unless that is to be survived (nohup)."""
    hangup: signal.Signals | None = getattr(signal, "SIGHUP", None)
    if hangup is None or signal.getsignal(hangup) is signal.SIG_IGN:
        return signal.SIGINT, signal.SIGTERM
    return signal.SIGINT, signal.SIGTERM, hangup


def write_nowhere() -> None:
    """Discard standard output and error once they are closed: libraries that print would fail."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):
        os.dup2(nowhere, descriptor)
    os.close(nowhere)


def end_with_parent(end: Callable[[], object] | None = None) -> None:
    """Call `end`, in a thread, once standard input closes: the parent holds it open, and it closes however the parent ended.

    Without `end` this process is sent SIGTERM.
    """

    def watch() -> None:
        while os.read(0, 4096):  # not sys.stdin, whose lock a daemon thread may not hold when Python ends
            pass
        os.kill(os.getpid(), signal.SIGTERM) if end is None else end()

    threading.Thread(target=watch, daemon=True).start()


def resident() -> int:
    """Bytes of memory that this process uses; 0 where the system does not say."""
    with contextlib.suppress(OSError, IndexError, ValueError):
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


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
