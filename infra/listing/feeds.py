"""Podcast feeds, RSS, Atom and JSON: the episodes that have a recording enclosed.

A feed is a stranger's text: it is fetched through `infra.net`, capped, and parsed by feedparser, which takes feeds as they are in
the wild. feedparser is given a stream, since it would open bytes and text as a file or an address; and no document type, so that
there are no entities to expand.
"""

from __future__ import annotations

import calendar
import hashlib
import io
import json
import re
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urljoin, urlsplit

from infra.listing.entry import Entry, Item, Left, Refused
from infra.names import OTHERS, display_name, file_suffix, is_media, readable, scheme_of
from infra.settings import StenoSettings
from infra.sources import fetch_source
from speech.sniff import document_kind
from stenoflow.errors import StenoError, UnreadableList

_MAX_PAGES = 100
_SUFFIXES = {"audio/mpeg": ".mp3", "audio/mp4": ".m4a", "audio/x-m4a": ".m4a", "audio/ogg": ".ogg", "video/mp4": ".mp4"}
_ANYTHING = (
    "",
    "application/octet-stream",
    "binary/octet-stream",
    "application/binary",
    "application/x-download",
    "unknown/unknown",
)
"""Types that say nothing of what is enclosed."""
_COMMENT = re.compile(rb"<!--.*?-->", re.DOTALL)
_ELEMENT = re.compile(rb"<[A-Za-z_]")
_ROOT = re.compile(rb"<([A-Za-z_][\w:.-]*)")
_LITERAL = re.compile(rb"(<!\[CDATA\[.*?\]\]>)", re.DOTALL)
_AMPERSAND = re.compile(rb"&(?!#[0-9]{1,7};|#[xX][0-9A-Fa-f]{1,6};|[A-Za-z][A-Za-z0-9]{1,31};)")
_DOCUMENT_TYPE = re.compile(rb"<!\s*(DOCTYPE|ENTITY)", re.IGNORECASE)


class _Episode(NamedTuple):
    title: str
    guid: str
    date: str
    modified: float | None
    url: str
    """Of what is enclosed; empty where nothing is that may be a recording."""
    type: str
    why: str = ""
    """Why nothing of it can be taken."""

    @property
    def recording(self) -> tuple[str, ...]:
        """What two episodes of one guid do not share when they are two recordings. A query may be a signature, or all of it."""
        return (re.split(r"[?#]", self.url, maxsplit=1)[0], self.title, self.date) if self.url else ()


class _Page(NamedTuple):
    episodes: Sequence[_Episode | Refused | Left]
    following: str | None
    """The address of the next page."""


def feed_entries(address: str, settings: StenoSettings) -> Iterator[Entry]:
    """The feed's episodes in its order, page after page (RFC 5005). Raises UnreadableList for what is no feed.

    An episode is known by its guid: addresses of enclosures change with every signature or advertisement. A guid that
    several recordings carry says nothing; those are known by their enclosures too.
    """
    found = list(_pages(address, settings))
    recordings = defaultdict(set)
    for episode in found:
        if isinstance(episode, _Episode) and episode.url:
            recordings[episode.guid].add(episode.recording)
    for episode in found:
        yield _entry(episode, address, len(recordings[episode.guid]) > 1) if isinstance(episode, _Episode) else episode


def _pages(address: str, settings: StenoSettings) -> Iterator[_Episode | Refused | Left]:
    pages: set[str] = set()
    page: str | None = address
    while page is not None and page not in pages and len(pages) < _MAX_PAGES:
        pages.add(page)
        try:
            read = _read(page, settings)
        except StenoError as error:
            if len(pages) == 1:
                raise
            yield Refused(
                name=f"page {len(pages)} of the feed", message=f"The episodes of the page are missing. {error.message}"
            )
            return
        yield from read.episodes
        page = read.following if read.following and scheme_of(read.following) in ("http", "https") else None


def _title(episode: _Episode) -> str:
    return " ".join(episode.title.split())[:100].strip() or (display_name(episode.url) if episode.url else "episode")


