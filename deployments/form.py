"""A flow's parameters as Prefect's form shows and checks them.

Pydantic writes an optional number as "a number between 1 and 100, or null, which is the default". Prefect's form makes two
tabs of that, and its API refuses a wrong number as "not valid under any of the given schemas". Written as a number that may
be left out, the form has one field that may be empty, and the refusal says what is wrong. Null is still taken, but for
choices: with null among them the form would show a text field instead of a drop-down.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flows.request import FORMATS
from speech.languages import LANGUAGES

if TYPE_CHECKING:
    from prefect import Flow

USUAL = ("source", "references", "name", "language", "num_speakers", "min_speakers", "max_speakers", "model", "models")
USUAL_OUTPUT = ("formats", "output_dir")
GROUPS: dict[str, dict[str, str]] = {
    "Speakers": {"diarize": "tell apart", "on_diarization_failure": "if they cannot be told apart"},
    "Sound": {
        "track": "which audio track",
        "allow_truncated": "take what is cut short",
        "max_duration": "longest recording (seconds)",
    },
    "Words": {
        "task": "transcribe or translate",
        "hotwords": "names and terms",
        "initial_prompt": "text to begin with",
        "align": "times",
        "align_model": "model for times",
    },
    "Files": {
        "output_file": "one file instead",
        "overwrite": "replace those of others",
        "highlight_words": "underline words in subtitles",
        "max_line_width": "characters per subtitle line",
        "max_line_count": "lines per subtitle",
    },
    "List": {
        "recursive": "folders below",
        "limit": "at most this many",
        "order": "which first",
        "retry_failed": "failed ones again",
    },
    "Computing": {
        "run_on": "machine",
        "compute": "here or on Modal",
        "concurrency": "recordings at once",
        "batch_size": "batch size",
        "redo_from": "once more from",
        "retention_days": "keep artifacts for (days)",
    },
}
"""Heading to its fields, each with what its title says after the heading. Prefect's form has no headings of its own."""

TITLES = {
    "source": "Recording",
    "num_speakers": "Number of speakers",
    "min_speakers": "Fewest speakers",
    "max_speakers": "Most speakers",
    "model": "Whisper model",
    "models": "Whisper models",
    "formats": "Files to write",
    "output_dir": "Output folder",
    "options": "Transcription",
    "older_than_days": "Unused for (days)",
    "max_gb": "Keep at most (GB)",
    "dry_run": "Only list",
} | {field: f"{heading}: {title}" for heading, fields in GROUPS.items() for field, title in fields.items()}
DESCRIPTIONS = {
    "source": "A path or address that the worker can read: a file, https://, s3://, or another storage's.",
    "output_dir": "Folder or address (s3://, another storage's) that the files are written to; a relative one is below the work pool's working directory.",
    "language": "The spoken language; detected when left out.",
}
_GROUPS = {
    "TranscribeRequest": "Recording",
    "BatchRequest": "Batch",
    "EvaluateRequest": "Evaluation",
    "GcRequest": "Collection",
}
_SOURCES = {"BatchRequest": "Recordings", "EvaluateRequest": "References"}


def parameter_form(flow: Flow[..., Any]) -> dict[str, Any]:
    """The parameter schema that the flow's deployments are registered with."""
    from prefect.utilities.callables import parameter_schema

    schema: dict[str, Any] = parameter_schema(flow).model_dump_for_openapi()
    models = schema.get("definitions", {})
    for name, definition in models.items():
        properties = definition.get("properties", {})
        for spec in properties.values():
            if "$ref" in spec:
                spec.setdefault("description", models[spec["$ref"].rpartition("/")[2]].get("description", ""))
        definition["properties"] = _ordered({field: _field(field, spec, name) for field, spec in properties.items()})
    for name, spec in schema["properties"].items():
        group = spec.get("$ref", "").rpartition("/")[2]
        spec["title"] = _GROUPS.get(group) or TITLES.get(name) or _sentence_case(name)
    return schema


def _field(name: str, spec: dict[str, Any], model: str) -> dict[str, Any]:
    spec = _optional(spec)
    title = _SOURCES.get(model) if name == "source" else None
    spec["title"] = title or TITLES.get(name) or _sentence_case(name)
    if name == "language" and spec.get("type") == "string":
        spec["enum"] = [*sorted(LANGUAGES.values()), *sorted(LANGUAGES)]
    if name == "formats":
        spec["items"] = {"type": "string", "enum": [*FORMATS, "all"]}
    return spec | ({"description": DESCRIPTIONS[name]} if model == "TranscribeRequest" and name in DESCRIPTIONS else {})


def _optional(spec: dict[str, Any]) -> dict[str, Any]:
    """`{"anyOf": [{"type": "integer", …}, {"type": "null"}], "default": null}` as `{"type": "integer", …}`."""
    kinds = spec.get("anyOf", [])
    plain = [kind for kind in kinds if kind != {"type": "null"}]
    if len(plain) != 1 or len(plain) == len(kinds) or "type" not in plain[0] or spec.get("default") is not None:
        return dict(spec)
    flat: dict[str, Any] = plain[0] | {key: value for key, value in spec.items() if key not in ("anyOf", "default")}
    return flat


def _ordered(fields: dict[str, Any]) -> dict[str, Any]:
    """What most runs fill in, what belongs to this form alone, then the groups. A database may forget the order of keys."""
    grouped = [name for group in GROUPS.values() for name in group]
    own = [name for name in fields if name not in (*USUAL, *USUAL_OUTPUT, *grouped)]
    names = [name for name in (*USUAL, *USUAL_OUTPUT, *own, *grouped) if name in fields]
    return {name: fields[name] | {"position": position} for position, name in enumerate(names)}


def _sentence_case(name: str) -> str:
    return name.replace("_", " ").capitalize()
