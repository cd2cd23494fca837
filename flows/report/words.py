"""Pieces of Markdown: what others named or wrote shows as it is, and is never taken for markup."""

from __future__ import annotations

import re
from urllib.parse import quote

from infra.names import without_secrets
from infra.settings import S3Settings

_MARKUP = re.compile(r"([\\`*_{}\[\]()#+!|~$^=:-])")


def plain(text: str) -> str:
    """The text as Markdown that shows it literally, on one line."""
    text = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _MARKUP.sub(r"\\\1", text)


def sentence(text: str) -> str:
    """A message of ours, which may name files and addresses: markup is disarmed, the rest left readable in raw view."""
    text = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|~])", r"\\\1", text)


def code(text: str) -> str:
    """The text in a code span; paths may hold anything, backticks included."""
    text = " ".join(text.split()).replace("|", "\\|")
    fence = "``" if "`" in text else "`"
    return f"{fence} {text} {fence}" if "`" in text else f"{fence}{text}{fence}"


def table(header: list[str], rows: list[list[str]]) -> list[str]:
    """Lines of a table. A header that starts with `>` has its column set to the right."""
    marks = ["---:" if name.startswith(">") else "---" for name in header]
    return [_line([name.removeprefix(">") for name in header]), _line(marks), *map(_line, rows)]


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def link(target: str, s3: S3Settings) -> str:
    """An output as people can open it: a link for a web address or a bucket, the path for a folder. Never credentials."""
    shown = without_secrets(target)
    address = _address(shown, s3)
    return f"[{code(shown)}]({address})" if address else code(shown)


def _address(shown: str, s3: S3Settings) -> str | None:
    """Where a browser finds it."""
    scheme, separator, rest = shown.partition("://")
    if not separator:
        return None
    if scheme in ("http", "https"):
        return quote(shown, safe=":/%")
    bucket, _, key = rest.partition("/")
    if scheme == "s3" and s3.endpoint_url:
        return f"{without_secrets(s3.endpoint_url).rstrip('/')}/{quote(bucket)}/{quote(key)}"
    if scheme == "s3":
        return f"https://console.aws.amazon.com/s3/object/{quote(bucket)}?prefix={quote(key)}"
    if scheme in ("gs", "gcs"):
        return f"https://console.cloud.google.com/storage/browser/_details/{quote(bucket)}/{quote(key)}"
    return None
