"""What routes are given: who calls, and the service that knows the jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, cast

from fastapi import Depends, Request

from api import auth
from api.auth import Caller

if TYPE_CHECKING:
    from api.jobs import Jobs
else:
    Jobs = object


def jobs_of(request: Request) -> Jobs:
    """The service, opened when the application started."""
    return cast("Jobs", request.app.state.jobs)


async def current_caller(request: Request, caller: Annotated[Caller, Depends(auth.caller)]) -> Caller:
    """Who calls, once their rate allows it. Raises Unauthenticated, TooMany."""
    await jobs_of(request).limits.may_request(caller, writes=request.method not in ("GET", "HEAD"))
    return caller


CurrentCaller = Annotated[Caller, Depends(current_caller)]
"""Dependency of every route about a caller's jobs."""
TheJobs = Annotated[Jobs, Depends(jobs_of)]
