"""How the service is reached: its address, the key, and how httpx is set up for it. The same for both clients."""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

from stenoflow.client.errors import RequestRefused
from stenoflow.client.steps import Call

URL = "STENO_API_URL"
KEY = "STENO_API_KEY"
DEFAULT_URL = "http://127.0.0.1:8765"
PATIENCE = 120.0
_CONNECT = 10.0
_WRITE = 60.0


@dataclass(frozen=True)
class Connection:
    """Where the service is, and who calls."""

    url: str
    key: str | None = field(repr=False)

    @classmethod
    def of(cls, url: str | None, key: str | None) -> Connection:
        """From what was given, or else the environment. Raises RequestRefused for what is no address or no key."""
        url = (url or os.environ.get(URL) or DEFAULT_URL).rstrip("/")
        key = (key or os.environ.get(KEY) or "").strip() or None
        try:
            parts = httpx.URL(url)
        except httpx.InvalidURL:
            parts = httpx.URL()
        if parts.scheme not in ("http", "https") or not parts.host:
            raise RequestRefused("The address of the service is not an http(s) URL; give one such as http://127.0.0.1:8765.")
        if parts.userinfo or parts.query or parts.fragment:
            # They would be logged with every request.
            raise RequestRefused("The address of the service contains more than host, port and path; give an API key as `key`.")
        if key is not None and not (key.isascii() and key.isprintable()):
            raise RequestRefused(
                "The API key contains characters that no key has; copy it again from the output of `steno keys make`."
            )
        return cls(url, key)

    @property
    def options(self) -> dict[str, Any]:
        """For either of httpx's clients."""
        headers = {"User-Agent": "stenoflow-client"} | ({"Authorization": f"Bearer {self.key}"} if self.key else {})
        return {"base_url": self.url, "headers": headers, "follow_redirects": False}


def request_options(call: Call) -> dict[str, Any]:
    """What `build_request` takes of a call, but for its upload."""
    timeout = httpx.Timeout(connect=_CONNECT, read=call.timeout, write=_WRITE, pool=call.timeout)
    return {
        "method": call.method,
        "url": call.path,
        "params": call.params or None,
        "headers": dict(call.headers),
        "json": call.json,
        "timeout": timeout,
    }


Verify = bool | ssl.SSLContext
Fields = Mapping[str, Any]
