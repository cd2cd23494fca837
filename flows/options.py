"""The options, each declared once: type, bounds, default, help, group, doors, and whose key it belongs to.

Every door derives from here: `steno transcribe` and its kin (stenoflow/cli/options.py), Prefect's form (deployments/form.py),
manifests, the API (api/schemas.py, api/openai/) and its client (stenoflow/client/options.py, which is generated). Where a
published contract wants something else at a door, that stands here as well, with its reason: `At`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from annotated_types import MaxLen, MinLen
from pydantic import BeforeValidator, ValidationInfo, field_validator, model_validator

from flows.doors import CALLERS, CHUNKS, OPERATORS, At, Door, Option, option, options_of
from speech.formats import FORMATS as KNOWN_FORMATS
from speech.formats import RenderOptions
from speech.languages import LANGUAGES, language_code, language_of_tag
from stenoflow.errors import InvalidOption
from stenoflow.types import Frozen

if TYPE_CHECKING:
    Format = str
else:
    Format = Literal[tuple(KNOWN_FORMATS)]
FORMATS: tuple[Format, ...] = tuple(KNOWN_FORMATS)

MOST_TEXT = 2000
"""Characters of a text that primes a model."""


def only_text(value: Any) -> Any:
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ValueError(NO_TEXT) from None
    return value


NO_TEXT = "The value holds characters that are not text (bytes that are not UTF-8, or half of a surrogate pair)."


def track_choice(value: object) -> object:
    """What was asked for, as text: `2`, `fr`, `French`. Raises ValueError for what is neither a number from 1 nor a language."""
    text = str(value).strip() if isinstance(value, int | str) and not isinstance(value, bool) else value
    if text == "":
        return None
    known = isinstance(text, str) and (int(text) > 0 if text.isdecimal() else language_of_tag(text) and text[:2].isalpha())
    if text is not None and not known:
        raise ValueError("track is a number, from 1, or a language, such as `en` or `french`.")
    return text


class TranscribeOptions(Frozen):
    """How recordings are transcribed, and what is written of them: one request's, or those of all of a batch."""

    language: str | None = option(
        None,
        "The spoken language, as a code (`en`) or a name (`french`); detected when left out.",
        Option(
            "Words",
            "Language",
            CHUNKS,
            key=("asr",),
            always_echoed=True,
            usual=True,
            flags=("-l",),
            metavar="LANGUAGE",
            offered=(*sorted(LANGUAGES.values()), *sorted(LANGUAGES)),
            at={Door.FORM: At("it is chosen from a list", help="The spoken language; detected when left out.")},
        ),
        max_length=40,
    )
    model: str = option(
        "auto",
        "Model for the words: one that `steno models` lists (`base`, `large-v3`, `parakeet`), a repository of huggingface.co (`owner/name`), or a folder; `auto` takes the default.",
        Option(
            "Words",
            "Whisper model",
            CHUNKS,
            key=("asr",),
            usual=True,
            flags=("-m",),
            metavar="MODEL",
            at={
                Door.API: At(
                    "callers name no folders, and only what the operator allows",
                    help="Whisper model: a size, or another that the service allows; `auto` takes its default.",
                    bounds=(MinLen(1), MaxLen(200)),
                ),
            },
        ),
    )
    task: Literal["transcribe", "translate"] = option(
        "transcribe",
        "Keep the spoken language, or translate to English.",
        Option("Words", "transcribe or translate", CHUNKS, key=("asr",), always_echoed=True),
    )
    initial_prompt: str | None = option(
        None,
        "Text that primes the spelling and style of the transcript.",
        Option("Words", "text to begin with", CHUNKS, key=("asr",), always_echoed=True),
        max_length=MOST_TEXT,
    )
    hotwords: str | None = option(
        None,
        "Names and terms that are likely to be said, separated by spaces.",
        Option("Words", "names and terms", CHUNKS | {Door.OPENAI}, key=("asr",), always_echoed=True),
        max_length=MOST_TEXT,
    )
    align: bool = option(True, "Give every word a time.", Option("Words", "times", CHUNKS, key=("merge",), always_echoed=True))
    align_model: str = option(
        "auto",
        "wav2vec2 model for word times: a repository of huggingface.co (`owner/name`), or a folder; `attention` uses those of the model for the words.",
        Option(
            "Words",
            "model for times",
            CALLERS,
            key=("align",),
            metavar="MODEL",
            at={
                Door.API: At(
                    "callers name no folders, and only what the operator allows",
                    help="Model for word times: `attention` uses Whisper's own, others are the operator's to allow; `auto` takes the language's.",
                    bounds=(MinLen(1), MaxLen(200)),
                ),
            },
        ),
    )
    track: Annotated[str | None, BeforeValidator(track_choice)] = option(
        None,
        "Which of several audio tracks: its number, from 1, or its language; "
        "when left out the first that decodes, is not silent and, where a language is given, is tagged with it.",
        Option("Sound", "which audio track", CALLERS, key=("fetch",), metavar="TRACK"),
        max_length=40,
    )
    allow_truncated: bool = option(
        False,
        "Transcribe what is there when a recording is cut short, instead of refusing it.",
        Option("Sound", "take what is cut short", CALLERS, key=("fetch",)),
    )
    max_duration: float | None = option(
        None,
        "Refuse a recording that lasts longer, in seconds; STENO_LIMITS__MAX_DURATION holds in any case.",
        Option(
            "Sound",
            "longest recording (seconds)",
            CALLERS,
            neutral=True,
            at={
                Door.API: At(
                    "callers know no settings",
                    help="Refuse a recording that lasts longer, in seconds; the service's own limit holds in any case.",
                )
            },
        ),
        gt=0,
    )
    diarize: bool = option(
        True,
        "Say who speaks.",
        Option(
            "Speakers",
            "tell apart",
            CHUNKS,
            key=("merge",),
            always_echoed=True,
            at={Door.API: At("the published contract of the service whose clients run here as they are", default=False)},
        ),
    )
    diarization_model: str = option(
        "auto",
        "What tells voices apart: a diarization model that `steno models` lists; `auto` takes the default.",
        Option(
            "Speakers",
            "model for voices",
            CALLERS,
            key=("segment", "embed", "diarize"),
            metavar="MODEL",
            at={
                Door.API: At(
                    "callers know no commands",
                    help="What tells voices apart: `community-1` or `segmentation-3.0+campplus`; `auto` takes the service's default.",
                    bounds=(MinLen(1), MaxLen(200)),
                ),
            },
        ),
    )
    num_speakers: int | None = option(
        None,
        "The number of speakers, when it is known.",
        Option("Speakers", "Number of speakers", CHUNKS | {Door.OPENAI}, key=("diarize",), usual=True, always_echoed=True),
        ge=1,
        le=100,
    )
    min_speakers: int | None = option(
        None,
        "At least this many speakers.",
        Option("Speakers", "Fewest speakers", CHUNKS | {Door.OPENAI}, key=("diarize",), usual=True, always_echoed=True),
        ge=1,
        le=100,
    )
    max_speakers: int | None = option(
        None,
        "At most this many speakers.",
        Option("Speakers", "Most speakers", CHUNKS | {Door.OPENAI}, key=("diarize",), usual=True, always_echoed=True),
        ge=1,
        le=100,
    )
    on_diarization_failure: Literal["fail", "degrade"] = option(
        "fail",
        "What a failed diarization means: the run fails (its transcript is still written), or it completes without speakers.",
        Option(
            "Speakers",
            "if they cannot be told apart",
            CALLERS,
            neutral=True,
            at={
                Door.API: At(
                    "as published: a job that has its text counts as completed, and says `degraded`",
                    default="degrade",
                    help="What a failed diarization means: `degrade` completes without speakers and says so, `fail` fails.",
                )
            },
        ),
    )
    formats: tuple[Format, ...] = option(
        ("json",),
        "The files to write, `all` for every kind; with none the transcript is only kept in the store.",
        Option(
            "Files",
            "Files to write",
            OPERATORS | {Door.API},
            usual=True,
            flags=("-f", "--format", "--output-format"),
            offered=(*FORMATS, "all"),
            at={
                Door.API: At(
                    "nothing is written: every format is rendered when it is fetched, and these are linked",
                    help="The files to write: `links` names them; every format is available in any case.",
                    bounds=(MinLen(1), MaxLen(len(FORMATS))),
                )
            },
        ),
    )
    highlight_words: bool = option(
        False,
        "Underline each word as it is spoken, in srt and vtt; give each its time, in lrc.",
        Option("Files", "underline words in subtitles", CALLERS),
    )
    max_line_width: int | None = option(
        None,
        "Characters per line of subtitles and lrc.",
        Option("Files", "characters per subtitle line", CALLERS),
        ge=10,
        le=500,
    )
    max_line_count: int | None = option(
        None,
        "Lines per subtitle; needs max_line_width.",
        Option("Files", "lines per subtitle", CALLERS),
        ge=1,
        le=10,
    )
    overwrite: bool = option(
        False,
        "Replace a file that is there and was not written for this recording, or was changed since.",
        Option("Files", "replace those of others", OPERATORS, neutral=True),
    )
    batch_size: int | None = option(
        None,
        "Chunks of audio decoded at once; as many as a GPU's memory holds, or 8 on a CPU, when left out.",
        Option("Computing", "batch size", CALLERS, neutral=True),
        ge=1,
        le=256,
    )
    compute: Literal["local", "modal"] | None = option(
        None,
        "Where the models run: on the machine that executes the run, or on Modal; STENO_COMPUTE__BACKEND when left out.",
        Option("Computing", "here or on Modal", OPERATORS),
    )
    redo_from: Literal["fetch", "segment", "asr", "align", "embed", "diarize", "merge"] | None = option(
        None,
        "Compute this stage and all that follow from it again, although they are cached.",
        Option("Computing", "once more from", OPERATORS, neutral=True),
    )
    retention_days: float | None = option(
        None,
        "Days that the artifacts of this run are kept at least; STENO_RETENTION__DAYS when left out.",
        Option("Computing", "keep artifacts for (days)", OPERATORS, neutral=True),
        ge=0,
    )

    @field_validator("*", mode="before")
    @classmethod
    def _only_text(cls, value: Any, info: ValidationInfo) -> Any:
        return value if info.field_name in ("source", "name") else only_text(value)

    @field_validator("language")
    @classmethod
    def _known_language(cls, value: str | None) -> str | None:
        try:
            return language_code(value) if value else None
        except InvalidOption as error:
            raise ValueError(str(error)) from None

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


RENDERED = tuple(name for name, known in options_of(TranscribeOptions).items() if known.group == "Files" and not known.neutral)
"""Which files are written, and how they look."""
NEUTRAL = frozenset(name for name, known in options_of(TranscribeOptions).items() if known.neutral)
"""Options that leave a finished transcript as it is."""
LAYOUT = frozenset(RenderOptions.model_fields) & frozenset(TranscribeOptions.model_fields)
"""How subtitles look."""
MANIFEST_OPTIONS = tuple(options_of(TranscribeOptions, Door.MANIFEST))
"""Columns of a manifest, beside those that say which recording it is."""
_ECHOED = {
    name: known for name, known in options_of(TranscribeOptions).items() if {"asr", "align", "diarize", "merge"} & {*known.key}
}


def echoed(options: TranscribeOptions) -> dict[str, Any]:
    """The options that words and speakers depend on, as transcripts repeat them."""
    said = options.model_dump(mode="json", include=set(_ECHOED))
    fields = TranscribeOptions.model_fields
    return {name: value for name, value in said.items() if _ECHOED[name].always_echoed or value != fields[name].default}
