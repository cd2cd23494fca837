"""Flows that `flow.serve` can load again."""

from __future__ import annotations

import typing
from collections.abc import Callable
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])


def with_types(function: F) -> F:
    """The function with its annotations as types, no longer as text.

    Prefect loads a served flow by its file, and then cannot resolve text when it validates a run's parameters: every run of
    `transcribe.serve()` failed with "`TranscribeModel` is not fully defined" (`prefect/_internal/pydantic/validated_func.py`).
    """
    function.__annotations__ = typing.get_type_hints(function)
    return function
