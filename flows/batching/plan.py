"""From what a source lists to what a batch does with it: new, done before, failed before, or not to be taken."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import unicodedata
from collections.abc import AsyncIterator, Iterator
from typing import NamedTuple

from pydantic import ValidationError

from flows.batching.ended import Ended, read_all_ended
from flows.batching.request import BatchRequest, digest, shaping
from flows.options import MANIFEST_OPTIONS, TranscribeOptions
from flows.outcome import error_of
from flows.request import TranscribeRequest
from infra import outputs
from infra.compute import get_store
from infra.handles import concealed, revealed
from infra.listing import Entry, Item, Left, Refused, entries
from infra.listing.manifests import OWN_COLUMNS
from infra.names import WEB, output_stem, readable, scheme_of
from infra.settings import StenoSettings
from stenoflow.errors import InvalidOption

PAGE = 100
"""Entries that are looked up together."""
COLUMNS = (*OWN_COLUMNS, *MANIFEST_OPTIONS)


class Planned(NamedTuple):
    """A recording of the list: to be transcribed, or with the row it already has."""

    key: str
    item: Item
    options: TranscribeOptions
    row: Ended
    """How it ended, or what it is called."""
    settled: bool
    """Nothing is to be done: `row` says how it ended."""
    by_hand: bool = False
    """It failed for good before, and a person wants it tried again."""
    identity: str = ""
    """The same for two entries that are one recording with one set of options, however it is spelled."""
    request: TranscribeRequest | None = None
    """What its run is asked, once it is to begin."""


async def planned(request: BatchRequest, settings: StenoSettings, campaign: str, *, retry: bool) -> AsyncIterator[Planned]:
    """What the source lists, page by page, each with what is known of it. Raises the errors of `infra.listing`."""
    pages = _pages(request, settings)
    while page := await asyncio.to_thread(next, pages, None):
        for entry in await asyncio.to_thread(_look_up, page, request, settings, campaign, retry):
            yield entry


def _pages(request: BatchRequest, settings: StenoSettings) -> Iterator[list[Entry]]:
    listed = entries(revealed(request.source, settings), settings, recursive=request.recursive, columns=COLUMNS)
    if request.order != "listed":
        sign = -1 if request.order == "newest" else 1
        listed = iter(sorted(listed, key=lambda entry: sign * ((entry.modified if isinstance(entry, Item) else None) or 0.0)))
    while page := list(itertools.islice(listed, PAGE)):
        yield page


def _look_up(page: list[Entry], request: BatchRequest, settings: StenoSettings, campaign: str, retry: bool) -> list[Planned]:
    plans = [_planned(entry, request, settings, campaign) for entry in page]
    open_ = [position for position, plan in enumerate(plans) if not plan.settled]
    for position, row in zip(open_, read_all_ended([plans[position].key for position in open_]), strict=True):
        if row is not None:
            plans[position] = _known(plans[position], row, campaign, request, retry)
    return plans


def _planned(entry: Entry, request: BatchRequest, settings: StenoSettings, campaign: str) -> Planned:
    """What is to be done with the entry; the row of its failure where that cannot be said."""
    try:
        return _plan(entry, request, settings, campaign)
    except Exception as error:
        why = error_of(error)
        row = Ended(
            name=entry.name,
            state="failed",
            detail=why.message,
            code=why.code,
            exit_code=why.exit_code,
            line=getattr(entry, "line", None),
        )
        return Planned("", Item(source="-", name=entry.name, origin=""), request.options, row, settled=True)


def _plan(entry: Entry, request: BatchRequest, settings: StenoSettings, campaign: str) -> Planned:
    if isinstance(entry, Left):
        row = Ended(name=entry.name, state="left", detail=entry.message, campaign=campaign)
        return Planned("", Item(source="-", name=entry.name, origin=""), request.options, row, settled=True)
    if isinstance(entry, Refused):
        state = "skipped" if entry.later else "failed"
        row = Ended(
            name=entry.name,
            state=state,
            detail=entry.message,
            line=entry.line,
            code="" if entry.later else "not_listed",
            exit_code=0 if entry.later else 3,
            campaign=campaign,
        )
        return Planned("", Item(source="-", name=entry.name, origin=""), request.options, row, settled=True)
    plain = entry.origin.partition("?")[0] if scheme_of(entry.origin) in WEB else entry.origin
    row = Ended(name=entry.name, state="done", source=plain, line=entry.line, campaign=campaign)
    try:
        options = _options(request.options, entry)
    except InvalidOption as error:
        row = row.model_copy(
            update={"state": "failed", "detail": error.message, "code": error.code, "exit_code": error.exit_code}
        )
        return Planned("", entry, request.options, row, settled=True)
    body = {
        "origin": entry.origin,
        "version": entry.version,
        "options": shaping(options, settings),
        "output": outputs.joined(request.output_dir, entry.folder),
    }
    own = options.model_dump(mode="json", exclude_defaults=True)
    identity = digest(body | {"origin": _identity(entry), "options": own})
    return Planned(digest(body), entry, options, row, settled=False, identity=identity)


def _identity(item: Item) -> str:
    """What tells recordings apart: for a file its entry in its folder, whatever way leads there."""
    if scheme_of(item.source) is not None:
        return item.origin
    with contextlib.suppress(OSError, ValueError):
        stat = os.lstat(item.source)
        if stat.st_nlink == 1:
            return f"{stat.st_dev}:{stat.st_ino}"
    folder, name = os.path.split(item.source)
    return os.path.join(os.path.realpath(folder), name)  # noqa: PTH118


def _options(common: TranscribeOptions, item: Item) -> TranscribeOptions:
    """The batch's options, with those of the manifest's row in their place. Raises InvalidOption."""
    if not item.options:
        return common
    own = {name: value for name, value in item.options.items() if name not in OWN_COLUMNS}
    try:
        return TranscribeOptions.model_validate(common.model_dump(exclude_unset=True) | own)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_context=False)[0]
        place = f"{problem['loc'][0]}: " if problem["loc"] else ""
        raise InvalidOption(f"{place}{problem['msg'].removeprefix('Value error, ')}") from None


def _known(plan: Planned, row: Ended, campaign: str, request: BatchRequest, retry: bool) -> Planned:
    """What a recording that has been at work before is now."""
    if row.campaign == campaign and (row.state == "done" or not retry):
        return plan._replace(row=row, settled=True)  # in this very batch, before it was restarted or retried
    if row.state == "done":
        if request.options.redo_from:
            return plan
        before = row.model_copy(update={"state": "skipped", "detail": "done before"})
        return plan._replace(row=before, settled=True)
    if retry:
        return plan._replace(by_hand=True)
    if row.again:
        return plan
    why = f"failed before and would fail again: {row.detail}"
    return plan._replace(row=row.model_copy(update={"state": "skipped", "detail": why}), settled=True)


def child_request(plan: Planned, request: BatchRequest, settings: StenoSettings) -> TranscribeRequest:
    """What one recording's run is asked. Blocks: it claims the place of the output in the store."""
    folder = outputs.joined(request.output_dir, readable(plan.item.folder))
    return TranscribeRequest(
        **plan.options.model_dump(exclude_unset=True),
        source=concealed(plan.item.source, settings, shared=True),
        name=_claimed_name(folder, plan.item),
        output_dir=folder,
    )


def _claimed_name(folder: str, item: Item) -> str:
    """A name whose output files are this recording's alone: two of one name in a list do not write over one another."""
    store = get_store()
    name = readable(item.name)[-150:]
    stem, dot, extension = name.rpartition(".")
    mine = digest({"origin": item.origin} | ({"occurrence": item.occurrence} if item.occurrence else {}))
    unique = f"{stem if dot else extension}-{mine[:8]}"
    for name_ in (name, *([f"{stem}_{extension}"] if dot else [])):
        # As file systems that fold case and accents would see it.
        seen_as = unicodedata.normalize("NFC", output_stem(name_)).casefold()
        place = f"outputs/{digest({'folder': folder, 'stem': seen_as})}"
        holder = store.read_record(place)
        if holder is None:
            store.write_record(place, mine.encode())
        if holder is None or holder == mine.encode():
            return name_
    return unique
