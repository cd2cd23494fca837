"""A flow's parameters as Prefect's form shows and checks them; what each option is called there is declared with it.

Pydantic writes an optional number as "a number between 1 and 100, or null, which is the default". Prefect's form makes two
tabs of that, and its API refuses a wrong number as "not valid under any of the given schemas". Written as a number that may
be left out, the form has one field that may be empty, and the refusal says what is wrong. Null is still taken, but for
choices: with null among them the form would show a text field instead of a drop-down.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, get_type_hints

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from flows.doors import GROUPS, Door, about, help_at

if TYPE_CHECKING:
    from prefect import Flow

_TITLES = {
    "TranscribeRequest": "Recording",
    "BatchRequest": "Batch",
    "EvaluateRequest": "Evaluation",
    "GcRequest": "Collection",
    "TranscribeOptions": "Transcription",
}

_SEVERAL = r"^[^,]+(,[^,]+)+$"
"""Of texts that name several: `en,fr`."""


def parameter_form(flow: Flow[..., Any]) -> dict[str, Any]:
    """The parameter schema that the flow's deployments are registered with."""
    from prefect.utilities.callables import parameter_schema

    schema: dict[str, Any] = parameter_schema(flow).model_dump_for_openapi()
    definitions = schema.get("definitions", {})
    models = {model.__name__: model for model in _models(get_type_hints(flow.fn).values())}
    for name, definition in definitions.items():
        definition["properties"] = _fields(definition.get("properties", {}), models[name], definitions)
    for name, spec in schema["properties"].items():
        spec["title"] = _TITLES.get(_model_of(spec)) or _sentence_case(name)
    return schema


def _models(kinds: Any) -> Iterator[type[BaseModel]]:
    """The models among the types, and those of their fields."""
    for kind in kinds:
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield kind
            yield from _models(field.annotation for field in kind.model_fields.values())


def _fields(properties: dict[str, Any], model: type[BaseModel], definitions: dict[str, Any]) -> dict[str, Any]:
    """What most runs fill in, what belongs to this form alone, then the groups. A database may forget the order of keys."""
    known = {name: about(model.model_fields[name]) for name in properties}
    shown = [name for name, option in known.items() if option is None or Door.FORM in option.doors]

    def place(name: str) -> tuple[int, int]:
        option = known[name]
        if option is None:
            return 1, 0
        return (0, 0) if option.usual else (2, GROUPS.index(option.group))

    fields: dict[str, Any] = {}
    for position, name in enumerate(sorted(shown, key=place)):
        spec = _field(name, properties[name], model.model_fields[name])
        if "$ref" in spec:
            spec.setdefault("description", definitions[_model_of(spec)].get("description", ""))
        fields[name] = spec | {"position": position}
    return fields


def _field(name: str, spec: dict[str, Any], field: FieldInfo) -> dict[str, Any]:
    """Prefect's form has no headings of its own: a field's title says its group first."""
    spec, option = _optional(spec), about(field)
    if option is None:
        return spec | {"title": _TITLES.get(_model_of(spec)) or _sentence_case(name)}
    if option.offered and spec.get("type") == "array":
        spec["items"] = {"type": "string", "enum": [*option.offered]}
    elif option.several:
        one = {"title": "One", "type": "string", "enum": [*option.offered]}
        several = {"title": "Several", "type": "string", "maxLength": spec.pop("maxLength"), "pattern": _SEVERAL}
        spec = {name: value for name, value in spec.items() if name != "type"} | {"anyOf": [one, several]}
    elif option.offered:
        spec["enum"] = [*option.offered]
    title = option.title if option.usual else f"{option.group}: {option.title}"
    return spec | {"title": title, "description": help_at(field, Door.FORM)}


def _optional(spec: dict[str, Any]) -> dict[str, Any]:
    """`{"anyOf": [{"type": "integer", …}, {"type": "null"}], "default": null}` as `{"type": "integer", …}`."""
    kinds = spec.get("anyOf", [])
    plain = [kind for kind in kinds if kind != {"type": "null"}]
    if len(plain) != 1 or len(plain) == len(kinds) or "type" not in plain[0] or spec.get("default") is not None:
        return dict(spec)
    flat: dict[str, Any] = plain[0] | {key: value for key, value in spec.items() if key not in ("anyOf", "default")}
    return flat


def _model_of(spec: dict[str, Any]) -> str:
    return str(spec.get("$ref", "")).rpartition("/")[2]


def _sentence_case(name: str) -> str:
    return name.replace("_", " ").capitalize()
