"""No error names, in what it says at every door, an option or a setting that only one door has."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import stenoflow.errors
from api.cures import CURES, message_for_callers
from flows.result import DiarizationFailed
from infra.compute import LocalCompute
from stenoflow.errors import OutOfMemory, StenoError, UnknownModel

ROOT = Path(__file__).parents[1]
KNOWN = (stenoflow.errors, DiarizationFailed, LocalCompute)
"""Imported, so that every class of errors is there."""
ONE_DOORS = re.compile(
    r"(?<![\w-])--[a-z]|`steno |STENO_|PREFECT_|HF_TOKEN|AWS_|\bpip install|, or a folder|`modal |allow truncated"
)
OTHERS = (
    "stenoflow/cli/",
    "flows/local_server/",
    "flows/evaluation/",
    "flows/batch",
    "flows/retry.py",
    "infra/listing/",
    "infra/listening.py",
)
"""What no caller of the API meets: the command line's own, and what lists recordings or opens ports."""
OPERATORS = ("infra/on_modal/admin.py", "infra/on_modal/image.py")


def kinds(root: type[StenoError] = StenoError) -> set[str]:
    return {root.__name__}.union(*(kinds(kind) for kind in root.__subclasses__()))


def raised() -> Iterator[tuple[str, str]]:
    """Where an error is made in a room that the API's jobs run through, and what it says beside its cure."""
    names = kinds()
    for room in ("speech", "infra", "tasks", "flows"):
        for path in sorted((ROOT / room).rglob("*.py")):
            place = str(path.relative_to(ROOT))
            if place.startswith((*OTHERS, *OPERATORS)):
                continue
            for call in ast.walk(ast.parse(path.read_text())):
                if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in names:
                    yield f"{place}:{call.lineno}", " ".join(map(_text, call.args))


def _text(node: ast.expr) -> str:
    if isinstance(node, ast.JoinedStr):
        return "".join(map(_text, node.values))
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def test_what_happened_is_said_without_the_options_of_one_door() -> None:
    said = list(raised())
    assert len(said) > 100
    settings_of_their_own = "has an entry"
    assert [one for one in said if ONE_DOORS.search(one[1]) and settings_of_their_own not in one[1]] == []


def test_an_error_says_its_cure_and_other_doors_say_theirs() -> None:
    error = UnknownModel("Unknown model 'x'", cure="give a folder. Did you mean 'y'?")
    assert error.message == str(error) == "Unknown model 'x'; give a folder. Did you mean 'y'?"
    assert (
        message_for_callers(error.code, error.message, error.happened)
        == "Unknown model 'x'. `GET /v1/models` lists the available models."
    )
    plain = OutOfMemory("Memory ran out.")
    assert (plain.cure, plain.happened, message_for_callers(plain.code, plain.message, None)) == (
        "",
        plain.message,
        plain.message,
    )


def test_cures_of_the_api_name_nothing_of_other_doors() -> None:
    codes = {kind.code for kind in _classes()}
    assert set(CURES) <= codes
    assert not [cure for cure in CURES.values() if ONE_DOORS.search(cure)]


def _classes(root: type[StenoError] = StenoError) -> list[type[StenoError]]:
    return [root, *(kind for child in root.__subclasses__() for kind in _classes(child))]
