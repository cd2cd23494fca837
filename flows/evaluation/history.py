"""Evaluations kept in the store, so that any machine that sees it can compare with an earlier one.

Under `records/evaluations/<name>/<id>`, with the id of the latest in `records/evaluations/<name>/last`. An id begins with the
time its flow run was made: a retry takes the place of what it retries.
"""

from __future__ import annotations

import asyncio

from flows.evaluation.request import LAST, slug
from flows.evaluation.result import Evaluation
from infra.compute import get_store
from speech.stored import parsed
from stenoflow.errors import InvalidOption

_ROOT = "evaluations"


async def keep(evaluation: Evaluation) -> None:
    """Write it down as the latest of its name; one without a single score is kept, and never compared with."""
    await asyncio.to_thread(_keep, evaluation)


async def latest(name: str, *, other_than: str = "") -> Evaluation | None:
    """The latest evaluation of that name; where that is `other_than` itself, the one before it."""
    return await asyncio.to_thread(_latest, name, other_than)


async def find(asked: str, name: str, *, other_than: str = "") -> Evaluation | None:
    """The evaluation that `compare_with` names, seen from one called `name`: None when `last` is asked and there is none.

    Raises InvalidOption when another one is asked that is not in the store.
    """
    if asked == LAST:
        return await latest(name, other_than=other_than)
    series, _, id_ = asked.strip().partition("/")
    found = (
        await asyncio.to_thread(_read, slug(series), slug(id_)) if id_ else await latest(slug(series), other_than=other_than)
    )
    found = found or (await asyncio.to_thread(_read, name, slug(series)) if not id_ else None)
    if found is None:
        raise InvalidOption(
            f"There is no evaluation {asked!r} in the store to compare with; give a name or name/id from an earlier report, or `last`."
        )
    return found


def _keep(evaluation: Evaluation) -> None:
    store = get_store()
    store.write_record(f"{_ROOT}/{evaluation.name}/{evaluation.id}", evaluation.model_dump_json().encode())
    if any(row.scores is not None for row in evaluation.rows):
        store.write_record(f"{_ROOT}/{evaluation.name}/{LAST}", evaluation.id.encode())


def _latest(name: str, other_than: str) -> Evaluation | None:
    pointer = get_store().read_record(f"{_ROOT}/{name}/{LAST}") if name else None
    found = _read(name, pointer.decode()) if pointer else None
    if found is not None and found.id == other_than:
        return _read(name, found.previous) if found.previous else None
    return found


def _read(name: str, id_: str) -> Evaluation | None:
    content = get_store().read_record(f"{_ROOT}/{name}/{id_}") if name and id_ and id_ != LAST else None
    try:
        return parsed(Evaluation, content) if content else None
    except ValueError:
        return None  # of a version that kept other things
