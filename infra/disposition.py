"""The name that a server gives a download: `Content-Disposition` (RFC 6266), as browsers read it."""

from __future__ import annotations

import re
from email.errors import HeaderParseError
from email.header import decode_header, make_header
from urllib.parse import unquote_to_bytes

from infra.names import STDIN, display_name

_EXTENDED = re.compile(r"(?:^|;)\s*filename\*\s*=\s*\"?([A-Za-z0-9_-]+)'[^']*'([^;\"\s]+)", re.IGNORECASE)
_PLAIN = re.compile(r'(?:^|;)\s*filename\s*=\s*("(?:[^"\\]|\\.)*"|[^;"]+)', re.IGNORECASE)


def served_name(header: str | None) -> str | None:
    """The file name in the header (as Latin-1 text), safe to show: without folders, control characters and text direction.

    None where there is none worth having. What RFC 5987 encodes comes before the plain form.
    """
    name = _extended(header or "") or _plain(header or "")
    last = re.split(r"[/\\]", name)[-1].strip()
    return None if last.strip(". ") in ("", STDIN) else display_name(last)


def _extended(header: str) -> str:
    found = _EXTENDED.search(header)
    if found is None or found[1].lower() not in ("utf-8", "iso-8859-1"):
        return ""
    return unquote_to_bytes(found[2]).decode(found[1], errors="replace")


def _plain(header: str) -> str:
    found = _PLAIN.search(header)
    if found is None:
        return ""
    value = found[1].strip()
    if value.startswith('"'):
        value = re.sub(r"\\(.)", r"\1", value[1:-1])
    if value.startswith("=?"):  # an encoded word of RFC 2047: not allowed here, and sent all the same
        try:
            return str(make_header(decode_header(value)))
        except (HeaderParseError, UnicodeError, LookupError):
            return ""
    raw = unquote_to_bytes(value.encode("latin-1", errors="replace"))
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("latin-1")
