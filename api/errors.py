"""Errors as callers get them: RFC 9457 problems, with the `error` string that older callers read. Never a stack trace.

    ApiError
    ├── BadRequest           400  the body contradicts itself
    ├── Unauthenticated      401  no key, or one that is not known
    ├── Forbidden            403
    ├── JobNotFound          404  no such job or voice, or another owner's
    ├── TimedOut             408  the body did not arrive in time
    ├── Conflict             409  the job is not in a state for that
    ├── Gone                 410  what the job left is no longer kept
    ├── TooLarge             413
    ├── WrongMediaType       415  a body that is neither JSON nor multipart
    ├── Unprocessable        422  a value is refused; an Idempotency-Key was used for another payload
    ├── TooMany              429  a limit of the key; `Retry-After` says when to come back
    └── Unavailable          503  Prefect, the store or the warm worker does not answer

The errors of `stenoflow.errors` become problems by their `code`; anything else is a 500 without details.
"""

from __future__ import annotations

from typing import Any, ClassVar


class ApiError(Exception):
    """An answer that is an error. The message is one sentence for the caller."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal"
    title: ClassVar[str] = "Internal error"

    def __init__(self, detail: str, *, retry_after: float | None = None, code: str | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.retry_after = retry_after
        self.problem_code = code or self.code
        self.more: dict[str, Any] = {}
        """Members of the problem that only this kind has."""


class BadRequest(ApiError):
    status, code, title = 400, "bad_request", "Bad request"


class Unauthenticated(ApiError):
    status, code, title = 401, "unauthenticated", "A valid API key is required"


class Forbidden(ApiError):
    status, code, title = 403, "forbidden", "Not permitted"


class JobNotFound(ApiError):
    status, code, title = 404, "job_not_found", "No such job"


class TimedOut(ApiError):
    status, code, title = 408, "body_timeout", "The body did not arrive in time"


class Conflict(ApiError):
    status, code, title = 409, "conflict", "Not allowed in the current state of the job"


class Gone(ApiError):
    status, code, title = 410, "gone", "No longer kept"


class TooLarge(ApiError):
    status, code, title = 413, "too_large", "Too large"


class WrongMediaType(ApiError):
    status, code, title = 415, "unsupported_media_type", "The body must be JSON or multipart/form-data"


class Unprocessable(ApiError):
    status, code, title = 422, "invalid_request", "A value is not valid"

    def __init__(
        self,
        detail: str,
        *,
        retry_after: float | None = None,
        code: str | None = None,
        errors: list[dict[str, Any]] | None = None,
    ) -> None:
        super().__init__(detail, retry_after=retry_after, code=code)
        self.errors = errors


class TooMany(ApiError):
    status, code, title = 429, "too_many_requests", "Too many requests"


class Unavailable(ApiError):
    status, code, title = 503, "unavailable", "Try again later"
