"""Ports for processes that are told theirs on the command line."""

from __future__ import annotations

import random
import socket

_BELOW = 32_768
"""Where ports begin that the kernel gives to whoever asks for any: one from among them may be taken before it is used."""


def free_port() -> int:
    """A port of this machine that nobody listens on, and that nobody is given unasked."""
    for port in random.SystemRandom().sample(range(20_000, _BELOW), 100):
        try:
            with socket.create_server(("127.0.0.1", port)):
                return port
        except OSError:
            continue
    raise AssertionError("none of a hundred ports is free")
