"""What a client can meet, each a sentence for people and a `reason` for programs: the code that the service gave.

    StenoError
    └── ClientError              all that this client raises, beside OSError for files here
        ├── RequestRefused       400, 413, 415, 422: an option, a recording or an Idempotency-Key is refused; never retried
        ├── KeyRefused           401, 403: no API key, or one that the service does not know
        ├── JobNotFound          404: no such job, or another key's
        │   └── JobDeleted       it was there and has been deleted
        ├── JobConflict          409: not possible in the job's state
        ├── ResultExpired        410: what the job left is no longer kept
        ├── LimitReached         429, for longer than the client is patient; `retry_after` says when to come back
        ├── ServiceUnavailable   the service, or what it stands on, does not answer, for longer than the client is patient
        ├── ServiceBroken        an answer that cannot be: a 500, or none of this service's
        ├── WaitTimeout          the job has not ended in the time that was given; it goes on
        └── JobFailed            the job ended without what was asked for; `job` says more
            └── JobCanceled      it was canceled

Where the service answered with an RFC 9457 problem, its sentence is the message.
"""

from __future__ import annotations

import email.utils
import time
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, ClassVar

from stenoflow.errors import StenoError, TransientError

if TYPE_CHECKING:
    import httpx

    from stenoflow.jobs import Job

_LONGEST = 500
"""Characters of a service's sentence that are repeated; more is no sentence."""


class ClientError(StenoError):
    """Root of what this client raises, beside OSError for files here."""

    code: ClassVar[str] = "client"

    def __init__(
        self,
        message: str,
        *,
        reason: str | None = None,
        status: int | None = None,
        retry_after: float | None = None,
        request_id: str = "",
        fields: tuple[dict[str, Any], ...] = (),
    ) -> None:
        super().__init__(message)
        self.reason = reason or self.code
        """The service's code for it, as `rate_limited`; this class's where the service had none."""
        self.status = status
        """Of HTTP; None when there was no answer."""
        self.retry_after = retry_after
        """`Retry-After` in seconds."""
        self.request_id = request_id
        """What the service's log calls the request."""
        self.fields = fields
        """What was refused: `field`, `message` and `code` of each."""
        self.ambiguous = False
        """Whether an earlier attempt of this request may have reached the service, although its answer was lost."""


class RequestRefused(ClientError):
    code = "request_refused"
    exit_code = 2


class KeyRefused(ClientError):
    code = "key_refused"
    exit_code = 4


class JobNotFound(ClientError):
    code = "job_not_found"
    exit_code = 3


class JobDeleted(JobNotFound):
    code = "job_deleted"


class JobConflict(ClientError):
    code = "job_conflict"


class ResultExpired(ClientError):
    code = "result_expired"
    exit_code = 3


class LimitReached(ClientError):
    code = "limit_reached"
    exit_code = TransientError.exit_code
    retry = TransientError.retry


class ServiceUnavailable(ClientError):
    code = "service_unavailable"
    exit_code = TransientError.exit_code
    retry = TransientError.retry


class ServiceBroken(ClientError):
    code = "service_broken"


class WaitTimeout(ClientError):
    code = "wait_timeout"
    exit_code = TransientError.exit_code
    retry = TransientError.retry


class JobFailed(ClientError):
    code = "job_failed"

    def __init__(self, message: str, job: Job) -> None:
        super().__init__(message, reason=job.error_code)
        self.job = job


class JobCanceled(JobFailed):
    code = "job_canceled"
    exit_code = 130


_BY_STATUS: dict[int, type[ClientError]] = {
    400: RequestRefused,
    401: KeyRefused,
    403: KeyRefused,
    404: JobNotFound,
    409: JobConflict,
    410: ResultExpired,
    413: RequestRefused,
    415: RequestRefused,
    421: RequestRefused,
    422: RequestRefused,
    408: ServiceUnavailable,
    425: ServiceUnavailable,
    429: LimitReached,
    502: ServiceUnavailable,
    503: ServiceUnavailable,
    504: ServiceUnavailable,
}
PASSING = (408, 425, 429, 502, 503, 504)
"""Answers after which the same request is sent again."""
NOT_BEGUN = (425, 429, 503)
"""Those of them that say that nothing was done; the others may be a proxy's, which does not know."""


def of_response(response: httpx.Response) -> ClientError:
    """The error that an answer is: an RFC 9457 problem, or whatever a proxy said instead."""
    problem = _problem(response)
    status, reason = response.status_code, _text(problem.get("code"))
    kind = _BY_STATUS.get(status, ServiceBroken)
    if kind is JobNotFound:
        kind = {
            "job_deleted": JobDeleted,
            "job_not_found": JobNotFound,
            "unknown_format": RequestRefused,
            "unknown_revision": RequestRefused,
        }.get(reason, ServiceBroken)
    fields = problem.get("errors")
    return kind(
        _text(problem.get("detail")) or _describe(response),
        reason=reason or None,
        status=status,
        retry_after=_retry_after(response),
        request_id=_text(problem.get("request_id")),
        fields=tuple(item for item in fields if isinstance(item, dict)) if isinstance(fields, list) else (),
    )


def of_job(job: Job) -> JobFailed | None:
    """The error that the job's end is; None when it is what was asked for."""
    if job.status == "canceled":
        return JobCanceled(f"The job {job.job_id} was canceled.", job)
    return JobFailed(job.error or f"The job {job.job_id} failed.", job) if job.status == "failed" else None


def exit_code(error: ClientError) -> int:
    """The command line's; a job's failure has the one that it would have had on this machine."""
    if not isinstance(error, JobFailed) or isinstance(error, JobCanceled):
        return error.exit_code
    return _exit_codes().get(error.reason, error.exit_code)


def _exit_codes() -> dict[str, int]:
    """By the codes of all errors that a run can end with."""
    found, kinds = {"diarization_failed": 7}, [StenoError]
    while kinds:
        kind = kinds.pop()
        found.setdefault(kind.code, kind.exit_code)
        kinds += kind.__subclasses__()
    return found


def _problem(response: httpx.Response) -> dict[str, Any]:
    if "json" not in response.headers.get("content-type", ""):
        return {}
    try:
        body = response.json()
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def _text(value: Any) -> str:
    return value[:_LONGEST] if isinstance(value, str) else ""


def _describe(response: httpx.Response) -> str:
    status = response.status_code
    if response.is_redirect:
        return f"The service redirects ({status}), and redirects are not followed; give the final address."
    try:
        phrase = f" {HTTPStatus(status).phrase}"
    except ValueError:
        phrase = ""
    return f"The answer was {status}{phrase}, which did not come from Stenoflow; check the address, and any proxy in between."


def _retry_after(response: httpx.Response) -> float | None:
    """Seconds, whether they or a date are given (RFC 9110, 10.2.3)."""
    given = response.headers.get("retry-after", "")
    if given.isdecimal():
        return float(given)
    moment = email.utils.parsedate_tz(given)
    return max(0.0, email.utils.mktime_tz(moment) - time.time()) if moment else None
