"""Ports to name on the command line of a process."""

from __future__ import annotations

import random
import socket

_BELOW = 32_768
"""Start of the range that the kernel assigns from: another process may get a port in it first."""


def free_port() -> int:
    """A port without a listener that the kernel does not assign."""
    for port in random.SystemRandom().sample(range(20_000, _BELOW), 100):
        try:
            with socket.create_server(("127.0.0.1", port)):
                return port
        except OSError:
            continue
    raise AssertionError("none of a hundred ports is free")
