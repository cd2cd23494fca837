"""Names for sources that may be shown, logged and used for files: never a query, credentials or control characters."""

from __future__ import annotations

import os
import re
import unicodedata
from pathlib import Path
from urllib.parse import quote, unquote_to_bytes

from speech.formats import FORMATS

STDIN = "-"
WEB = ("http", "https", "feed")
_RECORDINGS = (
    "3g2 3ga 3gp aa aac aax ac3 ac4 adts adx aif aifc aiff al alac alaw amr ape apm aptx asf au avi avr awb caf dff dsf "
    "dss dts dtshd dv eac3 ec3 f4a f4b f4v flac flv g722 g723 g726 gsm gxf htk ircam ivf kux la lbc loas m1v m2t m2ts m2v m4a m4b "
    "m4p m4r m4v mka mkv mlp mod mov mp1 mp2 mp3 mp4 mpa mpc mpe mpeg mpg mpga mpv mts mxf nist nsv nut oga ogg ogv ogx oma omg "
    "opus paf pvf qcp qt qta ra ram rf64 rm rmvb sb sds sf shn sln sln12 sln16 sln24 sln32 sln44 sln48 sln8 snd sox spx sw tak tod "
    "trp ts tta ub ul ulaw uw vid vob voc vox vqf w64 wav wave wavex weba webm wma wmv wtv wv xa"
)
MEDIA = frozenset(_RECORDINGS.split())
"""Extensions of files that may hold sound. Whether one does, its bytes decide."""
WRITTEN = frozenset(FORMATS)
"""Extensions of the files that are written."""
_OTHERS = (
    "7z asp aspx avif bak bin bmp bz2 cfg cgi conf csv css dat db doc docx eps epub exe gif gz heic htm html ico ini jpeg jpg js jsonl "
    "jsp lock log md ndjson odp ods odt pdf php pl png ppt pptx ps psd py rar rtf sh sql sqlite svg tar tgz tif tiff toml torrent "
    "url webp xls xlsx xml xz yaml yml zip zst"
)
OTHERS = frozenset(_OTHERS.split())
_CUT = MEDIA | WRITTEN | OTHERS
"""Extensions of files that are no recordings: none is looked for in objects that are called so."""
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_SUFFIX = re.compile(r"\.(?=[0-9]*[A-Za-z])[A-Za-z0-9]{1,5}\Z")
_UNSAFE_IN_FILES = re.compile(r'[/\\:*?"<>|]')
_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)
_VERSION = re.compile(r"\?versionId=[^/]*\Z")
_STRAY = re.compile(r"[\ud800-\udfff]+")
_LONGEST_NAME = 120
_LONGEST_ADDRESS = 500
_LONGEST_STEM_BYTES = 150


def scheme_of(source: str) -> str | None:
    """The URL scheme in lower case, or None for a path."""
    match = _SCHEME.match(source)
    return match[1].lower() if match else None


def readable(text: str) -> str:
    """Text that UTF-8 can hold: bytes of a file's name that are not UTF-8 are read as Windows' Western European ones."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return _STRAY.sub(lambda match: _western(match[0]), text)
    return text


def portable(path: str) -> str:
    """The path as JSON, Prefect and logs can carry it: itself, or a file:// URL where its bytes are not UTF-8.

    Raises ValueError for a name that no file can have.
    """
    try:
        path.encode()
    except UnicodeEncodeError:
        return f"file://{quote(os.fsencode(os.path.abspath(path)))}"  # noqa: PTH100
    return path


def path_of(source: str) -> str:
    """The path that a file:// URL names, byte for byte; any other source as it is."""
    if scheme_of(source) != "file":
        return source
    return os.fsdecode(unquote_to_bytes(re.sub(r"\A(localhost)?(?=/)", "", source[len("file://") :])))


def expanded(path: str) -> Path:
    """The path, with a leading `~/` as the user's home; a name that merely begins with a tilde stays."""
    return Path(path).expanduser() if path == "~" or path.startswith("~/") else Path(path)


