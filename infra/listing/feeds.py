"""Podcast feeds, RSS and Atom: the episodes that have a recording enclosed.

A feed is a stranger's text: it is fetched through `infra.net`, capped, and read by expat with document types refused, so
that there are no entities to expand and nothing outside to be read (see the `xml` section of Python's documentation).
"""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from datetime import datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

from infra.errors import UnreadableList
from infra.listing.entry import Entry, Item, Refused
from infra.names import display_name, file_suffix, is_media, scheme_of
from infra.settings import StenoSettings
from infra.sources import fetch_source

if TYPE_CHECKING:
    from xml.parsers.expat import XMLParserType

_BLOCK = 1 << 16
_ATOM = "http://www.w3.org/2005/Atom"
_MEDIA_RSS = "http://search.yahoo.com/mrss"
_DEEPEST = 100
_LONGEST_TEXT = 2000
_MAX_PAGES = 100
_SUFFIXES = {"audio/mpeg": ".mp3", "audio/mp4": ".m4a", "audio/x-m4a": ".m4a", "audio/ogg": ".ogg", "video/mp4": ".mp4"}


def feed_entries(address: str, settings: StenoSettings) -> Iterator[Entry]:
    """The feed's episodes in its order, page after page (RFC 5005). Raises UnreadableList for what is no feed.

    An episode is known by its guid: addresses of enclosures change with every signature or advertisement. A guid that
    several recordings carry says nothing; those are known by their enclosures too.
    """
    episodes = list(_episodes(address, settings))
    recordings = defaultdict(set)
    for episode in episodes:
        recordings[episode.guid].add(episode.recording)
    for episode in episodes:
        yield from _entry(episode, address, shared=len(recordings[episode.guid]) > 1)


def _episodes(address: str, settings: StenoSettings) -> Iterator[_Episode]:
    pages: set[str] = set()
    page: str | None = address
    while page is not None and page not in pages and len(pages) < _MAX_PAGES:
        pages.add(page)
        feed = _read(page, settings)
        yield from feed.episodes
        page = feed.next_page
        if page is not None and scheme_of(page) not in ("http", "https"):
            page = None


def _read(address: str, settings: StenoSettings) -> _Feed:
    capped = settings.model_copy(
        update={"limits": settings.limits.model_copy(update={"max_bytes": settings.batch.max_list_bytes})}
    )
    feed = _Feed(address)
    with tempfile.TemporaryDirectory(prefix="steno-feed-") as folder:
        path = fetch_source(address, Path(folder), capped).path
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                feed.read(block)
            feed.read(b"", last=True)
    return feed


def _entry(episode: _Episode, feed: str, *, shared: bool) -> Iterator[Entry]:
    if not episode.url:
        return  # a post without a recording
    if scheme_of(episode.url) not in ("http", "https"):
        yield Refused(name=episode.title or "episode", message="The episode's recording is not at an http or https address.")
        return
    plain = re.split(r"[?#]", episode.url, maxsplit=1)[0]
    name = " ".join(episode.title.split())[:100].strip() or display_name(episode.url)
    suffix = file_suffix(plain) if is_media(display_name(plain)) else _SUFFIXES.get(episode.type, "")
    known_as = episode.guid or plain
    if shared and episode.guid:
        known_as += f"#{hashlib.sha256(chr(0).join(episode.recording).encode()).hexdigest()[:16]}"
    yield Item(
        source=episode.url,
        name=name if name.lower().endswith(suffix) else f"{name}{suffix}",
        origin=f"{urlsplit(feed)._replace(query='', fragment='').geturl()}#{known_as}",
        modified=_timestamp(episode.date),
    )


