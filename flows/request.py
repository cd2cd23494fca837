"""What a user asks for, the same at every door: command line, Prefect's form, REST API."""

from __future__ import annotations

import re
from typing import Annotated, Any, Self

from pydantic import Field, field_validator, model_validator

from flows.doors import OPERATORS, At, Door, Option, option
from flows.options import FORMATS, NO_TEXT, TranscribeOptions, only_text
from infra.names import display_name, output_stem, portable, readable, scheme_of
from stenoflow.types import Frozen


def portable_source(value: Any) -> Any:
    """A source as parameters of runs can carry it: a path whose bytes are not UTF-8 as a file:// URL. Raises ValueError."""
    if not isinstance(value, str):
        return value
    try:
        return portable(value) if scheme_of(value) is None else only_text(value)
    except UnicodeEncodeError:
        raise ValueError(NO_TEXT) from None


class RecordingSource(Frozen):
    """Where one recording is."""

    source: Annotated[
        str,
        Option(
            "Sound",
            "Recording",
            OPERATORS,
            usual=True,
            at={
                Door.FORM: At(
                    "it is read by a worker",
                    help="A path or URL that the worker can read: a file, https://, s3:// or other storage.",
                )
            },
        ),
    ] = Field(
        min_length=1,
        description="The recording: a path, a URL (https://, s3:// or other storage), or `-` for standard input.",
    )
    name: str | None = option(
        None,
        "Name of the recording, in views and for its files. By default that of the source.",
        Option(
            "Files",
            "Name",
            OPERATORS | {Door.API},
            usual=True,
            at={Door.API: At("nothing is written", help="Name of the recording. By default that of its file or URL.")},
        ),
        min_length=1,
        max_length=200,
    )

    @property
    def shown_as(self) -> str:
        """The recording's name, for people: without folders, credentials or query."""
        return display_name(self.name or self.source)

    @field_validator("source", mode="before")
    @classmethod
    def _portable(cls, value: Any) -> Any:
        return portable_source(value)

    @field_validator("name", mode="before")
    @classmethod
    def _readable(cls, value: Any) -> Any:
        return readable(value) if isinstance(value, str) else value

    @field_validator("name")
    @classmethod
    def _no_path(cls, value: str | None) -> str | None:
        return without_folders(value) or None if value else None


def without_folders(name: str) -> str:
    """A recording's name that names no place: `a/b` as `a-b`."""
    return re.sub(r"[/\\]+", "-", name).strip()


class TranscribeRequest(TranscribeOptions, RecordingSource):
    """One recording to transcribe; or one session, recorded on several tracks."""

    together: tuple[str, ...] = option(
        (),
        "Further recordings of the same session, which begin at the same time: `source` and each of these is one speaker's.",
        Option("Sound", "Further tracks", frozenset()),
        max_length=63,
    )

    output_dir: str = option(
        ".",
        "Output folder, or a URL (s3:// or other storage).",
        Option(
            "Files",
            "Output folder",
            OPERATORS - {Door.MANIFEST},
            usual=True,
            flags=("-o",),
            metavar="FOLDER",
            at={
                Door.FORM: At(
                    "it is written by a worker",
                    help="Output folder or URL (s3:// or other storage). A relative folder is created in `transcripts` in the service's home.",
                )
            },
        ),
    )
    output_file: str | None = option(
        None,
        "Write a single file instead; its extension determines the format.",
        Option("Files", "Single output file", OPERATORS - {Door.MANIFEST}, metavar="FILE"),
    )

    @property
    def sources(self) -> tuple[str, ...]:
        """Each recording's."""
        return (self.source, *self.together)

    @property
    def shown_as(self) -> str:
        """The recording's name, for people; of several tracks those of all: `alice+bob`."""
        if not self.together or self.name:
            return super().shown_as
        return "+".join(output_stem(source) for source in self.sources)

    @field_validator("together", mode="before")
    @classmethod
    def _portable_each(cls, value: Any) -> Any:
        return [portable_source(source) for source in value] if isinstance(value, list | tuple) else value

    @model_validator(mode="after")
    def _output_format(self) -> Self:
        if self.output_file:
            extension = self.output_file.rpartition(".")[2].lower()
            if extension not in FORMATS:
                raise ValueError(f"output_file must end in one of .{', .'.join(FORMATS)}; {self.output_file!r} does not.")
        return self
