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
from speech.formats.speakers import given_names
from speech.languages import LANGUAGES, language_codes, language_of_tag
from speech.stages import STEPS
from stenoflow.errors import InvalidOption
from stenoflow.types import Frozen

if TYPE_CHECKING:
    Format = str
    RedoFrom = str
else:
    Format = Literal[tuple(KNOWN_FORMATS)]
    RedoFrom = Literal[STEPS[:-1]]
FORMATS: tuple[Format, ...] = tuple(KNOWN_FORMATS)

MOST_TEXT = 2000
"""Characters of a text that primes a model."""
MOST_LANGUAGES = 400
"""Characters of a list of languages."""


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
        "Spoken language, as a code (`en`) or a name (`french`), or those that may be spoken (`en,fr,es`). Detected by default.",
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
            several=True,
            at={
                Door.FORM: At(
                    "one is chosen from a list", help="Spoken language, or those that may be spoken. Detected by default."
                )
            },
        ),
        max_length=MOST_LANGUAGES,
    )
    model: str = option(
        "auto",
        "ASR model: a name from `steno models` (`base`, `large-v3`, `parakeet`), a hub repository (`owner/name`), or a folder. `auto` is the default model.",
        Option(
            "Words",
            "ASR model",
            CHUNKS,
            key=("asr",),
            usual=True,
            flags=("-m",),
            metavar="MODEL",
            at={
                Door.API: At(
                    "callers name no folders, and only what the operator allows",
                    help="ASR model: a size, or another model that the service allows. `auto` is the service's default.",
                    bounds=(MinLen(1), MaxLen(200)),
                ),
            },
        ),
    )
    task: Literal["transcribe", "translate"] = option(
        "transcribe",
        "`transcribe` keeps the spoken language, `translate` translates to English.",
        Option("Words", "Task", CHUNKS, key=("asr",), always_echoed=True),
    )
    initial_prompt: str | None = option(
        None,
        "Text that sets the spelling and style of the transcript.",
        Option("Words", "Initial prompt", CHUNKS, key=("asr",), always_echoed=True),
        max_length=MOST_TEXT,
    )
    hotwords: str | None = option(
        None,
        "Names and terms to expect, separated by spaces.",
        Option("Words", "Hotwords", CHUNKS | {Door.OPENAI}, key=("asr",), always_echoed=True),
        max_length=MOST_TEXT,
    )
    glossary: str | None = option(
        None,
        "Glossary of terms to expect and of spellings, kept with `steno glossary`.",
        Option(
            "Words",
            "Glossary",
            CALLERS | {Door.OPENAI},
            key=("merge",),
            metavar="NAME",
            at={
                Door.API: At("callers know no commands", help="Name of one of your glossaries: terms to expect, and spellings.")
            },
        ),
        max_length=64,
    )
    align: bool = option(
        True,
        "Add a start and end time to every word.",
        Option("Words", "Word times", CHUNKS, key=("merge",), switches=("align",), always_echoed=True),
    )
    align_model: str = option(
        "auto",
        "Model for word times: a wav2vec2 repository (`owner/name`) or folder, or `attention` for the ASR model's own times. `auto` chooses by language.",
        Option(
            "Words",
            "Alignment model",
            CALLERS,
            key=("align",),
            metavar="MODEL",
            at={
                Door.API: At(
                    "callers name no folders, and only what the operator allows",
                    help="Model for word times: `attention` for Whisper's own, or another that the service allows. `auto` chooses by language.",
                    bounds=(MinLen(1), MaxLen(200)),
                ),
            },
        ),
    )
    track: Annotated[str | None, BeforeValidator(track_choice)] = option(
        None,
        "Audio track, by number (from 1) or language. By default the first one that decodes and is not silent; "
        "with `language`, one tagged with it is preferred.",
        Option("Sound", "Audio track", CALLERS, key=("fetch",), metavar="TRACK"),
        max_length=40,
    )
    channels: Literal["auto", "mix", "separate"] = option(
        "auto",
        "Channels of a recording: `mix` transcribes them as one, `separate` each by itself with a speaker for each. `auto` separates "
        "two that carry different voices, as in a call, if speakers are identified.",
        Option("Sound", "Channels", CALLERS | {Door.OPENAI}),
    )
    allow_truncated: bool = option(
        False,
        "Transcribe a truncated recording as far as it goes instead of rejecting it.",
        Option("Sound", "Allow truncated recordings", CALLERS, key=("fetch",)),
    )
    max_duration: float | None = option(
        None,
        "Longest recording to accept, in seconds. STENO_LIMITS__MAX_DURATION also applies.",
        Option(
            "Sound",
            "Longest recording (seconds)",
            CALLERS,
            neutral=True,
            at={
                Door.API: At(
                    "callers know no settings",
                    help="Longest recording to accept, in seconds. The service's own limit also applies.",
                )
            },
        ),
        gt=0,
    )
    diarize: bool = option(
        True,
        "Identify speakers.",
        Option(
            "Speakers",
            "Identify speakers",
            CHUNKS,
            switches=("embed", "diarize"),
            key=("merge",),
            always_echoed=True,
            at={Door.API: At("the published contract of the service whose clients run here as they are", default=False)},
        ),
    )
    diarization_model: str = option(
        "auto",
        "Diarization model: a name from `steno models`. `auto` is the default model.",
        Option(
            "Speakers",
            "Diarization model",
            CALLERS,
            key=("segment", "embed", "diarize"),
            metavar="MODEL",
            at={
                Door.API: At(
                    "callers know no commands",
                    help="Diarization model: `community-1` or `segmentation-3.0+campplus`. `auto` is the service's default.",
                    bounds=(MinLen(1), MaxLen(200)),
                ),
            },
        ),
    )
    num_speakers: int | None = option(
        None,
        "Number of speakers, if known.",
        Option("Speakers", "Number of speakers", CHUNKS | {Door.OPENAI}, key=("diarize",), usual=True, always_echoed=True),
        ge=1,
        le=100,
    )
    min_speakers: int | None = option(
        None,
        "Minimum number of speakers.",
        Option("Speakers", "Minimum speakers", CHUNKS | {Door.OPENAI}, key=("diarize",), usual=True, always_echoed=True),
        ge=1,
        le=100,
    )
    max_speakers: int | None = option(
        None,
        "Maximum number of speakers.",
        Option("Speakers", "Maximum speakers", CHUNKS | {Door.OPENAI}, key=("diarize",), usual=True, always_echoed=True),
        ge=1,
        le=100,
    )
    voices: bool = option(
        False,
        "Name the speakers whose voices are enrolled with `steno voices`.",
        Option(
            "Speakers",
            "Name enrolled voices",
            CALLERS | {Door.OPENAI},
            at={
                Door.API: At("callers know no commands", help="Name the speakers whose voices you have enrolled at `/voices`.")
            },
        ),
    )
    on_diarization_failure: Literal["fail", "degrade"] = option(
        "fail",
        "If diarization fails: `fail` the run (the transcript is still written), or `degrade` to a transcript without speakers.",
        Option(
            "Speakers",
            "If diarization fails",
            CALLERS,
            neutral=True,
            at={
                Door.API: At(
                    "as published: a job that has its text counts as completed, and says `degraded`",
                    default="degrade",
                    help="If diarization fails: `degrade` to a transcript without speakers and say so, or `fail` the job.",
                )
            },
        ),
    )
    formats: tuple[Format, ...] = option(
        ("json", "txt", "srt"),
        "Formats of the files to write; `all` for every one. With none, the transcript stays in the store only.",
        Option(
            "Files",
            "Formats",
            OPERATORS | {Door.API},
            usual=True,
            flags=("-f", "--format", "--output-format"),
            offered=(*FORMATS, "all"),
            at={
                Door.API: At(
                    "nothing is written: every format is rendered when it is fetched, and these are linked",
                    default=("json",),
                    help="Formats to list in `links`. All formats can always be fetched.",
                    bounds=(MinLen(1), MaxLen(len(FORMATS))),
                )
            },
        ),
    )
    layout: Literal["readable", "whisperx"] = option(
        "readable",
        "`readable`: paragraphs in txt, subtitles by broadcasters' rules, speakers by name; `whisperx`: files as WhisperX writes them.",
        Option("Files", "Layout", CALLERS),
    )
    speaker_names: str | None = option(
        None,
        "Names of the speakers in the order in which they first speak (`Anna, Ben`), or by label (`SPEAKER_01=Ben`).",
        Option("Files", "Names of the speakers", CALLERS),
        max_length=MOST_TEXT,
    )
    highlight_words: bool = option(
        False,
        "Underline each word as it is spoken in srt and vtt; add word times in lrc.",
        Option("Files", "Highlight words in subtitles", CALLERS),
    )
    max_line_width: int | None = option(
        None,
        "Maximum characters per line in subtitles and lrc; 42 by default in subtitles, any number in WhisperX's layout.",
        Option("Files", "Characters per subtitle line", CALLERS),
        ge=10,
        le=500,
    )
    max_line_count: int | None = option(
        None,
        "Lines per subtitle, 2 by default; in WhisperX's layout it needs a width as well.",
        Option("Files", "Lines per subtitle", CALLERS),
        ge=1,
        le=10,
    )
    overwrite: bool = option(
        False,
        "Overwrite files that were not written for this recording, or were changed since.",
        Option("Files", "Overwrite other files", OPERATORS, neutral=True),
    )
    batch_size: int | None = option(
        None,
        "Audio chunks per batch. By default as many as fit into the GPU's memory, or 8 on a CPU.",
        Option("Computing", "Batch size", CALLERS, neutral=True),
        ge=1,
        le=256,
    )
    compute: Literal["local", "modal"] | None = option(
        None,
        "Where the models run: on the machine that executes the run, or on Modal. STENO_COMPUTE__BACKEND by default.",
        Option("Computing", "Compute backend", OPERATORS),
    )
    redo_from: RedoFrom | None = option(
        None,
        "Recompute this stage and everything after it, even if cached.",
        Option("Computing", "Recompute from", OPERATORS, neutral=True),
    )
    retention_days: float | None = option(
        None,
        "Days to keep the artifacts of this run. STENO_RETENTION__DAYS by default.",
        Option("Computing", "Keep artifacts for (days)", OPERATORS, neutral=True),
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
            return language_codes(value) or None if value else None
        except InvalidOption as error:
            raise ValueError(str(error)) from None

    @field_validator("speaker_names")
    @classmethod
    def _one_way(cls, value: str | None) -> str | None:
        try:
            given_names(value, ())
        except InvalidOption as error:
            raise ValueError(str(error)) from None
        return value

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
        if self.layout == "whisperx" and self.max_line_count and not self.max_line_width:
            raise ValueError("max_line_count requires max_line_width in WhisperX's layout.")
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