class _Episode:
    def __init__(self) -> None:
        self.title = self.guid = self.date = self.url = self.type = ""

    @property
    def recording(self) -> tuple[str, ...]:
        """What two episodes of one guid do not share when they are two recordings. A query may be a signature, or all of it."""
        return (re.split(r"[?#]", self.url, maxsplit=1)[0], self.title, self.date) if self.url else ()

    def enclose(self, url: str, kind: str) -> None:
        """Take the first enclosure that may be a recording."""
        may_sound = kind.startswith(("audio/", "video/")) or is_media(display_name(url))
        if url and may_sound and not self.url:
            self.url, self.type = url, kind.partition(";")[0].strip().lower()


class _Feed:
    """Reads a feed block by block and keeps no more of it than its episodes."""

    def __init__(self, address: str) -> None:
        from xml.parsers import expat

        self.episodes: list[_Episode] = []
        self.next_page: str | None = None
        self._address = address
        self._path: list[str] = []
        self._episode: _Episode | None = None
        self._text: list[str] = []
        self._error = expat.ExpatError
        self._parser: XMLParserType = expat.ParserCreate(namespace_separator=" ")
        self._parser.StartDoctypeDeclHandler = self._refuse_document_type
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.CharacterDataHandler = self._characters

    def read(self, block: bytes, *, last: bool = False) -> None:
        try:
            self._parser.Parse(block, last)
        except self._error:
            raise UnreadableList(
                f"{display_name(self._address)} is not a podcast feed (RSS or Atom), nor a manifest that ends in .csv or .jsonl; check the address."
            ) from None

    def _refuse_document_type(self, *_: object) -> None:
        raise UnreadableList(
            f"The feed {display_name(self._address)} declares a document type, which is not read; ask its owner for plain RSS or Atom."
        )

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        namespace, _, local = name.rpartition(" ")
        if not self._path and local not in ("rss", "feed", "RDF"):
            raise UnreadableList(f"{display_name(self._address)} is not a podcast feed (RSS or Atom); check the address.")
        self._path.append(local)
        if len(self._path) > _DEEPEST:
            raise UnreadableList(f"The feed {display_name(self._address)} nests its elements too deep.")
        self._text.clear()
        if local in ("item", "entry") and self._episode is None:
            self._episode = _Episode()
        elif local == "link" and namespace == _ATOM:
            self._link(attributes)
        elif self._episode is not None and (
            local == "enclosure" or (local == "content" and namespace.rstrip("/") == _MEDIA_RSS)
        ):
            self._episode.enclose(self._absolute(attributes.get("url", "")), attributes.get("type", ""))

    def _link(self, attributes: dict[str, str]) -> None:
        target = self._absolute(attributes.get("href", ""))
        if self._episode is not None and attributes.get("rel") == "enclosure":
            self._episode.enclose(target, attributes.get("type", ""))
        elif self._episode is None and attributes.get("rel") == "next":
            self.next_page = target

    def _end(self, name: str) -> None:
        namespace, _, local = name.rpartition(" ")
        self._path.pop()
        text = "".join(self._text).strip()
        self._text.clear()
        episode = self._episode
        if episode is None or namespace not in ("", _ATOM):
            return
        if local in ("item", "entry"):
            self.episodes.append(episode)
            self._episode = None
        elif self._path and self._path[-1] in ("item", "entry"):
            if local == "title":
                episode.title = text
            elif local in ("guid", "id"):
                episode.guid = text
            elif local in ("pubDate", "published") or (local == "updated" and not episode.date):
                episode.date = text

    def _characters(self, text: str) -> None:
        if self._episode is not None and len(self._text) < _LONGEST_TEXT:
            self._text.append(text[:_LONGEST_TEXT])

    def _absolute(self, url: str) -> str:
        return urljoin(self._address, url.strip()) if scheme_of(self._address) in ("http", "https") else url.strip()


def _timestamp(text: str) -> float | None:
    for parse in (parsedate_to_datetime, datetime.fromisoformat):
        try:
            return parse(text).timestamp()
        except (ValueError, TypeError, OverflowError):
            continue
    return None
