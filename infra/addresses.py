"""Which addresses a source may be fetched from: hosts are resolved here, and every address they have is judged.

Sources are named by strangers, so a URL must not reach what only this machine can reach: itself, its network, its
cloud's metadata service. Only globally routable unicast addresses pass, unless `settings.net.allow_hosts` lists them.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Callable, Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import NamedTuple

from stenoflow.errors import DownloadFailed, InvalidOption, SourceForbidden, SourceNotFound

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
Resolver = Callable[[str, int], Sequence[str]]
"""Host and port → numeric addresses. Raises OSError (socket.gaierror) when the host has none."""

_HOST = re.compile(r"(?=.{1,253}\Z)[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)*")
_NUMERIC_LABEL = re.compile(r"[0-9]+|0x[0-9a-f]*")
_LOCAL_NAMES = ("localhost", "local", "internal")

# Reachable from inside a cloud only, though the first is a public address by the registries:
# Azure's WireServer; AWS (IPv4, containers, IPv6), Google and others; Alibaba; Oracle.
_METADATA = frozenset(
    map(
        ipaddress.ip_address,
        ("168.63.129.16", "169.254.169.254", "169.254.170.2", "fd00:ec2::254", "100.100.100.200", "192.0.0.192"),
    )
)
# On top of ipaddress.is_global, whose tables vary with Python's patch release (IANA special-purpose registries).
_SPECIAL_V4 = tuple(
    map(
        IPv4Network,
        (
            "0.0.0.0/8",
            "100.64.0.0/10",
            "192.0.0.0/24",
            "192.0.2.0/24",
            "192.88.99.0/24",
            "198.18.0.0/15",
            "198.51.100.0/24",
            "203.0.113.0/24",
            "224.0.0.0/4",
            "240.0.0.0/4",
        ),
    )
)
_GLOBAL_V6 = IPv6Network("2000::/3")
_SPECIAL_V6 = tuple(map(IPv6Network, ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")))
_NAT64 = IPv6Network("64:ff9b::/96")
_ISATAP = (0x00005EFE, 0x02005EFE)


class _Allowed(NamedTuple):
    """One entry of allow_hosts: a name or a network, on one port or on all."""

    name: str | None
    network: Network | None
    port: int | None


class AddressGuard:
    """Resolves hosts and lets through only addresses that may be fetched from.

    `resolver` is the seam to the name service. The addresses returned are the ones to connect to: asking the name
    service again could give others (DNS rebinding).
    """

    def __init__(self, allow_hosts: Iterable[str] = (), resolver: Resolver | None = None) -> None:
        self._allowed = tuple(_parse_allowed(entry) for entry in allow_hosts if entry.strip())
        self._resolver = resolver or system_resolver

    def addresses(self, host: str, port: int) -> list[str]:
        """The host's addresses, all of them checked.

        One forbidden address rejects the host, since any of them could be used. Raises SourceForbidden,
        SourceNotFound (no such host) and DownloadFailed (the name service does not answer).
        """
        host = canonical_host(host)
        literal = _literal(host)
        if literal is None and _is_local_name(host) and not self._name_allowed(host, port):
            raise _refused(host, "is a name of this machine or its local network")
        found = [literal] if literal is not None else self._resolve(host, port)
        for address in found:
            why = refusal(address)
            if why and not self._address_allowed(host, address, port):
                raise _refused(host, f"leads to {why}" if literal is None else f"is {why}")
        return [str(address) for address in found]

    def _resolve(self, host: str, port: int) -> list[Address]:
        try:
            found = self._resolver(host, port)
        except socket.gaierror as error:
            if error.errno in (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)):
                raise SourceNotFound(f"There is no host named {host}; check its spelling.") from None
            raise DownloadFailed(f"The host name {host} could not be resolved; try again, or check the network.") from None
        except OSError:
            raise DownloadFailed(f"The host name {host} could not be resolved; try again, or check the network.") from None
        except UnicodeError:
            raise SourceForbidden(f"{host!r} is not a valid host name.") from None
        if not found:
            raise SourceNotFound(f"The host {host} has no IP address; check its spelling.")
        return [ipaddress.ip_address(address.partition("%")[0]) for address in found]

    def _name_allowed(self, host: str, port: int) -> bool:
        return any(rule.name == host and rule.port in (None, port) for rule in self._allowed)

    def _address_allowed(self, host: str, address: Address, port: int) -> bool:
        plain = _unmapped(address)
        for rule in self._allowed:
            if rule.port in (None, port) and rule.network is not None and plain in rule.network:
                return True
        # A name's owner decides where it leads: that may be the intranet, never the metadata service.
        dangerous = plain in _METADATA or plain.is_link_local or plain.is_multicast or plain.is_unspecified
        return self._name_allowed(host, port) and not dangerous


def system_resolver(host: str, port: int) -> list[str]:
    """The operating system's name service."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(info[4][0]) for info in found))


