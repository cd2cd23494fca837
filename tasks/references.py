"""The recordings of a reference set, each with what is true of it; read whole before anything is computed."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from prefect import Task
from prefect.cache_policies import NO_CACHE
from prefect.utilities.annotations import quote

from infra.jobs import ProgressSink, in_thread
from infra.listing import Item, Left, Refused, entries
from infra.listing.manifests import OWN_COLUMNS
from infra.names import output_stem
from infra.settings import StenoSettings, get_settings
from infra.truths import COLUMN, truth_files
from speech.scoring.references import SUFFIXES, Reference, read_reference
from stenoflow.errors import InvalidReference, StenoError
from stenoflow.types import Frozen
from tasks.report import defects_contained
from tasks.retrying import current_attempts, retry_condition, with_retries

_AT_ONCE = 8
"""Recordings whose truth is fetched at the same time: an object store takes tens of milliseconds to answer."""


class Problem(Frozen):
    """Why a recording of the set cannot be evaluated."""

    message: str
    code: str
    exit_code: int


@dataclass(frozen=True)
class Case:
    """A recording of the set."""

    recording: str
    """Its name, which no other recording of the set has."""
    source: str = ""
    folder: str = ""
    """Where it lies below what was listed."""
    options: dict[str, Any] = field(default_factory=dict)
    """Of its own, from a manifest."""
    reference: Reference | None = None
    sha256: str = ""
    """Of the files that the truth was read from."""
    problem: Problem | None = None


@dataclass(frozen=True)
class ReferenceSet:
    cases: tuple[Case, ...]
    without_truth: tuple[str, ...]
    """Recordings that were left out, because nothing says what is true of them."""
    left_out: tuple[str, ...]
    """Files that are still being written."""


class ReferencesCall(Frozen):
    references: str
    recursive: bool
    options: tuple[str, ...]
    """What a manifest's rows may say beside the reference."""


async def read_references(references: str, *, recursive: bool, options: Collection[str]) -> ReferenceSet:
    """Every recording that `references` lists and its truth; one whose truth is malformed has a `problem`.

    Raises the errors of listing, and InvalidReference when no recording has a truth.
    """
    call = ReferencesCall(references=references, recursive=recursive, options=tuple(options))
    found: ReferenceSet = await with_retries(references_task)(quote(call))
    return found


async def _references(call: ReferencesCall) -> ReferenceSet:
    current_attempts().begin(1)
    with defects_contained("references"):
        return await in_thread(lambda report: _read_all(call, report), lambda _: None, "references")


references_task: Task[Any, Any] = Task(
    fn=_references,
    name="references",
    cache_policy=NO_CACHE,
    persist_result=False,
    retry_condition_fn=retry_condition,
)


def _read_all(call: ReferencesCall, report: ProgressSink) -> ReferenceSet:
    settings = get_settings()
    found_there = entries(call.references, settings, recursive=call.recursive, columns=(*OWN_COLUMNS, *call.options, COLUMN))
    listed = [entry for entry in found_there if not isinstance(entry, Left)]
    names = _names(listed)
    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="truth") as threads:
        found = list(threads.map(lambda entry, name: _case(entry, name, call, settings), listed, names))
    report(1.0)
    kept = [case for case in found if case.reference is not None or case.problem is not None]
    if not any(case.reference or case.problem for case in kept):
        raise InvalidReference(
            f"None of the {len(listed)} recordings has a reference next to it; add {', '.join(SUFFIXES)} with the same name, or list them in a manifest."
            if listed
            else "No recording found among the references; give a folder with recordings and references, or a manifest."
        )
    later = {name for entry, name in zip(listed, names, strict=True) if isinstance(entry, Refused) and entry.later}
    return ReferenceSet(
        cases=tuple(kept),
        without_truth=tuple(
            case.recording for case in found if case.reference is None and case.problem is None and case.recording not in later
        ),
        left_out=tuple(sorted(later)),
    )


def _case(entry: Item | Refused, name: str, call: ReferencesCall, settings: StenoSettings) -> Case:
    if isinstance(entry, Refused):
        return Case(name, problem=None if entry.later else Problem(message=entry.message, code="not_listed", exit_code=3))
    options = {key: value for key, value in entry.options.items() if key in call.options}
    case = Case(name, entry.source, entry.folder, options)
    try:
        files = truth_files(entry, call.references, settings, SUFFIXES)
        if not files:
            return case
        digest = hashlib.sha256(b"\0".join(part for name in sorted(files) for part in (name.encode(), files[name])))
        reference = read_reference(files, output_stem(entry.source))
    except StenoError as error:
        return Case(name, problem=Problem(message=error.message, code=error.code, exit_code=error.exit_code))
    return Case(name, entry.source, entry.folder, options, reference, digest.hexdigest())


def _names(listed: list[Item | Refused]) -> list[str]:
    """What each is called: its name; with its folder, and its line in the manifest, where another is called the same."""
    plain = [_stem(entry) for entry in listed]
    longer = [
        f"{entry.folder}/{name}" if isinstance(entry, Item) and entry.folder and plain.count(name) > 1 else name
        for entry, name in zip(listed, plain, strict=True)
    ]
    taken: set[str] = set()
    names = []
    for place, (entry, name) in enumerate(zip(listed, longer, strict=True), start=1):
        unique = name if name not in taken else f"{name} ({entry.line or place})"
        taken.add(unique)
        names.append(unique)
    return names


def _stem(entry: Item | Refused) -> str:
    return output_stem(entry.name) if isinstance(entry, Item) else entry.name
