"""What surrounds the function of every flow: its parameters are checked, and an error that is known ends it in a sentence."""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Awaitable, Callable
from typing import Any, ParamSpec, TypeVar

from prefect.client.schemas.objects import State
from prefect.states import Cancelled, Failed
from pydantic import TypeAdapter, ValidationError

from flows.orphans import marked
from flows.report.advice import advice_for
from stenoflow.errors import InvalidOption, Quarantined, StageCancelled, StenoError

P = ParamSpec("P")
T = TypeVar("T")


def served(function: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
    """The function as Prefect runs it, from a form, an API call or Python; for flows with `validate_parameters=False`.

    Prefect would log each error with its traceback, and the values with parameters that it refuses. So the parameters are
    validated here, and an error of ours is returned as a state: its log line, and the run's message, is one sentence.
    Callers of the flow still get the error. An error that is not ours is a bug, and keeps its traceback.
    """
    # As types, no longer as text, which Prefect cannot resolve in a flow that it loads by its file (`flow.serve`).
    function.__annotations__ = typing.get_type_hints(function)
    signature = inspect.signature(function)
    adapters = {name: TypeAdapter(parameter.annotation) for name, parameter in signature.parameters.items()}

    @functools.wraps(function)
    async def body(*args: P.args, **kwargs: P.kwargs) -> T:
        given = signature.bind(*args, **kwargs)
        try:
            with marked():
                for name, value in given.arguments.items():
                    given.arguments[name] = _validated(adapters[name], value)
                return await function(*given.args, **given.kwargs)
        except StenoError as error:
            return typing.cast(T, ended(error))

    return body


def ended(error: StenoError) -> State[Any]:
    """The state of a run that ended with an error of ours. Callers of the flow get the error."""
    if isinstance(error, StageCancelled):
        return Cancelled(message=error.message, data=error)
    name = "Quarantined" if isinstance(error, Quarantined) else "Failed"
    return Failed(name=name, message=f"{error.happened} {advice_for(error.code)}", data=error)


def requested(field: str) -> str:
    """A field of the run's request as text, for the run's name. Not validated yet; empty when absent."""
    from prefect.runtime import flow_run

    request = flow_run.parameters.get("request")
    value = request.get(field) if isinstance(request, dict) else getattr(request, field, None)
    return str(value) if value else ""


def _validated(adapter: TypeAdapter[Any], value: Any) -> Any:
    """Raises InvalidOption, which names the fields at fault and never their values."""
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        raise InvalidOption(f"The request was rejected: {' '.join(_faults(error))}") from None


def _faults(error: ValidationError) -> typing.Iterator[str]:
    for fault in error.errors(include_url=False, include_context=False, include_input=False):
        where = ".".join(str(part) for part in fault["loc"])
        text = fault["msg"].removeprefix("Value error, ").rstrip(".")
        yield f"{where}: {text}." if where else f"{text}."
