"""How much of uploaded recordings one owner may have in the store: what the tags of its jobs say, as far as uploads are kept."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from uuid import UUID

from fastapi import Request

from api import limits, tags
from api.auth import Caller
from api.errors import TooMany
from api.runs import Runs, submitted_at
from infra.api_settings import ApiSettings

_COUNTED_FOR = 300.0
"""Seconds that a count is good for; what was uploaded here since is added to it."""
_AGAIN = 10.0
"""The same while there is no room."""
_COME_BACK = 60.0
_PAGE = 200


_ORPHANED = 3 * 3600.0
"""Seconds within which a recording that no job came of is removed."""


@dataclass
class Room:
    """What one upload may take up."""

    limit: int
    """Bytes."""
    kept: int = 0
    """Bytes in the store, as reported by the receiver."""


@dataclass
class _Tally:
    counted_at: float = -math.inf
    bytes: int = 0
    """Counted, and taken since."""
    under_way: int = 0
    """Of uploads that are being received."""
    orphans: list[tuple[float, int]] = field(default_factory=list)
    """Time and size of stored uploads whose submission was rejected: no job has their tags."""

    @property
    def taken(self) -> int:
        self.orphans = [(at, size) for at, size in self.orphans if time.monotonic() - at < _ORPHANED]
        return self.bytes + self.under_way + sum(size for _, size in self.orphans)


class Stored:
    """The bytes of each owner. Deleting jobs makes room, and so does time."""

    def __init__(self, runs: Runs, settings: ApiSettings) -> None:
        self._runs = runs
        self._settings = settings
        self._tallies: dict[str, _Tally] = {}

    @contextlib.asynccontextmanager
    async def room(self, caller: Caller, request: Request) -> AsyncIterator[Room]:
        """Room for the upload of this request, reserved until the block ends with its job made. Raises TooMany when there is none."""
        most = limits.max_upload_bytes(caller)
        declared = request.headers.get("content-length", "")
        wanted = min(int(declared) if declared.isdecimal() else most, most)
        tally = await self._tally(caller.owned_by, wanted)
        left = self._settings.stored_bytes - tally.taken
        if left < (wanted if declared.isdecimal() else 1):
            raise TooMany(
                f"Your recordings fill the quota of {self._settings.stored_bytes} bytes per owner; delete jobs, or wait: "
                f"recordings expire after {self._settings.upload_days:g} days.",
                retry_after=_COME_BACK,
                code="too_many_bytes",
            )
        reserved = min(wanted, left)
        tally.under_way += reserved
        room = Room(min(most, left))
        try:
            yield room
            tally.bytes += room.kept
        except BaseException:
            if room.kept:
                tally.orphans.append((time.monotonic(), room.kept))
            raise
        finally:
            tally.under_way -= reserved

    async def _tally(self, owner: str, wanted: int) -> _Tally:
        """The owner's, counted anew when it is old or does not leave room."""
        tally = self._tallies.setdefault(owner, _Tally())
        age = time.monotonic() - tally.counted_at
        full = tally.taken + wanted > self._settings.stored_bytes
        if age > (_AGAIN if full else _COUNTED_FOR):
            tally.counted_at = time.monotonic()
            tally.bytes = await self._count(owner)
        return tally

    async def _count(self, owner: str) -> int:
        """Bytes of the owner's uploads whose jobs are not deleted, each once."""
        sizes: dict[str, int] = {}
        since = datetime.now(UTC) - timedelta(days=self._settings.upload_days)
        span, seen = {"after_": since.isoformat()}, set[UUID]()
        while True:
            wanted = {"tags": {"all_": [tags.owner(owner), tags.UPLOADED]}, "expected_start_time": span}
            found = [run for run in await self._runs.page(wanted, _PAGE) if run.id not in seen]
            for run in found:
                if (upload := tags.values(run, tags.UPLOAD)) and (size := tags.values(run, tags.BYTES)):
                    sizes[upload[0]] = int(size[0])
            if not found:
                return sum(sizes.values())
            seen |= {run.id for run in found}
            span["before_"] = submitted_at(found[-1]).isoformat()
