"""What a user asks for, the same at every door: command line, Prefect's form, REST API."""

from __future__ import annotations

import re
from typing import Any, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from infra.names import display_name, portable, readable, scheme_of
from speech.errors import InvalidOption
from speech.languages import language_code, language_of_tag
from speech.schema import Frozen

Format = Literal["json", "srt", "vtt", "txt", "tsv", "rttm", "aud"]
FORMATS: tuple[Format, ...] = ("json", "srt", "vtt", "txt", "tsv", "rttm", "aud")


def portable_source(value: Any) -> Any:
    """A source as parameters of runs can carry it: a path whose bytes are not UTF-8 as a file:// URL. Raises ValueError."""
    if not isinstance(value, str):
        return value
    try:
        return portable(value) if scheme_of(value) is None else _text(value)
    except UnicodeEncodeError:
        raise ValueError(_NO_TEXT) from None


def _text(value: Any) -> Any:
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ValueError(_NO_TEXT) from None
    return value


_NO_TEXT = "The value holds characters that are not text (bytes that are not UTF-8, or half of a surrogate pair)."


def track_choice(value: object) -> object:
    """What was asked for, as text: `2`, `fr`, `French`. Raises ValueError for what is neither a number from 1 nor a language."""
    text = str(value).strip() if isinstance(value, int | str) and not isinstance(value, bool) else value
    if text == "":
        return None
    known = isinstance(text, str) and (int(text) > 0 if text.isdecimal() else language_of_tag(text) and text[:2].isalpha())
    if text is not None and not known:
        raise ValueError("track is a number, from 1, or a language, such as `en` or `french`.")
    return text


class RecordingSource(Frozen):
    """Where one recording is."""

    source: str = Field(
        min_length=1,
        description="The recording: a path, an address (https://, s3://, another storage's), or `-` for standard input.",
    )
    name: str | None = Field(
        None,
        min_length=1,
        max_length=200,
        description="What the recording is called, in views and as its files' name; the source's own name when left out.",
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


class TranscribeOptions(Frozen):
    """How recordings are transcribed, and what is written of them: one request's, or those of all of a batch."""

    language: str | None = Field(
        None, description="The spoken language, as a code (`en`) or a name (`french`); detected when left out."
    )
    track: str | None = Field(
        None,
        max_length=40,
        description="Which of several audio tracks: its number, from 1, or its language; "
        "when left out the first that decodes, is not silent and, where a language is given, is tagged with it.",
    )
    model: str = Field(
        "auto",
        description="Whisper model: a size (`base`, `large-v3`), a repository of huggingface.co (`owner/name`), or a folder; `auto` takes the default.",
    )
    batch_size: int | None = Field(
        None,
        ge=1,
        le=256,
        description="Chunks of audio decoded at once; as many as a GPU's memory holds, or 8 on a CPU, when left out.",
    )
    task: Literal["transcribe", "translate"] = Field(
        "transcribe", description="Keep the spoken language, or translate to English."
    )
    align: bool = Field(True, description="Give every word a time.")
    diarize: bool = Field(True, description="Say who speaks.")
    num_speakers: int | None = Field(None, ge=1, le=100, description="The number of speakers, when it is known.")
    min_speakers: int | None = Field(None, ge=1, le=100, description="At least this many speakers.")
    max_speakers: int | None = Field(None, ge=1, le=100, description="At most this many speakers.")
    initial_prompt: str | None = Field(
        None, max_length=2000, description="Text that primes the spelling and style of the transcript."
    )
    hotwords: str | None = Field(
        None, max_length=2000, description="Names and terms that are likely to be said, separated by spaces."
    )
    formats: tuple[Format, ...] = Field(
        ("json",), description="The files to write, `all` for every kind; with none the transcript is only kept in the store."
    )
    align_model: str = Field(
        "auto",
        description="wav2vec2 model for word times: a repository of huggingface.co (`owner/name`), or a folder; `attention` uses Whisper's own.",
    )
    allow_truncated: bool = Field(
        False, description="Transcribe what is there when a recording is cut short, instead of refusing it."
    )
    on_diarization_failure: Literal["fail", "degrade"] = Field(
        "fail",
        description="What a failed diarization means: the run fails (its transcript is still written), or it completes without speakers.",
    )
    highlight_words: bool = Field(False, description="Underline each word as it is spoken, in srt and vtt.")
    max_line_width: int | None = Field(None, ge=10, le=500, description="Characters per subtitle line.")
    max_line_count: int | None = Field(None, ge=1, le=10, description="Lines per subtitle; needs max_line_width.")

    overwrite: bool = Field(
        False, description="Replace a file that is there and was not written for this recording, or was changed since."
    )
    compute: Literal["local", "modal"] | None = Field(
        None,
        description="Where the models run: on the machine that executes the run, or on Modal; STENO_COMPUTE__BACKEND when left out.",
    )
    redo_from: Literal["fetch", "segment", "asr", "align", "embed", "diarize", "merge"] | None = Field(
        None, description="Compute this stage and all that follow from it again, although they are cached."
    )
    max_duration: float | None = Field(
        None,
        gt=0,
        description="Refuse a recording that lasts longer, in seconds; STENO_LIMITS__MAX_DURATION holds in any case.",
    )
    retention_days: float | None = Field(
        None, ge=0, description="Days that the artifacts of this run are kept at least; STENO_RETENTION__DAYS when left out."
    )

    @field_validator("*", mode="before")
    @classmethod
    def _only_text(cls, value: Any, info: ValidationInfo) -> Any:
        return value if info.field_name in ("source", "name") else _text(value)

    @field_validator("language")
    @classmethod
    def _known_language(cls, value: str | None) -> str | None:
        try:
            return language_code(value) if value else None
        except InvalidOption as error:
            raise ValueError(str(error)) from None

    _track = field_validator("track", mode="before")(track_choice)

    @field_validator("formats", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        """`all`, and a list in one text, as at the command line: `srt, vtt`."""
        names = re.split(r"[,;\s]+", value.strip()) if isinstance(value, str) else value
        if not isinstance(names, list | tuple):
            return value
        plain = [name.strip().lower() if isinstance(name, str) else name for name in names if name != ""]
        return FORMATS if "all" in plain else plain

    @field_validator("formats")
    @classmethod
    def _each_once(cls, value: tuple[Format, ...]) -> tuple[Format, ...]:
        return tuple(dict.fromkeys(value))

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.min_speakers and self.max_speakers and self.min_speakers > self.max_speakers:
            raise ValueError(
                f"min_speakers ({self.min_speakers}) is above max_speakers ({self.max_speakers}); swap or drop one."
            )
        if self.num_speakers and (self.min_speakers or self.max_speakers):
            raise ValueError("Give either num_speakers or a min_speakers/max_speakers range, not both.")
        if self.max_line_count and not self.max_line_width:
            raise ValueError("max_line_count needs max_line_width.")
        return self


class TranscribeRequest(TranscribeOptions, RecordingSource):
    """One recording to transcribe."""

    output_dir: str = Field(".", description="Folder that the files are written to, or an address (s3://, another storage's).")
    output_file: str | None = Field(None, description="One file to write instead; its extension names the format.")

    @model_validator(mode="after")
    def _output_format(self) -> Self:
        if self.output_file:
            extension = self.output_file.rpartition(".")[2].lower()
            if extension not in FORMATS:
                raise ValueError(f"output_file must end in one of .{', .'.join(FORMATS)}; {self.output_file!r} does not.")
        return self