def canonical_host(host: str) -> str:
    """The host in lower case, without a trailing dot.

    Raises SourceForbidden for invalid host names, and for addresses in notations (octal, hexadecimal, one number,
    fewer than four parts, zone ids) that libraries read differently.
    """
    name = host.lower().removesuffix(".")
    if name.startswith("[") and name.endswith("]"):
        name = name[1:-1]
    if ":" in name:
        try:
            if "%" in name:
                raise ValueError
            return str(IPv6Address(name))
        except ValueError:
            raise SourceForbidden("The host of the URL is not a valid IPv6 address.") from None
    if _NUMERIC_LABEL.fullmatch(name.rpartition(".")[2]):
        try:
            return str(IPv4Address(name))
        except ValueError:
            raise SourceForbidden(
                "The host of the URL is an IP address in an unusual notation; write it as four decimal numbers."
            ) from None
    if not _HOST.fullmatch(name):
        raise SourceForbidden("The host of the URL is not a valid host name.")
    return name


def refusal(address: Address) -> str | None:
    """Why nothing is fetched from this address, or None if it may be."""
    if isinstance(address, IPv6Address):
        return _refusal_v6(address)
    if address in _METADATA:
        return "a cloud metadata address"
    for wrong, kind in (
        (address.is_loopback, "a loopback address"),
        (address.is_link_local, "a link-local address"),
        (address.is_unspecified, "an unspecified address"),
        (address.is_multicast, "a multicast address"),
        (any(address in network for network in _SPECIAL_V4), "a reserved address"),
        (not address.is_global, "a private address"),
    ):
        if wrong:
            return kind
    return None


def _refusal_v6(address: IPv6Address) -> str | None:
    if address in _METADATA:
        return "a cloud metadata address"
    if address.ipv4_mapped is not None:
        return refusal(address.ipv4_mapped)
    low = int(address) & 0xFFFFFFFF
    if address in _NAT64:
        return refusal(IPv4Address(low))
    if (int(address) >> 32) & 0xFFFFFFFF in _ISATAP and refusal(IPv4Address(low)):
        return "a tunnel to a private address"
    for wrong, kind in (
        (address.is_loopback, "a loopback address"),
        (address.is_link_local, "a link-local address"),
        (address.is_unspecified, "an unspecified address"),
        (address.is_multicast, "a multicast address"),
        (address.is_private and address not in _GLOBAL_V6, "a private address"),
        (address not in _GLOBAL_V6 or any(address in network for network in _SPECIAL_V6), "a reserved address"),
    ):
        if wrong:
            return kind
    return None


def _unmapped(address: Address) -> Address:
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


def _literal(host: str) -> Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _is_local_name(host: str) -> bool:
    return host.rpartition(".")[2] in _LOCAL_NAMES or host in ("ip6-localhost", "ip6-loopback")


def _refused(host: str, why: str) -> SourceForbidden:
    return SourceForbidden(
        f"The host {host} {why}, which is never fetched from",
        cure="the operator can allow it in STENO_NET__ALLOW_HOSTS",
    )


def _parse_allowed(entry: str) -> _Allowed:
    host, port = entry.strip().lower(), ""
    if host.startswith("["):
        host, _, rest = host[1:].partition("]")
        port = rest.removeprefix(":")
    elif host.count(":") == 1:
        host, _, port = host.partition(":")
    if port and not (port.isdecimal() and 0 < int(port) < 65536):
        raise InvalidOption(f"STENO_NET__ALLOW_HOSTS has an entry with an invalid port: {entry!r}.")
    number = int(port) if port else None
    try:
        return _Allowed(None, ipaddress.ip_network(host, strict=False), number)
    except ValueError:
        pass
    try:
        return _Allowed(canonical_host(host), None, number)
    except SourceForbidden:
        raise InvalidOption(f"STENO_NET__ALLOW_HOSTS has an entry that is not a host, address or network: {entry!r}.") from None
