"""URLs that callers give, refused at the door when they lead where nobody should go; the fetch itself guards again."""

from __future__ import annotations


async def check_audio_url(url: str) -> None:
    """Raise Unprocessable unless the URL may be fetched: http(s) to a public host, or s3://."""


async def check_webhook_url(url: str) -> None:
    """Raise Unprocessable unless the URL may be told: https to a public host."""
