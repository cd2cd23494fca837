"""The doors that options are given at, and what a door makes of their declaration."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, Any, NamedTuple, TypeVar

from pydantic import BaseModel, Field, create_model
from pydantic.fields import FieldInfo

GROUPS = ("List", "Scoring", "Words", "Sound", "Speakers", "Files", "Computing", "Display")
"""In the order in which `--help` and the form show them."""


class Door(StrEnum):
    """Where options are given."""

    COMMAND = "command line"
    FORM = "form"
    MANIFEST = "manifest"
    """A column of its own in the table of a batch or an evaluation."""
    API = "API"
    """A submission; so, too, its client and `steno submit`."""
    RETRY = "API's retry"
    CHUNK = "chunk"
    """A chunk of audio that the API answers at once; further options have no effect there."""
    OPENAI = "OpenAI"
    """Beside the parameters of OpenAI's own contract, which api/openai/schemas.py repeats."""


OPERATORS = frozenset({Door.COMMAND, Door.FORM, Door.MANIFEST})
"""Trusted: may spend money and overwrite files."""
CALLERS = OPERATORS | {Door.API, Door.RETRY}
"""And callers of the API."""
CHUNKS = CALLERS | {Door.CHUNK}


class At(NamedTuple):
    """What is different at one door."""

    why: str
    default: Any = None
    """None: the same."""
    help: str = ""
    """Empty: the same."""
    bounds: tuple[Any, ...] = ()
    """Further ones."""


@dataclass(frozen=True, eq=False)
class Option:
    """What is known of an option beside its type, bounds, default and help, which pydantic's field has."""

    group: str
    title: str
    """In Prefect's form, after the group."""
    doors: frozenset[Door]
    key: tuple[str, ...] = ()
    """The stages in whose key it stands. Transcripts echo what words and speakers depend on, and so it is in that of `merge`."""
    switches: tuple[str, ...] = ()
    """The steps of a run that are left out without it."""
    usual: bool = False
    """Prefect's form shows it first and with its title alone."""
    flags: tuple[str, ...] = ()
    """Of the command line, instead of `--` and the name, or `-x` beside that."""
    metavar: str | None = None
    offered: tuple[str, ...] = ()
    """What is offered to choose from, where the type takes more."""
    several: bool = False
    """Whether a text may name several of these, separated by commas."""
    neutral: bool = False
    """A finished transcript and its files are the same with any: a batch does not take a recording again for it."""
    always_echoed: bool = False
    """Transcripts say it even when it is left at its default, as they did from the first version on: a new option that did
    so would change the key of every transcript that there is."""
    at: Mapping[Door, At] = field(default_factory=dict)


def option(default: Any, help: str, about: Option, **bounds: Any) -> Any:
    """A field of a request that is an option."""
    declared = Field(default, description=help, **bounds)
    declared.metadata.append(about)
    return declared


def about(declared: FieldInfo) -> Option | None:
    """What is known of a request's field as an option."""
    return next((item for item in declared.metadata if isinstance(item, Option)), None)


def options_of(model: type[BaseModel], door: Door | None = None) -> dict[str, Option]:
    """The options among a model's fields; those of a door."""
    known = {name: option for name, declared in model.model_fields.items() if (option := about(declared)) is not None}
    return {name: option for name, option in known.items() if door is None or door in option.doors}


def default_at(declared: FieldInfo, door: Door) -> Any:
    """What holds at the door where the option is left out."""
    different = _at(declared, door).default
    return declared.default if different is None else different


def help_at(declared: FieldInfo, door: Door) -> str:
    """What the option does, as it is said at the door."""
    return _at(declared, door).help or declared.description or ""


def _at(declared: FieldInfo, door: Door) -> At:
    known = about(declared)
    return (known.at.get(Door.API if door is Door.RETRY else door) if known is not None else None) or At("")


M = TypeVar("M", bound=BaseModel)


def model_at(
    door: Door,
    model: type[BaseModel],
    base: type[M],
    name: str,
    doc: str,
    *,
    only: Collection[str] | None = None,
    changes: bool = False,
    said: str = "",
) -> type[M]:
    """A model with the options of the door, or `only` some; as `changes` all may be left out, and are then as before.

    What is `said` follows every option's help.
    """
    fields: dict[str, Any] = {}
    for option_name in options_of(model, door) if only is None else only:
        declared = model.model_fields[option_name]
        kind = declared.annotation if not changes else declared.annotation | None  # type: ignore[operator]
        bounds = (*declared.metadata, *_at(declared, door).bounds)
        default = None if changes else default_at(declared, door)
        fields[option_name] = (Annotated[(kind, *bounds)], Field(default, description=help_at(declared, door) + said))
    return create_model(name, __base__=base, __doc__=doc, __module__=base.__module__, **fields)
