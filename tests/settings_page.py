"""Writes docs/settings.md, the reference of all settings, from their declaration: `make options`. A test says when it is due."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from infra.settings import StenoSettings

PATH = Path(__file__).parents[1] / "docs" / "settings.md"
_HEAD = """# Settings

Every setting, read from the environment or from a `.env` file in the working directory; the environment wins. Lists and tables are given as JSON.
Guides: [operations](operations.md), [the REST API](api.md), [Modal](modal.md),
[security](security.md). Written from `infra/settings.py` by `make options`.
"""


def variables(model: type[BaseModel] = StenoSettings, prefix: str = "STENO_") -> Iterator[str]:
    """Every environment variable that a setting, or a section of them, is read from."""
    for name, field in model.model_fields.items():
        variable = f"{prefix}{name}".upper()
        yield variable
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from variables(field.annotation, f"{variable}__")


def written() -> str:
    """The page."""
    own, sections = [], []
    for name, field in StenoSettings.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            sections.append(_section(name, kind))
        else:
            own.append(_row(f"STENO_{name}", field))
    return "\n".join([_HEAD, _table(own), *sections])


def _section(name: str, model: type[BaseModel]) -> str:
    heading = name.replace("_", " ").capitalize() if name not in ("s3", "api") else name.upper()
    rows = [_row(f"STENO_{name}__{inner}", field) for inner, field in model.model_fields.items()]
    about = " ".join((model.__doc__ or "").split())
    return f"## {heading}\n\n{about}\n\n{_table(rows)}"


def _table(rows: list[str]) -> str:
    return "\n".join(["| variable | what it is | type | default |", "|---|---|---|---|", *rows, ""])


def _row(name: str, field: FieldInfo) -> str:
    cells = (f"`{name.upper()}`", field.description or "", _kind(field), _default(field))
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _kind(field: FieldInfo) -> str:
    bounds = []
    for bound in field.metadata:
        for attribute, sign in (("gt", ">"), ("ge", "≥"), ("lt", "<"), ("le", "≤")):
            if getattr(bound, attribute, None) is not None:
                bounds.append(f"{sign} {getattr(bound, attribute):g}")
    return ", ".join([_name(field.annotation), *bounds])


_NAMES = {
    "Path": "folder",
    "SecretStr": "secret",
    "bool": "true or false",
    "NoneType": "",
    "str": "text",
    "int": "whole number",
    "float": "number",
}


def _name(kind: Any) -> str:
    origin, inside = get_origin(kind), get_args(kind)
    if origin is tuple:
        return "list"
    if origin is dict:
        return "table"
    if origin is not None and all(isinstance(value, str) for value in inside):
        return " or ".join(f"`{value}`" for value in inside)
    if inside and origin is not None:
        return next(text for part in inside if (text := _name(part)))
    return _NAMES.get(getattr(kind, "__name__", ""), "text")


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True)
    if value in (None, "", (), {}) or value is PydanticUndefined:
        return ""
    if isinstance(value, tuple):
        return f"`{list(value)}`".replace("'", '"')
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value:.15g}`" if isinstance(value, float) else f"`{value}`"


if __name__ == "__main__":
    PATH.write_text(written())
