"""Checks of URLs from callers, before the job is created; the download checks them again.

What is refused here could not do harm later either: the worker checks the very address that it connects to, on every
redirect. Rejecting early spares callers the wait. The resolved address is not revealed: it may belong to the operator's network.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from urllib.parse import unquote

from api.allowed import may_read, within
from api.errors import Unprocessable
from infra.addresses import AddressGuard
from infra.names import scheme_of
from infra.net import Location, parse
from infra.settings import StenoSettings, get_settings
from stenoflow.errors import DownloadFailed, SourceForbidden, SourceNotFound

_LOOK_UP = 5.0
"""Seconds that a name may take to resolve; what takes longer is left to the worker."""
_CONTROL = re.compile(r"[\x00-\x20\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")


async def check_audio_url(url: str) -> None:
    """Raise Unprocessable unless the URL may be fetched: http(s) to a public host, or s3:// of a bucket that is listed."""
    settings = get_settings()
    _check_characters(url, "audio_url")
    scheme = scheme_of(url)
    if scheme == "s3":
        _check_s3(url, settings)
        return
    if scheme not in ("http", "https"):
        raise _refused("audio_url", "must be an http, https or s3 URL; upload the recording if it has none")
    location = _parsed(url, "audio_url")
    if not await _allowed(location, settings.net.allow_hosts):
        raise _refused("audio_url", "resolves to a host that is not allowed; use a public host")


async def check_webhook_url(url: str) -> None:
    """Raise Unprocessable unless the URL may be notified: https to a public host.

    Over http only private hosts that an operator lists in STENO_NET__ALLOW_HOSTS are notified.
    """
    settings = get_settings()
    _check_characters(url, "webhook_url")
    if scheme_of(url) not in ("http", "https"):
        raise _refused("webhook_url", "must be an https URL")
    location = _parsed(url, "webhook_url")
    if location.url.userinfo:
        raise _refused("webhook_url", "contains a password; remove it (deliveries are signed instead)")
    if location.scheme == "http" and await _allowed(location, ()):
        raise _refused("webhook_url", "must be an https URL")
    if not await _allowed(location, settings.net.allow_hosts):
        raise _refused("webhook_url", "resolves to a host that is not allowed; use a public host")


def _check_characters(url: str, field: str) -> None:
    if _CONTROL.search(url):
        raise _refused(field, "contains spaces or control characters; percent-encode them")


def _parsed(url: str, field: str) -> Location:
    if "\\" in url.partition("?")[0]:
        # Browsers read it as a slash, others as part of the host.
        raise _refused(field, "contains a backslash")
    try:
        return parse(url)
    except SourceForbidden:
        raise _refused(field, "is not a valid URL of a public host; check its spelling") from None


async def _allowed(location: Location, allow_hosts: tuple[str, ...]) -> bool:
    """Whether the host may be reached; also when it cannot be looked up now, which the worker will find out."""
    guard = AddressGuard(allow_hosts)
    with contextlib.suppress(SourceNotFound, DownloadFailed, TimeoutError):
        try:
            await asyncio.wait_for(asyncio.to_thread(guard.addresses, location.host, location.port), _LOOK_UP)
        except SourceForbidden:
            return False
    return True


def _check_s3(url: str, settings: StenoSettings) -> None:
    bucket, _, key = url.partition("://")[2].partition("/")
    if not _BUCKET.fullmatch(bucket) or not key or key.endswith("/"):
        raise _refused("audio_url", "must have the form s3://bucket/path/to/recording")
    if ".." in unquote(key).split("/"):
        raise _refused("audio_url", "contains `..` in its path")
    # The service reads with credentials of its own: what it keeps of others is not to be had by naming it.
    own = settings.store_url.partition("://")
    if own[0] in ("s3", "s3a") and within(re.sub("//+", "/", f"{bucket}/{key}"), own[2]):
        raise _refused("audio_url", "points into this service's own store")
    if not may_read(f"{bucket}/{key}", settings):
        raise _refused(
            "audio_url", "is not in a bucket that this service may read; the operator can add it to STENO_API__S3_SOURCES"
        )


def _refused(field: str, why: str) -> Unprocessable:
    detail = f"{field} {why}."
    return Unprocessable(
        detail, code=f"{field}_refused", errors=[{"field": field, "message": detail, "code": f"{field}_refused"}]
    )
