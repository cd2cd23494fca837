"""OpenAI's forms, read as requests of ours. Unsupported parameters are rejected with the reason, not ignored."""

from __future__ import annotations

import base64
from typing import Any, TypeVar

from pydantic import BaseModel

from api.bodies import checked
from api.errors import Unprocessable
from api.openai.models import DIARIZING, own_name
from api.openai.schemas import OURS, SPEAKERS, AudioForm, TranscriptionForm, TranslationForm
from api.schemas import JobRequest
from api.uploads import FILE, Fields
from api.voices import UNKNOWN, Known
from flows.options import MOST_TEXT

F = TypeVar("F", bound=BaseModel)

_LISTS = ("timestamp_granularities[]", "keywords[]", "known_speaker_names[]", "known_speaker_references[]", "languages[]")
_VAD = "chunking_strategy[type]"
_NOT_HERE = {
    "include": "Token log probabilities are not supported; `verbose_json` has `avg_logprob` per segment.",
    "chunking_strategy": "Thresholds of voice activity detection are not supported; give `auto`, or omit it.",
}
"""Parameters of OpenAI's that are refused, and why."""
_FORMATS = {"srt": "srt", "vtt": "vtt", "text": "txt"}
_TIMED = ("verbose_json", "srt", "vtt", "diarized_json")


def transcription(fields: Fields, *, has_file: bool) -> TranscriptionForm:
    """What `POST /v1/audio/transcriptions` asks for. Raises Unprocessable."""
    form = _read(fields, has_file, TranscriptionForm)
    if form.timestamp_granularities and form.response_format != "verbose_json":
        raise _refused("timestamp_granularities[]", "timestamp_granularities[] requires `response_format` verbose_json.")
    if form.stream and form.response_format not in ("json", "text", "diarized_json"):
        raise _refused("stream", f"{form.response_format} cannot be streamed; use json, text or diarized_json.")
    asked = [*form.model_dump(include=set(SPEAKERS), exclude_defaults=True), *(["known_speaker_names[]"] if form.known else [])]
    if asked and not diarized(form):
        raise _refused(asked[0], f"To identify speakers, use `response_format` diarized_json or the model {DIARIZING}.")
    _check_known(form)
    return form


def known_of(form: AudioForm) -> Known:
    """The voices that came with the call. Raises Unprocessable."""
    if not isinstance(form, TranscriptionForm) or not form.known:
        return UNKNOWN
    return Known(form.known_speaker_names, tuple(_audio(text) for text in form.known_speaker_references))


def _check_known(form: TranscriptionForm) -> None:
    names, references = form.known_speaker_names, form.known_speaker_references
    if len(names) != len(references):
        raise _refused(
            "known_speaker_references[]",
            f"known_speaker_references[]: {len(references)} for {len(names)} known_speaker_names[]; give one for each name, in their order.",
        )
    if len({name.casefold() for name in names}) < len(names):
        raise _refused("known_speaker_names[]", "known_speaker_names[]: a name was given twice.")
    known_of(form)


def _audio(reference: str) -> bytes:
    """The audio of a data URL."""
    head, comma, content = reference.partition(",")
    try:
        if not comma or not head.startswith("data:") or not head.endswith(";base64"):
            raise ValueError
        return base64.b64decode(content, validate=True)
    except ValueError:
        raise _refused(
            "known_speaker_references[]",
            "known_speaker_references[]: give 2 to 10 seconds of audio as a data URL, `data:audio/wav;base64,…`.",
        ) from None


def translation(fields: Fields, *, has_file: bool) -> TranslationForm:
    """What `POST /v1/audio/translations` asks for. Raises Unprocessable."""
    return _read(fields, has_file, TranslationForm)


def diarized(form: AudioForm) -> bool:
    """Whether to identify speakers."""
    return form.response_format == "diarized_json" or (isinstance(form, TranscriptionForm) and form.model == DIARIZING)


def job_of(form: AudioForm) -> JobRequest:
    """The job that gives the transcript."""
    options: dict[str, Any] = form.model_dump(include=set(OURS)) | {
        "model": own_name(form.model),
        "language": form.language,
        "initial_prompt": form.prompt,
        "formats": tuple(dict.fromkeys(("json", _FORMATS.get(form.response_format, "json")))),
        "diarize": diarized(form),
        # Text alone needs no times; speakers, subtitles and the sentences of a stream do.
        "align": form.response_format in _TIMED or diarized(form) or (isinstance(form, TranscriptionForm) and form.stream),
        "task": "transcribe" if isinstance(form, TranscriptionForm) else "translate",
        "on_diarization_failure": "fail" if form.response_format == "diarized_json" else "degrade",
    }
    if isinstance(form, TranscriptionForm):
        options["hotwords"] = _named(options["hotwords"], form)
        options["language"] = form.language or ",".join(form.languages) or None
    return checked(options, JobRequest)


def _named(hotwords: str | None, form: TranscriptionForm) -> str | None:
    """What is likely to be said. Raises Unprocessable where it is too much."""
    text = " ".join(filter(None, [hotwords, *form.keywords]))
    if len(text) > MOST_TEXT:
        raise _refused("keywords[]", f"keywords[]: longer than {MOST_TEXT} characters in total; remove some.")
    return text or None


def _read(fields: Fields, has_file: bool, model: type[F]) -> F:
    value: dict[str, Any] = {}
    known = {field.alias or name for name, field in model.model_fields.items()}
    for given_name, given in fields.items():
        name = f"{given_name}[]" if f"{given_name}[]" in _LISTS else given_name
        if name in _LISTS and name in known:
            value[name] = [*value.get(name, []), *given]
        elif name == _VAD and "chunking_strategy" in known and given == ["server_vad"]:
            value["chunking_strategy"] = "auto"
        elif name not in known:
            raise _unknown(name, model)
        elif len(given) > 1:
            raise _refused(name, f"{name}: given {len(given)} times; give it once.")
        elif given[0] != "":
            value[name] = given[0]
    if not has_file:
        raise _refused(FILE, f"Send the recording as the part `{FILE}`.", "missing")
    return checked(value, model)


def _unknown(name: str, model: type[BaseModel]) -> Unprocessable:
    plain = name.partition("[")[0]
    if model is TranscriptionForm and plain in _NOT_HERE:
        return _refused(plain, _NOT_HERE[plain], "unsupported")
    return _refused(plain[:200], f"Unrecognized request argument supplied: {plain[:200]}.", "extra_forbidden")


def _refused(field: str, detail: str, code: str = "value_error") -> Unprocessable:
    return Unprocessable(detail, errors=[{"field": field, "message": detail, "code": code}])
