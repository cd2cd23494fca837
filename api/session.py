"""Sign-in for browsers: a cookie that says which key it was, instead of the key itself.

The cookie holds the key's id and an expiry, signed with the key's stored hash. So no process has to remember anything, the
key cannot be read out of it, and revoking or rotating the key ends it. It counts only in requests of this service's own pages.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import time

from fastapi import Request, Response

from api.keyring import KeyRing
from api.keys import ApiKey

COOKIE = "steno_session"
_SECONDS = 30 * 86_400
_VALUE = re.compile(r"([a-z2-7]{12})\.(\d{10})\.([0-9a-f]{64})")


def start(response: Response, request: Request, key: ApiKey) -> None:
    """Have the browser send the cookie from now on."""
    expires = int(time.time()) + _SECONDS
    if key.expires is not None:
        expires = min(expires, int(key.expires.timestamp()))
    value = f"{key.id}.{expires}.{_signed(key, expires)}"
    secure = request.url.scheme == "https"
    response.set_cookie(COOKIE, value, max_age=_SECONDS, httponly=True, samesite="strict", secure=secure)


def end(response: Response) -> None:
    response.delete_cookie(COOKIE, httponly=True, samesite="strict")


async def key_of(request: Request, ring: KeyRing) -> ApiKey | None:
    """The key that the browser signed in with; None for pages of other origins, even of this host's other ports."""
    match = _VALUE.fullmatch(request.cookies.get(COOKIE, ""))
    if match is None or request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        return None
    key = await ring.by_id(match[1])
    if key is None or int(match[2]) < time.time() or not hmac.compare_digest(_signed(key, int(match[2])), match[3]):
        return None
    return key


def _signed(key: ApiKey, expires: int) -> str:
    return hmac.new(bytes.fromhex(key.sha256), f"session {key.id} {expires}".encode(), hashlib.sha256).hexdigest()
