"""Lists of jobs, by filters and page by page."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from api import states, tags
from api.auth import Caller
from api.cursor import Cursor
from api.errors import Unprocessable
from api.runs import submitted_at
from stenoflow.jobs import JobList, JobStatus, JobSummary

if TYPE_CHECKING:
    from api.jobs import Jobs

_PAGE = 100
_MOST_PAGES = 20
"""Pages of Prefect's that one list may look through for jobs of a status that only their progress tells."""


class Filters(NamedTuple):
    statuses: tuple[JobStatus, ...] = ()
    tags: tuple[str, ...] = ()
    metadata: tuple[str, ...] = ()
    """As `key=value`."""
    created_after: datetime | None = None
    created_before: datetime | None = None
    """Both in UTC."""


async def listed(jobs: Jobs, caller: Caller, filters: Filters, *, limit: int, cursor: str | None) -> JobList:
    """A page. Raises Unprocessable for a filter or a cursor that is none."""
    wanted = _filter(caller, filters)
    place = Cursor.parse(cursor) if cursor is not None else None
    found: list[JobSummary] = []
    for _ in range(_MOST_PAGES):
        runs = await jobs.runs.page(wanted | _created(filters, place), _PAGE)
        fresh = [run for run in runs if place is None or run.id not in place.given]
        for run, job in zip(fresh, await jobs.summaries(fresh), strict=True):
            moment = submitted_at(run)
            given = place.given if place is not None and place.before == moment else frozenset()
            place = Cursor(moment, given | {run.id})
            if not tags.is_deleted(run) and (not filters.statuses or job.status in filters.statuses):
                found.append(job)
            if len(found) == limit:
                break
        else:
            if len(runs) < _PAGE or not fresh:
                return JobList(jobs=found, next_cursor=None)
            continue
        break
    return JobList(jobs=found, next_cursor=str(place) if place else None)


def _filter(caller: Caller, filters: Filters) -> dict[str, Any]:
    pairs = [pair.partition("=") for pair in filters.metadata]
    if any(not key or not separator for key, separator, _ in pairs):
        raise Unprocessable("metadata: write it as `key=value`.")
    asked = [*filters.tags, *filters.metadata]
    if any("\0" in text for text in asked):
        raise Unprocessable("A filter contains a NUL character.")
    marks = [tags.owner(caller.owned_by), *(f"{tags.TAG}{tag}" for tag in filters.tags)]
    marks += [tags.metadata_tag(key, value) for key, _, value in pairs]
    wanted: dict[str, Any] = {"tags": {"all_": marks}}
    if filters.statuses:
        kinds = {kind for status in filters.statuses for kind in states.STATE_TYPES[status]}
        wanted["state"] = {"type": {"any_": sorted(kinds)}}
    return wanted


def _created(filters: Filters, place: Cursor | None) -> dict[str, Any]:
    ends = [moment for moment in (filters.created_before, place.before if place else None) if moment is not None]
    span = {"after_": filters.created_after, "before_": min(ends, default=None)}
    known = {name: moment.isoformat() for name, moment in span.items() if moment is not None}
    return {"expected_start_time": known} if known else {}
