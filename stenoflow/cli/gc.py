"""`steno gc`: remove old runs, and artifacts by age and size, never one in use."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from infra.collect import Limits
    from infra.collected import Collected

_AGE = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
_SIZE = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
EPILOG = """\b
steno gc --older-than 30d       delete what no run has used for 30 days
steno gc --max-size 200GB       delete the least recently used artifacts until the rest fits
steno gc --dry-run              only show what would be deleted
\b
Exit codes: 0 success, or another gc is running; 2 invalid option; 3, 5, 6 errors of the store.
"""


class _Amount(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """A number with a unit."""

    def __init__(self, name: str, pattern: str, units: dict[str, int], example: str) -> None:
        self.name, self._pattern, self._units, self._example = name, re.compile(pattern, re.IGNORECASE), units, example

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        if str(value).strip() == "0":
            return 0.0
        match = self._pattern.fullmatch(str(value).strip())
        if match is None:
            self.fail(f"{value!r} is not {self._example}.", param, ctx)
        return float(match[1]) * self._units[match[2].lower()]


AGE = _Amount("age", r"(\d+(?:\.\d+)?)([smhdw])", _AGE, "an age such as 30d, 12h or 90m")
SIZE = _Amount("size", r"(\d+(?:\.\d+)?)\s*([kmgt]?)i?b?", _SIZE, "a size such as 200GB, 1.5TB or 500MB")


@click.command("gc", epilog=EPILOG)
@click.option(
    "--older-than", type=AGE, help="Delete runs that ended before this age, and artifacts that no run has used since."
)
@click.option("--max-size", type=SIZE, help="Delete the least recently used artifacts until the store is no larger than this.")
@click.option("--dry-run", is_flag=True, help="Show what would be deleted, without deleting it.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
def command(older_than: float | None, max_size: float | None, dry_run: bool, as_json: bool, debug: bool) -> None:
    """Delete expired runs from Prefect's database, and expired artifacts from the store (STENO_STORE).

    Whatever is past its retention is always deleted (retention_days of a request, STENO_RETENTION__RUN_DAYS, __EVENT_DAYS,
    __LOG_DAYS, __DAYS); the options select more artifacts. Artifacts in use, or within a run's own retention, are never
    deleted. Deleted artifacts are recomputed when they are needed again. Safe to run alongside runs and other gc processes.
    """
    import asyncio

    from infra.collect import Limits

    limits = Limits(older_than=older_than, max_bytes=None if max_size is None else int(max_size), dry_run=dry_run)
    database = Path(os.environ.get("PREFECT_HOME") or "~/.prefect").expanduser() / "prefect.db"
    collected = asyncio.run(_collected(limits, known=database.exists()))
    if as_json:
        click.echo(json.dumps(collected.model_dump()))
        return
    from infra.collected import lines

    for line in lines(collected):
        click.echo(line)


async def _collected(limits: Limits, *, known: bool) -> Collected:
    """With the Prefect server that is configured or runs here, else with one on this user's database, if it is `known`."""
    from flows.local_server import server
    from flows.upkeep import PROGRESS, collected_everywhere
    from infra.settings import get_settings
    from stenoflow.errors import ApiUnreachable

    def say(line: str) -> None:
        if not line.startswith(PROGRESS):
            click.echo(f"steno: warning: {line}", err=True)

    settings = get_settings()
    if server.find_api() is None and not known:
        return await collected_everywhere(None, settings, limits, say)
    try:
        temporary = server.start()
    except ApiUnreachable as error:
        say(f"{error.message} Old runs were not deleted from its database.")
        return await collected_everywhere(None, settings, limits, say)
    try:
        if temporary is not None:
            temporary.wait()
        from prefect.client.orchestration import get_client

        async with get_client() as client:
            return await collected_everywhere(client, settings, limits, say)
    finally:
        if temporary is not None:
            temporary.stop()