def _entry(episode: _Episode, feed: str, shared: bool) -> Entry:
    name = _title(episode)
    if not episode.url:
        return Left(name=name, message=episode.why)
    if scheme_of(episode.url) not in ("http", "https"):
        return Refused(name=name, message="The URL of the episode's recording is not http or https.")
    plain = re.split(r"[?#]", episode.url, maxsplit=1)[0]
    suffix = file_suffix(plain) if is_media(display_name(plain)) else _SUFFIXES.get(episode.type, "")
    known_as = episode.guid or plain
    if shared and episode.guid:
        known_as += f"#{hashlib.sha256(chr(0).join(episode.recording).encode()).hexdigest()[:16]}"
    return Item(
        source=episode.url,
        name=name if name.lower().endswith(suffix) else f"{name}{suffix}",
        origin=f"{urlsplit(feed)._replace(query='', fragment='').geturl()}#{known_as}",
        modified=episode.modified,
    )


def _read(address: str, settings: StenoSettings) -> _Page:
    capped = settings.model_copy(
        update={"limits": settings.limits.model_copy(update={"max_bytes": settings.batch.max_list_bytes})}
    )
    with tempfile.TemporaryDirectory(prefix="steno-feed-") as folder:
        content = fetch_source(address, Path(folder), capped).path.read_bytes().lstrip()
    if content.startswith(b"{"):
        return _json_page(content, address)
    _refuse_hostile(content, address)
    return _xml_page(content, address)


def _refuse_hostile(content: bytes, address: str) -> None:
    start = _COMMENT.sub(b"", content[: 1 << 20].replace(b"\0", b""))  # UTF-16 is looked through as well
    element = _ELEMENT.search(start)
    if (kind := document_kind(content[:4096])) and kind != "an XML document":
        raise _no_feed(address, f": it is {kind}")
    if _DOCUMENT_TYPE.search(start[: element.start() if element else len(start)]):
        raise UnreadableList(
            f"The feed {display_name(address)} declares a document type, which is not supported; ask its owner for plain RSS or Atom."
        )


def _no_feed(address: str, more: str = "") -> UnreadableList:
    return UnreadableList(
        f"{display_name(address)} is not a podcast feed (RSS, Atom or JSON Feed), nor a manifest that ends in .csv or .jsonl{more}; check the address."
    )


def _xml_page(content: bytes, address: str) -> _Page:
    import feedparser

    feed = feedparser.parse(io.BytesIO(_with_ampersands(content)), sanitize_html=False, resolve_relative_uris=False)
    episodes = [_xml_episode(entry, address) for entry in feed.entries]
    if not feed.version or (feed.bozo and not any(episode.title or episode.url for episode in episodes)):
        raise _no_feed(address)
    links = [link.get("href", "") for link in feed.feed.get("links", ()) if link.get("rel") == "next"]
    rows: list[_Episode | Refused | Left] = []
    for entry, episode in zip(feed.entries, episodes, strict=True):
        rows += [episode, *_others(entry, episode)]
    if _is_cut(content):
        rows.append(Refused(name="end of the feed", message="The feed is cut off: later episodes are missing.", later=True))
    return _Page(rows, _absolute(links[0], address) if links else None)


def _is_cut(content: bytes) -> bool:
    """Whether the document's outermost element is not closed."""
    plain = content.replace(b"\0", b"")  # UTF-16
    root = _ROOT.search(_COMMENT.sub(b"", plain[: 1 << 20]))
    return root is not None and not re.search(rb"</\s*" + re.escape(root[1]) + rb"\s*>", plain[-(1 << 16) :])


def _others(entry: Any, episode: _Episode) -> Iterator[Left]:
    """What an entry encloses beside the episode's recording, unless it is the same one in another format."""
    known = {_stem(episode.url)}
    for link in entry.get("enclosures", ()):
        url = link.get("href", "")
        if episode.url and url.strip() and _stem(url) not in known and is_media(_plain_name(url)):
            known.add(_stem(url))
            yield Left(name=readable(display_name(url)), message=f"another enclosure of {_title(episode)}")


