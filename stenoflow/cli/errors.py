"""Whatever went wrong, as one sentence, a stable code and an exit code."""

from __future__ import annotations

import errno
import json
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from stenoflow.cli.options import option_name, with_option_names
from stenoflow.errors import StenoError

if TYPE_CHECKING:
    import httpx
    from pydantic import ValidationError

_OURS = ("TranscribeRequest", "TranscribeOptions", "BatchRequest", "EvaluateRequest", "ScoringOptions", "StenoSettings")
"""Models whose errors are the user's."""
INTERRUPTED = 130
PARTIAL = 7


class Problem(NamedTuple):
    code: str
    message: str
    exit_code: int


def describe(error: BaseException) -> Problem:
    """The message for an exception, which Prefect may have wrapped."""
    for cause in _chain(error):
        if problem := _known(cause):
            return problem
    return Problem(
        "internal",
        f"Unexpected error ({type(error).__name__}); run again with --debug for the traceback.",
        StenoError.exit_code,
    )


def report(problem: Problem, *, as_json: bool, source: str | None = None) -> int:
    """Say it, on standard error or as a JSON line on standard output, and return the exit code."""
    from infra.names import readable

    problem = problem._replace(message=readable(problem.message))
    if as_json:
        line: dict[str, Any] = {"type": "error"} | ({"source": source} if source else {}) | problem._asdict()
        click.echo(json.dumps(line, ensure_ascii=False))
    else:
        click.echo(f"steno: error: {f'{source}: ' if source else ''}{problem.message}", err=True)
    return problem.exit_code


def worst(codes: list[int]) -> int:
    """The exit code of several recordings: the first failure's, where a transcript without speakers is the least of them."""
    failures = [code for code in codes if code]
    return next((code for code in failures if code != PARTIAL), failures[0] if failures else 0)


def _known(error: BaseException) -> Problem | None:
    if isinstance(error, StenoError):
        return Problem(error.code, _sentence(error.message), error.exit_code)
    if isinstance(error, KeyboardInterrupt | click.Abort) or type(error).__name__ in ("CancelledError", "TerminationSignal"):
        return Problem(
            "cancelled", "Interrupted. Run the same command again to continue after the finished stages.", INTERRUPTED
        )
    if isinstance(error, click.ClickException):
        return Problem("invalid_option", _sentence(error.format_message()), 2)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return Problem("storage_full", "No space left on the device; free some, or set STENO_HOME to another disk.", 5)
    if isinstance(error, MemoryError):
        return Problem("out_of_memory", "Memory ran out; use a smaller --batch-size or --model.", 5)
    pydantic, httpx = sys.modules.get("pydantic"), sys.modules.get("httpx")
    if pydantic and isinstance(error, pydantic.ValidationError) and error.title in _OURS:
        return Problem("invalid_option", _validation_sentence(error), 2)
    if httpx and isinstance(error, httpx.HTTPStatusError) and _is_prefects_refusal(error):
        from flows.local_server.server import refusal

        return _known(refusal(error.response, str(error.request.url)))
    if httpx and isinstance(error, httpx.HTTPError):
        return Problem(
            "prefect_unreachable", f"The Prefect API stopped responding ({type(error).__name__}); run the command again.", 6
        )
    return None


def _is_prefects_refusal(error: httpx.HTTPStatusError) -> bool:
    from flows.local_server.database import in_answer

    if type(error).__name__ != "PrefectHTTPStatusError":
        return False
    return error.response.status_code < 500 or in_answer(error.response) is not None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The exception, what caused it, and so on down."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        if isinstance(current, BaseExceptionGroup):
            for inner in current.exceptions:
                yield from _chain(inner)
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)


def _validation_sentence(error: ValidationError) -> str:
    """A pydantic error in the user's terms: `--min-speakers`, or the variable of a setting."""
    sentences = []
    for item in error.errors(include_url=False, include_context=False):
        message = _sentence(with_option_names(item["msg"].removeprefix("Value error, ")))
        if error.title == "StenoSettings":
            name = "STENO_" + "__".join(str(part) for part in item["loc"]).upper()
            sentences.append(f"{name}: {message}")
        elif item["loc"] and item["type"] != "value_error":
            sentences.append(f"{option_name(str(item['loc'][0]))}: {message}")
        else:
            sentences.append(message)
    return " ".join(sentences)


def _sentence(text: str) -> str:
    """On one line, ended by a full stop."""
    line = " ".join(text.split())
    return line if line.endswith((".", "?", "!", "`")) else f"{line}."
