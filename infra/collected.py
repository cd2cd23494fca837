"""What collecting garbage did, for programs and in sentences."""

from __future__ import annotations

from stenoflow.types import Frozen


class Collected(Frozen):
    """What was or would be removed."""

    artifacts: int = 0
    bytes: int = 0
    records: int = 0
    """Of stages and decoded recordings, of ended runs, and of uses."""
    uploads: int = 0
    """Unfinished multipart uploads."""
    leftovers: int = 0
    """Files of killed processes: locks, halves of writes, scratch folders."""
    runs: int = 0
    """Old runs, out of Prefect's database."""
    events: int = 0
    logs: int = 0
    kept: int = 0
    """Artifacts that are still there."""
    kept_bytes: int = 0
    in_use: int = 0
    """Of those: in use by a run, or promised to one that has ended."""
    in_use_bytes: int = 0
    dry_run: bool = False
    busy: bool = False
    """Another collector is at work on this store; nothing was done."""


def lines(collected: Collected) -> list[str]:
    """For people: what was removed, and what is left."""
    if collected.busy:
        return ["Another gc is running on this store; nothing was deleted."]
    said = "would be removed" if collected.dry_run else "removed"
    return [
        f"{_count(collected.artifacts, 'artifact')} {said} ({size(collected.bytes)}), with {_count(collected.records, 'record')}",
        f"{_count(collected.uploads, 'unfinished upload')} and {_count(collected.leftovers, 'left-over')} of killed processes {said}",
        f"{_count(collected.runs, 'old run')} {said} from Prefect's database, with {_count(collected.events, 'event')} "
        f"and {_count(collected.logs, 'log line')} of others",
        f"{_count(collected.kept, 'artifact')} kept ({size(collected.kept_bytes)}), of which {collected.in_use} "
        f"({size(collected.in_use_bytes)}) are in use or within their retention",
    ]


def size(count: int) -> str:
    """Bytes for people, in powers of a thousand, as disks and bills are counted."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 999.5:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 99.5 else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
