"""Authentication: a bearer key, a browser's sign-in with one, or none on this machine if no key was ever created.

Remote callers need a key for every request. A request is remote by the address that the service is bound to, the
socket's own and its peer's, the name that was asked for, and the headers that proxies leave.
"""

from __future__ import annotations

import contextlib
import ipaddress
import re
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPBearer

from api import session
from api.errors import Unauthenticated
from api.keyring import KeyRing
from api.keys import ApiKey, KeyLimits, all_keys
from api.openai import envelope
from infra.compute import get_store
from infra.listening import is_loopback
from infra.origins import is_local_name
from infra.settings import StenoSettings, get_settings
from infra.webhooks import SERVICE
from stenoflow.errors import InvalidOption

_declared = HTTPBearer(
    auto_error=False, description="A key created by `steno keys make`. Required once a key exists.", scheme_name="key"
)

_OF_PROXIES = re.compile(
    r"forwarded|client-?ip|real-?ip|remote-?(addr|ip|user)|original-(host|url)|(^|-)via$|^cdn-loop$|^proxy-"
    r"|^(x-)?(akamai|amzn|azure|cf|envoy|fastly|fly|ngrok|tailscale|vercel)-",
    re.ASCII,
)
"""Headers that reverse proxies and tunnels add."""


@dataclass(frozen=True)
class Caller:
    """Whose jobs a request may see."""

    key_id: str
    """Short and public; in the log."""
    name: str
    limits: KeyLimits = field(default_factory=KeyLimits)
    """What the key may ask for, where it differs from the service's settings."""
    owner: str | None = None
    """None: the key's own id."""
    metrics: bool = False
    """Whether it may read what the service as a whole does."""

    @property
    def owned_by(self) -> str:
        """Whose jobs, uploads, sessions and webhooks they are: in the tags of the jobs."""
        return self.owner or self.key_id


ANYBODY = Caller(SERVICE, "anybody", metrics=True)


async def caller(request: Request, _: Annotated[object, Depends(_declared)] = None) -> Caller:
    """The caller, by `Authorization: Bearer …`. Raises Unauthenticated, and the store's errors."""
    settings: StenoSettings = getattr(request.app.state, "settings", None) or get_settings()
    ring = keyring(request, settings)
    given = request.headers.getlist("authorization")
    if not given and not await keys_required(request, settings, ring):
        found = ANYBODY
    elif not given and (signed_in := await session.key_of(request, ring)) is not None:
        found = _of_key(signed_in)
    else:
        try:
            found = await _by_key(given, ring)
        except Unauthenticated:
            # OpenAI's clients cannot but send a key, also where none is needed.
            if not envelope.applies_to(request) or await keys_required(request, settings, ring):
                raise
            found = ANYBODY
    request.state.key_id = found.key_id
    return found


async def keys_required(request: Request, settings: StenoSettings, ring: KeyRing) -> bool:
    """Whether the caller needs a key. Raises the store's errors."""
    if not _comes_from_here(request, settings):
        return True
    required = settings.api.require_keys
    return await ring.required() if required is None else required


def _comes_from_here(request: Request, settings: StenoSettings) -> bool:
    """Whether the request can only have been made on this machine, and for it."""
    state = request.app.state
    if not hasattr(state, "bound_here"):
        state.bound_here = is_loopback(settings.api.host)
    ends = [request.scope.get("server"), request.scope.get("client")]
    addresses = [end[0] for end in ends if end is not None and _is_address(end[0])]
    hosts = request.headers.getlist("host")
    return (
        state.bound_here
        and all(map(is_local_name, addresses))
        and len(hosts) == 1
        and is_local_name(hosts[0])
        and not any(_OF_PROXIES.search(name) for name in request.headers)
        and request.scope.get("http_version") != "1.0"  # nginx speaks it to what is behind it, and may add no header at all
    )


def _is_address(name: str) -> bool:
    with contextlib.suppress(ValueError):
        return bool(ipaddress.ip_address(name.partition("%")[0]))
    return False


async def _by_key(given: list[str], ring: KeyRing) -> Caller:
    if not given:
        raise Unauthenticated("This service requires an API key: send it as `Authorization: Bearer KEY`.")
    scheme, _, token = given[0].strip().partition(" ")
    if len(given) > 1 or scheme.lower() != "bearer":
        raise Unauthenticated("Send exactly one Authorization header: `Bearer` and an API key.")
    key = await ring.find(token.strip())
    if key is None:
        raise Unauthenticated("This API key is unknown, expired or revoked.")
    return _of_key(key)


def _of_key(key: ApiKey) -> Caller:
    return Caller(key.id, key.name, key.limits, key.owned_by, key.metrics)


def keyring(request: Request, settings: StenoSettings) -> KeyRing:
    """The application's own, opened at its first request."""
    state = request.app.state
    if not hasattr(state, "keyring"):
        state.keyring = KeyRing(get_store(settings), settings.home_path)
    ring: KeyRing = state.keyring
    return ring


def check_bind(host: str) -> None:
    """Raise InvalidOption when strangers could reach the service and nothing would keep them out."""
    settings = get_settings()
    if is_loopback(host):
        return
    if settings.api.require_keys is False:
        raise InvalidOption(
            f"{host or 'An empty host'} is not a loopback address, and STENO_API__REQUIRE_KEYS=false admits everyone who can reach it;  "
            "listen on 127.0.0.1, or require keys."
        )
    if not settings.api.require_keys and not all_keys(get_store(settings)):
        raise InvalidOption(
            f"{host or 'An empty host'} is not a loopback address, and no API key exists yet: create one with `steno keys make NAME`, "
            "or listen on 127.0.0.1."
        )
