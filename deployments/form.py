"""A flow's parameters as Prefect's form shows and checks them.

Pydantic writes an optional number as "a number between 1 and 100, or null, which is the default". Prefect's form makes two
tabs of that, and its API refuses a wrong number as "not valid under any of the given schemas". Written as a number that may
be left out, the form has one field that may be empty, and the refusal says what is wrong. Null is still taken, but for
choices: with null among them the form would show a text field instead of a drop-down.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from speech.languages import LANGUAGES

if TYPE_CHECKING:
    from prefect import Flow

FIRST = ("source", "references", "name", "language", "num_speakers", "min_speakers", "max_speakers", "formats", "output_dir")
LAST = (
    "batch_size",
    "track",
    "allow_truncated",
    "highlight_words",
    "max_line_width",
    "max_line_count",
    "redo_from",
    "max_duration",
    "retention_days",
)
"""What most runs fill in comes first, what hardly any does comes last, the rest stays as the model orders it."""

TITLES = {
    "source": "Recording",
    "name": "Name",
    "language": "Language",
    "track": "Audio track",
    "model": "Whisper model",
    "task": "Task",
    "align": "Word times",
    "diarize": "Speakers",
    "num_speakers": "Number of speakers",
    "min_speakers": "Fewest speakers",
    "max_speakers": "Most speakers",
    "on_diarization_failure": "If the speakers cannot be found",
    "initial_prompt": "Text to prime with",
    "hotwords": "Names and terms",
    "formats": "Files to write",
    "output_dir": "Output folder",
    "output_file": "Output file",
    "align_model": "Model for word times",
    "allow_truncated": "Take recordings that are cut short",
    "max_line_width": "Subtitle line width",
    "max_line_count": "Subtitle lines",
    "redo_from": "Compute again from",
    "max_duration": "Longest recording (seconds)",
    "retention_days": "Keep artifacts for (days)",
    "run_on": "Where to compute",
    "order": "Which first",
    "limit": "At most this many",
}
DESCRIPTIONS = {
    "source": "A path or URL that the worker can read: a file, http(s)://, s3:// or any other fsspec URL.",
    "output_dir": "Folder or fsspec URL that the files are written to; a relative one is below the work pool's working directory.",
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
    """In the form's order. A database may forget the order of keys, so each says its position."""
    middle = [name for name in fields if name not in FIRST and name not in LAST]
    names = [name for name in (*FIRST, *middle, *LAST) if name in fields]
    return {name: fields[name] | {"position": position} for position, name in enumerate(names)}


def _sentence_case(name: str) -> str:
    return name.replace("_", " ").capitalize()
