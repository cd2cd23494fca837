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
        description="Source of the recordings: a folder, a glob, an s3:// prefix or glob, a .csv or .jsonl manifest, or a podcast feed.",
    )
    output_dir: str = option(
        ".",
        "Output folder or URL (s3:// or other storage), with the layout of the source.",
        Option("Files", "Output folder", OPERATORS, usual=True, flags=("-o",), metavar="FOLDER"),
    )
    recursive: bool = option(False, "Include subfolders.", Option("List", "Subfolders", OPERATORS))
    limit: int | None = option(
        None,
        "Maximum number of new recordings; the others are left for the next batch.",
        Option("List", "Limit", OPERATORS),
        ge=1,
    )
    order: Literal["listed", "newest", "oldest"] = option(
        "listed",
        "Order of the recordings. `newest` and `oldest` list the whole source first.",
        Option("List", "Order", OPERATORS),
    )
    concurrency: int = option(
        2,
        "Recordings to process concurrently.",
        Option("Computing", "Concurrency", OPERATORS),
        ge=1,
        le=64,
    )
    run_on: Literal["here", "workers"] = option(
        "here",
        "`here` computes on the machine that runs the batch; `workers` creates a run per recording for the work pool.",
        Option("Computing", "Run on", OPERATORS),
    )
    retry_failed: bool = option(
        False,
        "Retry recordings that failed in an earlier batch or are quarantined.",
        Option("List", "Retry failed", OPERATORS),
    )
    options: TranscribeOptions = Field(
        default_factory=TranscribeOptions,
        description="Options for the recordings; rows of a manifest may override them.",
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
