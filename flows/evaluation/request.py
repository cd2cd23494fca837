"""What an evaluation is asked: recordings with truth, and the systems that are held to it."""

from __future__ import annotations

import re
from typing import Annotated, Any, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from flows.doors import OPERATORS, Option, option
from flows.options import TranscribeOptions
from infra.names import display_name
from speech.scoring import ScoringOptions
from stenoflow.types import Frozen

LAST = "last"
_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,99}")


class EvaluateRequest(Frozen):
    """Recordings whose truth is known, transcribed with one or more models and scored."""

    references: Annotated[str, Option("List", "References", OPERATORS, usual=True)] = Field(
        min_length=1,
        description="Source of the recordings: a folder or s3:// prefix with a reference next to each (call.wav, call.stm, call.rttm), "
        "or a .csv or .jsonl manifest with a `reference` column.",
    )
    models: tuple[str, ...] = option(
        (),
        "ASR models to compare. By default the model of the options.",
        Option("Words", "ASR models", OPERATORS, usual=True),
        max_length=20,
    )
    variants: dict[str, dict[str, Any]] = Field(
        default_factory=dict,
        max_length=20,
        description='Named sets of options to compare: {"with hints": {"hotwords": "Stenoflow"}}.',
    )
    options: TranscribeOptions = Field(
        default_factory=TranscribeOptions,
        description="Options for the recordings; rows of a manifest may override them.",
    )
    scoring: ScoringOptions = Field(default_factory=ScoringOptions, description="Scoring of speakers.")
    name: str | None = Field(
        None, max_length=100, description="Name of this evaluation, for later comparisons. By default that of the references."
    )
    compare_with: str | None = Field(
        LAST, description="Earlier evaluation to compare with: `last` of this name, another name, name/id, or `none`."
    )
    recursive: bool = option(False, "Include subfolders.", Option("List", "Subfolders", OPERATORS))
    concurrency: int = option(
        1,
        "Recordings to process concurrently. On one machine, more than one distorts the measured speed.",
        Option("Computing", "Concurrency", OPERATORS),
        ge=1,
        le=64,
    )
    output_dir: str = option(
        "evaluation",
        "Output folder or URL (s3:// or other storage) for tables and transcripts.",
        Option("Files", "Output folder", OPERATORS, usual=True, flags=("-o",), metavar="FOLDER"),
    )

    @field_validator("models")
    @classmethod
    def _each_once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(model.strip() for model in value if model.strip()))

    @field_validator("compare_with")
    @classmethod
    def _something(cls, value: str | None) -> str | None:
        return None if value is None or value.strip().lower() in ("", "none") else value.strip()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for name in self.variants:
            if not name.strip():
                raise ValueError("A variant must have a name.")
        if self.name and not slug(self.name):
            raise ValueError("The name of an evaluation must contain a letter or a digit.")
        self.systems  # noqa: B018  refused here rather than when the run is under way
        return self

    @property
    def series(self) -> str:
        """The name that this evaluation and those before and after it are kept under."""
        return series_of(self.name or "", self.references)

    @property
    def systems(self) -> dict[str, TranscribeOptions]:
        """What is compared, by the name it is shown under: every model with every variant. Raises ValueError."""
        given = self.options.model_dump(exclude_unset=True)
        systems: dict[str, TranscribeOptions] = {}
        for model in self.models or (self.options.model,):
            for variant, own in (self.variants or {"": {}}).items():
                label = f"{model} {variant}" if variant and self.models else variant or model
                systems[label] = _options({**given, "model": model, **own}, variant)
        return systems


def series_of(name: str, references: str) -> str:
    """The name of an evaluation, or else that of its references, without blanks."""
    return slug(name) or slug(re.sub(r"\.\w+$", "", display_name(references.rstrip("/*")))) or "evaluation"


def slug(name: str) -> str:
    """The name as records and artifacts may be called: lower case, without blanks; empty when nothing is left."""
    plain = re.sub(r"[^a-z0-9_.-]+", "-", name.lower()).strip("-._")[:100]
    return plain if _NAME.fullmatch(plain) else ""


def _options(values: dict[str, Any], variant: str) -> TranscribeOptions:
    try:
        return TranscribeOptions.model_validate(values)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_context=False)[0]
        where = f"variants.{variant}" if variant else "options"
        option = f".{fault['loc'][0]}" if fault["loc"] else ""
        raise ValueError(f"{where}{option}: {fault['msg'].removeprefix('Value error, ')}") from None
