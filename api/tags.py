"""What the API keeps of a job on its flow run, in Prefect's tags and labels: whose it is, and what its owner said of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from flows import voices, webhooks

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun

    from api.submissions import Uploaded

OWNER = voices.OWNER
FORMER_OWNER = "deleted-of:"
"""In place of `owner:` on a job that was deleted."""
TAG = "tag:"
"""Prefixed, so that no caller's tag can be taken for one of ours or of an automation's."""
META = webhooks.META
FORMAT = "format:"
PAYLOAD = "payload:"
UPLOAD = "upload:"
BYTES = "bytes:"
"""The size of the upload."""
UPLOADED = "source:upload"
"""On every job of an upload: what Prefect can be asked for."""
HANDLE = "handle:"
"""An upload, and an address that is kept aside, by which the job's source goes: see `api.holds`."""
VOICES = voices.KNOWN
CLEANING = "cleaning"
"""On a deleted job until all that it left is removed."""

DELETED = webhooks.DELETED
_SAYING = (CLEANING, webhooks.WANTED, "without-speakers")
"""Tags that say something of a job, beside all that have a colon: those of a report as well (`flows.report`)."""


def owner(name: str) -> str:
    return f"{OWNER}{name}"


def owner_of(run: FlowRun) -> str:
    """The owner of the job; none for a deleted one."""
    return next(iter(values(run, OWNER)), "")


def metadata_tag(key: str, value: str) -> str:
    return f"{META}{key}={value}"


def of_job(
    owned_by: str,
    tags: Iterable[str],
    metadata: Mapping[str, str],
    formats: Iterable[str],
    payload: str,
    upload: Uploaded | None,
    kept: str | None,
    voices: str | None = None,
) -> list[str]:
    """The tags that a new job's run is made with; `kept` is the one of what the store keeps for it, `voices` the set that came with it."""
    return [
        owner(owned_by),
        *(f"{TAG}{tag}" for tag in tags),
        *(metadata_tag(key, value) for key, value in metadata.items()),
        *(f"{FORMAT}{name}" for name in formats),
        f"{PAYLOAD}{payload}",
        *([f"{BYTES}{upload.bytes}", UPLOADED] if upload else []),
        *([kept] if kept else []),
        *([f"{VOICES}{voices}"] if voices else []),
    ]


def values(run: FlowRun, prefix: str) -> list[str]:
    """What follows the prefix, of all tags that have it; Prefect keeps no order."""
    return [tag.removeprefix(prefix) for tag in run.tags if tag.startswith(prefix)]


def metadata(run: FlowRun) -> dict[str, str]:
    return webhooks.metadata(run)


def belongs_to(run: FlowRun, owned_by: str) -> bool:
    return owner(owned_by) in run.tags or f"{FORMER_OWNER}{owned_by}" in run.tags


def is_deleted(run: FlowRun) -> bool:
    return webhooks.is_deleted(run)


def tombstone(run: FlowRun, *, cleaning: bool = True) -> list[str]:
    """The tags of a deleted job: what its owner said of it is gone, too, and, once it is not `cleaning`, what it was of."""
    owners = {*values(run, OWNER), *values(run, FORMER_OWNER)}
    payload = [tag for tag in run.tags if tag.startswith(PAYLOAD)]
    others = [tag for tag in run.tags if tag not in _SAYING and ":" not in tag]
    kept = [tag for tag in run.tags if tag.startswith((UPLOAD, HANDLE, VOICES))]
    return [*others, *(f"{FORMER_OWNER}{name}" for name in owners), *payload, *([*kept, CLEANING] if cleaning else [])]