def display_name(source: str) -> str:
    """A short name for people: the last part of the path, or the host where there is no path; `stdin` for `-`.

    Only web addresses have a query and escapes: in an object store `#`, `?` and `%` are part of the name, a version is not.
    """
    if source == STDIN:
        return "stdin"
    match = _SCHEME.match(source)
    if match is None:
        return _cleaned(source.rstrip("/").rpartition("/")[2]) or "recording"
    authority, _, path = source[match.end() :].partition("/")
    kind = match[1].lower()
    if kind in WEB:
        authority, path = re.split(r"[?#]", authority, maxsplit=1)[0], re.split(r"[?#]", path, maxsplit=1)[0]
    elif kind != "file":
        path = _VERSION.sub("", path)
    if kind in WEB or kind == "file":
        path = os.fsdecode(unquote_to_bytes(path)).replace("\\", "/")
    last = path.rstrip("/").rpartition("/")[2]
    return _cleaned(last) or _cleaned(authority.rpartition("@")[2]) or "recording"


def full_address(source: str) -> str:
    """The whole of it, for messages about what is not there: an absolute path, or a URL without its secrets."""
    kind, address = scheme_of(source), source
    if kind is None:
        address = os.path.abspath(expanded(source))  # noqa: PTH100  as the path is written, `..` and links included
    elif kind in WEB:
        address = without_secrets(source)
    elif kind != "file":
        place, _, rest = source.partition("://")[2].partition("/")
        address = f"{kind}://{place.rpartition('@')[2]}/{_VERSION.sub('', rest)}"
    return _cleaned(address, _LONGEST_ADDRESS)


def without_secrets(address: str) -> str:
    """A path as it is; a URL without credentials, query and fragment."""
    scheme, separator, rest = address.partition("://")
    if not separator:
        return address
    authority, slash, path = re.split(r"[?#]", rest, maxsplit=1)[0].partition("/")
    return f"{scheme}://{authority.rpartition('@')[2]}{slash}{path}"


def output_stem(source: str) -> str:
    """The name that output files start with: safe on every file system, never hidden, never empty.

    Only an extension that is known as one is cut: `interview.part1` stays whole.
    """
    name = display_name(source)
    stem, dot, extension = name.rpartition(".")
    name = stem if dot and extension.lower() in _CUT else name
    name = _UNSAFE_IN_FILES.sub("_", name).lstrip(". ").rstrip(". ")
    name = name.encode()[:_LONGEST_STEM_BYTES].decode(errors="ignore").rstrip(". ")
    return f"_{name}" if _RESERVED.fullmatch(name) else name or "recording"


def file_suffix(source: str) -> str:
    """The source's extension if it looks like one, else nothing."""
    match = _SUFFIX.search(display_name(source))
    return match[0].lower() if match else ""


def is_media(name: str) -> bool:
    """Whether a file of this name may be a recording: not hidden, not the part of a download, a known extension."""
    stem, dot, extension = name.rpartition(".")
    return bool(stem) and bool(dot) and not name.startswith((".", "~$")) and extension.lower() in MEDIA


def _western(strays: str) -> str:
    try:
        return os.fsencode(strays).decode("cp1252")
    except UnicodeDecodeError:
        return os.fsencode(strays).decode("latin-1")
    except UnicodeEncodeError:
        return "\ufffd"  # half of a pair, which is in no file's name


def _cleaned(name: str, longest: int = _LONGEST_NAME) -> str:
    """Without control, formatting (such as text direction) and unassigned characters; bytes that are not UTF-8 are read somehow."""
    name = readable(name)
    shown = "".join(
        " " if character.isspace() else character
        for character in name
        if character.isspace() or unicodedata.category(character)[0] != "C"
    )
    shown = " ".join(shown.split())
    return shown if len(shown) <= longest else f"{shown[: longest // 2]}…{shown[-longest // 2 :]}"
