"""Whether a task is tried again, after how long, and with what: the one place of it.

The error says of itself whether trying again can help (`stenoflow.errors.Retry`). `Attempts.again_after` is the rule; Prefect asks it after
each failure (`retry_condition`), and only bounds the count.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from copy import copy
from dataclasses import dataclass
from typing import Any

from prefect import Task
from prefect.client.schemas.objects import State, TaskRun

from infra.settings import RetrySettings, get_settings
from speech.schema import USUAL_BATCH
from stenoflow.errors import ArtifactMissing, Retry, StenoError

_MAX_HALVINGS = 8
"""A batch is at most 256."""
_HALVINGS_BEFORE_A_LARGER_GPU = 2


@dataclass
class Attempts:
    """The executions of one task run, and what the next one may be."""

    count: int = 0
    transient: int = 0
    batch_size: int | None = None
    halved: int = 0
    larger: int = 0
    """Steps up to a larger GPU."""
    larger_steps: int = 0
    """How many there are where the stage is computed."""

    def begin(self, batch_size: int | None) -> int | None:
        """Count an execution; the batch size to run it with, None where the stage finds one."""
        self.count += 1
        self.batch_size = self.batch_size or batch_size
        return self.batch_size

    def again_after(self, error: object) -> bool:
        """Whether to try again, by what the error says of itself."""
        if isinstance(error, ArtifactMissing):
            return False  # the stage that makes it has to run first: the flow's business
        retry = error.retry if isinstance(error, StenoError) else Retry.NEVER
        if retry is Retry.SMALLER:
            return self._with_less(getattr(error, "tried", None))
        if retry is Retry.LATER:
            self.transient += 1
            return self.transient <= get_settings().retry.attempts
        return False

    def _with_less(self, tried: int | None) -> bool:
        """Halve the batch that was tried, down to one; where there are larger GPUs only twice, and then take the next. False at the end."""
        halve = not self.larger_steps or self.halved < _HALVINGS_BEFORE_A_LARGER_GPU
        tried = tried or self.batch_size or USUAL_BATCH
        if halve and tried > 1:
            self.batch_size = tried // 2
            self.halved += 1
            return True
        if self.larger >= self.larger_steps:
            return False
        self.larger += 1
        return True


_attempts: ContextVar[Attempts | None] = ContextVar("steno_attempts", default=None)


@contextlib.contextmanager
def counted() -> Iterator[Attempts]:
    """The attempts of the task run that is started inside the block."""
    attempts = Attempts()
    token = _attempts.set(attempts)
    try:
        yield attempts
    finally:
        _attempts.reset(token)


def current_attempts() -> Attempts:
    """Those of the task run that is executing in this context."""
    attempts = _attempts.get()
    if attempts is None:
        attempts = Attempts()
        _attempts.set(attempts)
    return attempts


def retry_condition(task: Task[Any, Any], task_run: TaskRun, state: State[Any]) -> bool:
    """Ask the error itself whether trying again can help."""
    return current_attempts().again_after(state.data)


def with_retries(task: Task[Any, Any], *, again: bool = False) -> Task[Any, Any]:
    """The task with the pauses that the settings ask for. `retry_condition` decides; the count here only bounds it.

    With `again` it is executed although its result is cached, and its result takes the place of the cached one.
    """
    retry = get_settings().retry
    task = copy(task)
    task.refresh_cache = again
    task.retries = retry.attempts + _MAX_HALVINGS
    task.retry_delay_seconds = pauses(retry)
    task.retry_jitter_factor = 0.5
    return task


def pauses(retry: RetrySettings) -> list[float]:
    """Seconds before each retry: 2, 6, 18 … by default, up to the longest allowed."""
    return [min(retry.delay * 3**step, retry.max_delay) for step in range(max(retry.attempts, 1))]
