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
steno gc --older-than 30d       what no run has used for a month
steno gc --max-size 200GB       the least recently used, until the rest fits
steno gc --dry-run              say what would go
\b
Exit codes: 0 done, or another collection is at work; 2 a wrong option; 3, 5, 6 the store's errors.
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
    "--older-than", type=AGE, help="Remove runs that ended so long ago, and artifacts that no run has used for so long."
)
@click.option("--max-size", type=SIZE, help="Remove the least recently used artifacts until the rest takes no more than this.")
@click.option("--dry-run", is_flag=True, help="Only say what would be removed.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of sentences.")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def command(older_than: float | None, max_size: float | None, dry_run: bool, as_json: bool, debug: bool) -> None:
    """Remove what nobody needs any more: old runs from Prefect's database, and artifacts from the store (STENO_STORE).

    What is past its retention always goes (retention_days of a request, STENO_RETENTION__RUN_DAYS, __EVENT_DAYS, __LOG_DAYS,
    __DAYS); the options say which artifacts may go besides. What a run uses, or was promised, stays whatever is asked for. What is removed is computed again when
    it is next needed. Safe beside runs, and beside another of its kind.
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
        say(f"{error.message} Old runs stay in its database.")
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
