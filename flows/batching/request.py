"""What a batch is asked: many recordings, one set of options."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, field_validator

from flows.doors import OPERATORS, Option, option
from flows.options import NEUTRAL, TranscribeOptions
from flows.request import portable_source
from stenoflow.types import Frozen

if TYPE_CHECKING:
    from infra.settings import StenoSettings


class BatchRequest(Frozen):
    """Many recordings to transcribe with the same options."""

    source: Annotated[str, Option("List", "Recordings", OPERATORS, usual=True)] = Field(
        min_length=1,
        description="What lists the recordings: a folder, a glob, an s3:// prefix or glob, a .csv or .jsonl manifest, or a podcast feed.",
    )
    output_dir: str = option(
        ".",
        "Folder or address (s3://, another storage's) that the files are written to, laid out as what was listed.",
        Option("Files", "Output folder", OPERATORS, usual=True, flags=("-o",), metavar="FOLDER"),
    )
    recursive: bool = option(False, "Take the folders below as well.", Option("List", "folders below", OPERATORS))
    limit: int | None = option(
        None,
        "Most new recordings to take this time; the others wait for the next.",
        Option("List", "at most this many", OPERATORS),
        ge=1,
    )
    order: Literal["listed", "newest", "oldest"] = option(
        "listed",
        "Which recordings come first; `newest` and `oldest` list everything before they begin.",
        Option("List", "which first", OPERATORS),
    )
    concurrency: int = option(
        2,
        "Recordings at work at the same time.",
        Option("Computing", "recordings at once", OPERATORS),
        ge=1,
        le=64,
    )
    run_on: Literal["here", "workers"] = option(
        "here",
        "Compute on the machine that runs the batch, or as runs of their own on the work pool's workers.",
        Option("Computing", "machine", OPERATORS),
    )
    retry_failed: bool = option(
        False,
        "Try recordings again that failed for good in an earlier batch, or were set aside.",
        Option("List", "failed ones again", OPERATORS),
    )
    options: TranscribeOptions = Field(
        default_factory=TranscribeOptions,
        description="How the recordings are transcribed; a manifest's rows may say otherwise.",
    )

    @field_validator("source", mode="before")
    @classmethod
    def _portable(cls, value: Any) -> Any:
        return portable_source(value)

    def key(self, settings: StenoSettings) -> str:
        """What two batches have in common that must not run at the same time."""
        return digest({"source": self.source, "output": self.output_dir, "options": shaping(self.options, settings)})


def shaping(options: TranscribeOptions, settings: StenoSettings) -> dict[str, Any]:
    """The options that a finished transcript depends on; the model as the settings name it."""
    asked = options.model_dump(mode="json", exclude=set(NEUTRAL), exclude_defaults=True)
    return asked | {"model": settings.model if options.model == "auto" else options.model}


def digest(body: dict[str, Any]) -> str:
    """Hex SHA-256 of plain JSON."""
    return hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":"), default=str).encode()).hexdigest()