def _stem(url: str) -> str:
    return _plain_name(url).rpartition(".")[0]


def _with_ampersands(content: bytes) -> bytes:
    """The text with its bare `&` escaped: feedparser would read `Q&A` as an entity."""
    if b"\0" in content[:64]:
        return content  # UTF-16
    parts = _LITERAL.split(content)
    return b"".join(part if part.startswith(b"<![CDATA[") else _AMPERSAND.sub(b"&amp;", part) for part in parts)


def _xml_episode(entry: Any, address: str) -> _Episode:
    enclosed = [(link.get("href", ""), link.get("type", "")) for link in entry.get("enclosures", ())]
    enclosed += [
        (media.get("url", ""), media.get("type") or f"{media.get('medium', '')}/*".removeprefix("/*"))
        for media in entry.get("media_content", ())
    ]
    enclosed.append(
        (entry.get("podcast_source", {}).get("uri", ""), entry.get("podcast_alternateenclosure", {}).get("type", ""))
    )
    resource = entry.get("enc_enclosure", {})
    enclosed.append((resource.get("rdf:resource", ""), resource.get("enc:type", "")))
    when = entry.get("published_parsed") or entry.get("updated_parsed")
    date = entry.get("published") or entry.get("updated") or ""
    return _episode(
        entry.get("title", ""), entry.get("id", ""), date, calendar.timegm(when) if when else None, enclosed, address
    )


def _json_page(content: bytes, address: str) -> _Page:
    try:
        feed = json.loads(content)
        if not str(feed.get("version", "")).startswith("https://jsonfeed.org/version/"):
            raise _no_feed(address)
        episodes = [_json_episode(item, place, address) for place, item in enumerate(feed.get("items", ()), start=1)]
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise _no_feed(address) from None
    following = feed.get("next_url")
    return _Page(episodes, _absolute(following, address) if isinstance(following, str) else None)


def _json_episode(item: Any, place: int, address: str) -> _Episode | Refused:
    try:
        enclosed = [(str(each.get("url", "")), str(each.get("mime_type", ""))) for each in item.get("attachments") or ()]
        date = str(item.get("date_published") or "")
        title, guid = str(item.get("title") or ""), str(item.get("id") or "")
    except (TypeError, AttributeError):
        return Refused(name=f"item {place} of the feed", message="It does not follow the JSON Feed specification.")
    return _episode(title, guid, date, _timestamp(date), enclosed, address)


def _episode(
    title: str, guid: str, date: str, modified: float | None, enclosed: list[tuple[str, str]], address: str
) -> _Episode:
    """The episode with the first of what is enclosed that says it is a recording, or else the first that may be one."""
    title, guid, date = readable(title), readable(guid), readable(date)
    offered = [(_absolute(url, address), kind.partition(";")[0].strip().lower()) for url, kind in enclosed if url.strip()]
    certain = [offer for offer in offered if offer[1].startswith(("audio/", "video/")) or is_media(_plain_name(offer[0]))]
    possible = [offer for offer in offered if offer[1] in _ANYTHING and _plain_name(offer[0]).rpartition(".")[2] not in OTHERS]
    for url, kind in (*certain, *possible):
        return _Episode(title, guid, date, modified, url, kind)
    kinds = ", ".join(dict.fromkeys(kind or display_name(url) for url, kind in offered))
    why = f"the enclosure is not a recording: {readable(kinds)[:200]}" if offered else "a post without a recording"
    return _Episode(title, guid, date, modified, "", "", why)


def _plain_name(url: str) -> str:
    return display_name(url).lower()


def _absolute(url: str, address: str) -> str:
    url = readable(url.strip())
    try:
        return urljoin(address, url) if scheme_of(address) in ("http", "https") else url
    except ValueError:
        return url


def _timestamp(text: str) -> float | None:
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError):
        return None
