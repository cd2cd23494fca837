"""Where a list goes on: true also when new things come in between two pages."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from typing import NamedTuple
from uuid import UUID

from api.errors import Unprocessable


class Cursor(NamedTuple):
    """Where a list goes on: at this time, without these jobs, which were made at it and have been given."""

    before: datetime
    given: frozenset[UUID]

    def __str__(self) -> str:
        content = [self.before.isoformat(), sorted(map(str, self.given))]
        return base64.urlsafe_b64encode(json.dumps(content).encode()).decode().rstrip("=")

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """Raises Unprocessable."""
        try:
            before, given = json.loads(base64.urlsafe_b64decode(text.encode() + b"=" * (-len(text) % 4)))
            return cls(utc(datetime.fromisoformat(before)), frozenset(UUID(one) for one in given))
        except (ValueError, TypeError, AttributeError, OverflowError, RecursionError):
            raise Unprocessable(
                "cursor: not a valid cursor; pass `next_cursor` of the previous page unchanged.", code="invalid_cursor"
            ) from None


def utc(moment: datetime) -> datetime:
    """The time in UTC, which one without a zone is taken to be. Raises OverflowError where that is no year of four digits."""
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
