"""Listening sockets, opened by the user's command, so that errors appear there."""

from __future__ import annotations

import errno
import ipaddress
import socket

from stenoflow.errors import InputError, PortTaken


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; clients that connect while its server restarts wait instead of failing.

    Raises PortTaken, and InputError for a host that is not this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=512)
        # asyncio sets it on sockets whose protocol number is TCP's, and `create_server` leaves that at 0; without it every
        # answer whose head and body are written apart waits 40 ms for the caller's delayed acknowledgement.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listener
    except PermissionError as error:
        raise InputError(f"This user may not listen on port {port}; choose one above 1023 with --port.") from error
    except OSError as error:
        if error.errno == errno.EADDRINUSE or "in use" in str(error):
            raise PortTaken(
                f"Port {port} on {host} is in use by another program (perhaps another `steno`); choose one with --port."
            ) from error
        raise InputError(f"Cannot listen on {host}:{port}: {error.strerror or error}; choose another --host.") from error


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches that address, or every address of that name."""
    name = host.strip().removeprefix("[").removesuffix("]")
    if not name:
        return False
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        pass
    try:
        found = {str(info[4][0]).partition("%")[0] for info in socket.getaddrinfo(name, None)}
    except (OSError, UnicodeError):
        return False
    return bool(found) and all(ipaddress.ip_address(address).is_loopback for address in found)
