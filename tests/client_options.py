"""Writes stenoflow/client/options.py, the client's types, from the declaration: `make options`. A test says when it is due."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, get_origin

from flows.doors import Door, help_at, options_of
from flows.options import FORMATS
from flows.request import TranscribeRequest
from speech.formats import FORMATS as KNOWN
from speech.stages import STEPS

PATH = Path(__file__).parents[1] / "stenoflow" / "client" / "options.py"
_TAKES_MORE = {"track": "str | int | None", "formats": "Sequence[Format]"}
"""What is taken is wider than what is kept."""
_ARGUMENTS = ("name",)
"""Options that are arguments of their own."""


def written() -> str:
    """The module."""
    names = ", ".join(f'"{name}"' for name in FORMATS)
    binary = ", ".join(f'"{name}"' for name, known in KNOWN.items() if known.binary)
    steps = ", ".join(f'"{step}"' for step in STEPS[:-1])
    job, chunk, retry = (options_of(TranscribeRequest, door) for door in (Door.API, Door.CHUNK, Door.RETRY))
    return f'''"""The options that callers give, as types. Written by `make options` from `flows.options`; not by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypedDict, get_args

Format = Literal[{names}]
FORMATS: tuple[Format, ...] = get_args(Format)
BINARY: frozenset[Format] = frozenset({{{binary}}})
"""Formats that are not text."""
RetryFrom = Literal[{steps}]
"""The steps of a job, of which a retry may repeat one and what follows it."""


class ChunkOptions(TypedDict, total=False):
    """How a chunk is transcribed. What is left out is as the service has it."""

{_fields(chunk, Door.CHUNK)}

class Options(ChunkOptions, total=False):
    """How a recording is transcribed. What is left out is as the service has it."""

{_fields([name for name in job if name not in chunk], Door.API)}

class Changes(TypedDict, total=False):
    """What a retry may do differently. What is left out stays."""

{_fields(retry, Door.RETRY, changes=True)}'''


def _fields(names: Iterable[str], door: Door, *, changes: bool = False) -> str:
    lines = []
    for name in names:
        if name in _ARGUMENTS:
            continue
        field = TranscribeRequest.model_fields[name]
        kind = _TAKES_MORE.get(name) or _text(field.annotation)
        lines.append(f"    {name}: {kind if not changes or kind.endswith('| None') else f'{kind} | None'}")
        lines.append(f'    """{help_at(field, Door.API if door is Door.CHUNK else door)}"""')
    return "\n".join(lines) + "\n"


def _text(kind: Any) -> str:
    if get_origin(kind) is None:
        return str(kind.__name__)
    return re.sub(r"\b(typing|types)\.", "", str(kind)).replace("'", '"').replace("NoneType", "None")


if __name__ == "__main__":
    PATH.write_text(written())
