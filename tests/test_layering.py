"""The rooms of the architecture: who may import whom, what is loaded when, and one drawn tree of errors."""

from __future__ import annotations

import ast
import functools
import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import pytest

import stenoflow.errors

ROOT = Path(__file__).parents[1]
ROOMS = ("speech", "infra", "tasks", "flows", "deployments", "api", "stenoflow")

WEB = {"httpx", "httpcore", "requests", "aiohttp", "urllib3", "fastapi", "starlette"}
OBJECT_STORES = {"fsspec", "s3fs", "boto3", "botocore", "aiobotocore", "moto"}
HEAVY = {"torch", "torchaudio", "whisperx", "pyannote", "transformers", "lightning", "pytorch_lightning", "faster_whisper"}
"""Seconds to import each; in every room they are imported inside functions."""
ENGINE = HEAVY | {"ctranslate2", "onnxruntime", "onnx", "av", "soundfile", "scipy", "sklearn", "numpy"}
UNIX_ONLY = {"fcntl", "grp", "posix", "pty", "pwd", "resource", "syslog", "termios", "tty"}

CONTRACT = {
    "speech.schema",
    "speech.carrying",
    "speech.editing",
    "stenoflow.errors",
    "speech.stages",
    "speech.enrolled",
    "speech.glossary",
    "speech.host",
    "speech.models",
    "speech.registry",
    "speech.languages",
    "speech.formats",
    "speech.scoring",
    "speech.stored",
}
"""What of the engine is also there where it is not installed: types, names, rendering."""
PUBLIC = {"stenoflow.edits", "stenoflow.errors", "stenoflow.isolated", "stenoflow.jobs", "stenoflow.types"}
"""What all rooms share with the programs of others."""

MAY_IMPORT = {
    "speech": {"speech", "stenoflow.requirements", *PUBLIC},
    "infra": {"infra", "speech", "stenoflow.requirements", *PUBLIC},
    "tasks": {"tasks", "flows.prefect_compat.engine", "infra", *CONTRACT, *PUBLIC},
    "flows": {"flows", "tasks", "infra", *CONTRACT, *PUBLIC},
    "deployments": {"deployments", "flows", "infra", *CONTRACT, *PUBLIC},
    "api": {"api", "flows", "infra", *CONTRACT, *PUBLIC},
    "stenoflow": {"stenoflow.client", "stenoflow.here", *PUBLIC},
    "stenoflow/cli": {"stenoflow", "api", "deployments", "flows", "tasks", "infra", *CONTRACT},
}
NEVER = {
    "speech": {"prefect", "modal"} | WEB | OBJECT_STORES,
    "infra": {"prefect"},
    "tasks": {"modal"} | ENGINE,
    "flows": {"modal"} | ENGINE,
    "deployments": {"modal"} | ENGINE,
    "api": {"modal"} | ENGINE,
    "stenoflow": {"prefect", "modal", "fastapi", "starlette"} | OBJECT_STORES | ENGINE,
    "stenoflow/cli": {"modal"} | ENGINE,
}
EXCEPTIONS = {
    ("tasks/decoding.py", "speech.audio"): "fetching ends in the normalised recording",
    (
        "stenoflow/console.py",
        "prefect",
    ): "a class that Prefect's processes load by its name, which no folder of others may have",
    ("stenoflow/console.py", "infra"): "the same, once the rooms that it finds are ours",
}
LOOKS_INTO_THE_ENGINE = (
    "stenoflow/cli/doctor.py",
    "stenoflow/cli/deep.py",
    "stenoflow/cli/checks.py",
    "stenoflow/cli/modal.py",
    "stenoflow/cli/models.py",
)
"""What checks an installation reads any module of the engine, inside functions."""


class Import(NamedTuple):
    name: str
    """The module, as deep as it is one: `speech.formats` for `from speech import formats`."""
    line: int
    lazy: bool
    """Inside a function, or for type checkers only."""


def modules() -> list[str]:
    return sorted(str(path.relative_to(ROOT)) for room in ROOMS for path in (ROOT / room).rglob("*.py"))


def module_name(path: str) -> str:
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


@functools.cache
def tree_of(path: str) -> ast.Module:
    return ast.parse((ROOT / path).read_text(encoding="utf-8"))


@functools.cache
def imports_of(path: str) -> tuple[Import, ...]:
    return tuple(_imports(tree_of(path), module_name(path), path.endswith("__init__.py"), lazy=False))


def _imports(node: ast.AST, module: str, is_package: bool, lazy: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        inner = lazy or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            inner = True
        for name in _imported(child, module, is_package):
            yield Import(name, getattr(child, "lineno", 0), inner)
        yield from _imports(child, module, is_package, inner)


def _imported(node: ast.AST, module: str, is_package: bool) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        above = module.split(".")[: len(module.split(".")) - node.level + is_package] if node.level else []
        base = ".".join([*above, *([node.module] if node.module else [])])
        return [f"{base}.{alias.name}" if _is_module(f"{base}.{alias.name}") else base for alias in node.names]
    if isinstance(node, ast.Call) and ast.unparse(node.func) in ("importlib.import_module", "import_module", "__import__"):
        return [
            argument.value
            for argument in node.args[:1]
            if isinstance(argument, ast.Constant) and isinstance(argument.value, str)
        ]
    return []


def _is_module(name: str) -> bool:
    path = ROOT / name.replace(".", "/")
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def _within(name: str, roots: set[str]) -> bool:
    return any(name == root or name.startswith(f"{root}.") for root in roots)


# -- rooms --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", modules())
def test_a_room_imports_only_what_the_architecture_allows(path: str) -> None:
    room = next(room for room in reversed(MAY_IMPORT) if path.startswith(f"{room}/"))
    wrong = []
    for found in imports_of(path):
        if (path, found.name) in EXCEPTIONS or (path, found.name.split(".")[0]) in EXCEPTIONS:
            continue
        if path in LOOKS_INTO_THE_ENGINE and found.lazy and found.name.startswith("speech"):
            continue
        own = found.name.split(".")[0] in ROOMS
        if (own and not _within(found.name, MAY_IMPORT[room])) or _within(found.name, NEVER[room]):
            wrong.append(f"{path}:{found.line} imports {found.name}")
    assert not wrong, wrong


def test_every_exception_is_still_needed() -> None:
    needed = {
        (path, name) for path in modules() for found in imports_of(path) for name in (found.name, found.name.split(".")[0])
    }
    assert set(EXCEPTIONS) <= needed
    assert set(LOOKS_INTO_THE_ENGINE) <= set(modules())


def test_heavy_libraries_are_imported_inside_functions() -> None:
    """A module that defines a network cannot be written without torch at its top; it counts as torch itself."""
    eager = {path: {found.name for found in imports_of(path) if not found.lazy} for path in modules()}
    networks = {path for path in modules() if "torch" in eager[path] and defines_a_network(path)}
    heavy = HEAVY | {module_name(path) for path in networks}
    wrong = [
        f"{path} imports {name}"
        for path, names in eager.items()
        if path not in networks
        for name in names
        if _within(name, heavy)
    ]
    assert not wrong, wrong


def defines_a_network(path: str) -> bool:
    classes = [node for node in tree_of(path).body if isinstance(node, ast.ClassDef)]
    return any(ast.unparse(base) in ("nn.Module", "torch.nn.Module") for node in classes for base in node.bases)


def test_no_module_needs_unix_to_be_imported() -> None:
    found = [
        f"{path}:{entry.line}: {entry.name}"
        for path in modules()
        for entry in imports_of(path)
        if not entry.lazy and _within(entry.name, UNIX_ONLY)
    ]
    assert found == []


@pytest.mark.parametrize("module", ["flows.transcribe", "stenoflow.cli.main", "speech.stages", "speech.formats"])
def test_what_starts_a_run_loads_no_engine(module: str) -> None:
    # Earlier Prefects import pandas, and numpy with it, where it is installed.
    first = "import prefect.tasks; " if module.startswith("flows.") else ""
    code = (
        f"import sys; {first}theirs = set(sys.modules); import {module}; print(sorted(({ENGINE} & set(sys.modules)) - theirs))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "[]"


def test_every_stage_has_the_function_that_its_entry_names() -> None:
    from speech.stages import STAGES

    for spec in STAGES.values():
        module, function = spec.entry.split(":")
        path = f"{module.replace('.', '/')}.py"
        path = path if (ROOT / path).is_file() else f"{module.replace('.', '/')}/__init__.py"
        defined = {node.name for node in tree_of(path).body if isinstance(node, ast.FunctionDef)}
        assert function in defined, spec.entry


# -- state --------------------------------------------------------------------------------------------------------------

STATE = {
    ("speech/loaded.py", "MODELS"): "what a process has loaded, which all its runs share",
    ("tasks/report.py", "_together"): "of one channel's task runs, which Prefect calls",
    ("speech/loaded.py", "_using"): "of one stage, whose models are loaded some calls below it",
    ("infra/settings.py", "get_settings"): "the environment's, read once; a command's options stand above it",
    ("infra/progress.py", "_stages"): "a flow's parameters are stored by Prefect, and cannot hold who wants to be told",
    ("infra/progress.py", "_log"): "of one stage: backends say lines for the log of the task that Prefect runs them in",
    ("infra/usage.py", "_current"): "of one run: whatever is read or written is noted for it, below Prefect's own calls",
    ("infra/headstart.py", "_current"): "of one command: Prefect's storage looks there before it looks into the store",
    ("tasks/records.py", "_seen"): "of one task: Prefect asks three times for the same record",
    ("tasks/retrying.py", "_attempts"): "of one task: Prefect gives its retry condition no place to count in",
    ("tasks/stopping.py", "_stop"): "of one run: a task that is cancelled is told nothing else of why",
    ("flows/batching/drive.py", "_batches"): "as for stages",
    ("flows/prefect_compat/database.py", "_turns"): "Prefect's server opens sessions in a dozen places",
    ("flows/prefect_compat/database.py", "_has_turn"): "the same",
}
"""What a module keeps from one call to the next beside caches by arguments, and why it is no argument."""
_CONTAINERS = {
    *("dict", "list", "set", "deque", "defaultdict", "OrderedDict", "Counter", "ContextVar"),
    *("WeakKeyDictionary", "WeakValueDictionary", "WeakSet"),
}
_CHANGES = {
    *("append", "extend", "insert", "add", "update", "setdefault", "pop", "popitem", "remove", "discard", "clear"),
    *("appendleft", "popleft", "move_to_end"),
}


def _bound(tree: ast.Module) -> Iterator[tuple[str, ast.expr | None]]:
    """Names of the module, and their values."""
    for node in tree.body:
        if isinstance(node, ast.Assign):
            yield from ((target.id, node.value) for target in node.targets if isinstance(target, ast.Name))
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id, node.value


@functools.cache
def _changeable_classes() -> frozenset[str]:
    """Ours, of no library's base, that set attributes when they are made."""
    classes = (node for path in modules() for node in tree_of(path).body if isinstance(node, ast.ClassDef))
    return frozenset(
        node.name
        for node in classes
        if all(ast.unparse(base).startswith("Generic[") for base in node.bases)
        and any(isinstance(each, ast.FunctionDef) and each.name == "__init__" for each in node.body)
    )


def state_of(tree: ast.Module) -> set[str]:
    """The module's names whose values change while it is used."""
    bound = dict(_bound(tree))
    found = {name for node in ast.walk(tree) if isinstance(node, ast.Global) for name in node.names}
    for name, value in bound.items():
        made = ast.unparse(value.func).split(".")[-1].split("[")[0] if isinstance(value, ast.Call) else ""
        empty = isinstance(value, ast.Dict | ast.List) and not ast.unparse(value).strip("[]{}")
        if (made in _changeable_classes() | _CONTAINERS and (made not in _CONTAINERS or not name.isupper())) or empty:
            found.add(name)
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        own = {each.id for each in ast.walk(function) if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store)}
        own |= {each.arg for each in ast.walk(function) if isinstance(each, ast.arg)}
        for node in ast.walk(function):
            target: ast.expr | None = None
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _CHANGES:
                target = node.func.value
            elif isinstance(node, ast.Subscript) and not isinstance(node.ctx, ast.Load):
                target = node.value
            if isinstance(target, ast.Name) and target.id in set(bound) - own:
                found.add(target.id)
    return found


def test_modules_keep_no_state_but_what_is_listed_with_its_reason() -> None:
    found = {(path, name) for path in modules() for name in state_of(tree_of(path))}
    assert found - set(STATE) == set(), "make it an argument, or the attribute of an object that is handed on"
    assert set(STATE) - found == set(), "listed, but there no more"


def test_state_is_noticed_however_it_is_kept() -> None:
    kept = """
from weakref import WeakKeyDictionary
cache = {}
by_loop: WeakKeyDictionary[object, int] = WeakKeyDictionary()
TABLE = {"a": 1}
MODELS = LoadedModels()
last = None
FIXED = {"b": 2}
local = ("c",)
def one(key):
    global last
    last = key
    TABLE[key] = FIXED["b"]
def two():
    local = []
    local.append(1)
"""
    assert state_of(ast.parse(kept)) == {"cache", "by_loop", "TABLE", "MODELS", "last"}


# -- Prefect's private parts --------------------------------------------------------------------------------------------

PREFECT_ROOM = "flows/prefect_compat/"
PUBLIC_PREFECT = {
    *("prefect", "prefect.artifacts", "prefect.blocks", "prefect.cache_policies", "prefect.client", "prefect.context"),
    *("prefect.events", "prefect.exceptions", "prefect.filesystems", "prefect.runtime", "prefect.settings", "prefect.states"),
    *("prefect.transactions", "prefect.utilities.annotations", "prefect.utilities.callables"),
}
"""Of these Prefect's guides speak. What else there is moves without notice, also between patch releases."""
PUBLIC_NAMES = {"prefect.logging.handlers:PrefectConsoleHandler"}
PUBLIC_UNDERSCORES = {"os._exit", "_asdict", "_replace"}


def is_public_part(module: str, name: str) -> bool:
    """Whether Prefect's guides speak of the name in that module; submodules of the package itself are no names of it."""
    if name.startswith("_") or "._" in module:
        return False
    if f"{module}:{name}" in PUBLIC_NAMES:
        return True
    if module == "prefect":
        import prefect

        return not name or name in prefect.__all__
    return any(module == public or module.startswith(f"{public}.") for public in PUBLIC_PREFECT - {"prefect"})


def private_imports(tree: ast.AST) -> Iterator[str]:
    """What is imported of Prefect that its guides do not speak of, as `module:name`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and _within(node.module, {"prefect"}):
            yield from (f"{node.module}:{alias.name}" for alias in node.names if not is_public_part(node.module, alias.name))
        elif isinstance(node, ast.Import):
            yield from (
                f"{alias.name}:"
                for alias in node.names
                if _within(alias.name, {"prefect"}) and not is_public_part(alias.name, "")
            )


@pytest.mark.parametrize("path", [path for path in modules() if not path.startswith((PREFECT_ROOM, "speech/", "infra/"))])
def test_private_parts_are_touched_in_one_room(path: str) -> None:
    tree = tree_of(path)
    wrong = [*private_imports(tree)]
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith("PREFECT__"):
            wrong.append(node.value)
        if isinstance(node, ast.Attribute) and re.match("_[a-z]", node.attr):
            owner = ast.unparse(node.value)
            own = owner.split(".")[0] in ("self", "cls") or owner in _classes_of(tree)
            if not own and node.attr not in PUBLIC_UNDERSCORES and f"{owner}.{node.attr}" not in PUBLIC_UNDERSCORES:
                wrong.append(f"{owner}.{node.attr}")
    assert not wrong, f"{path} uses {wrong}; {PREFECT_ROOM} is the room for it"


def _classes_of(tree: ast.Module) -> set[str]:
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef)} | {"super()"}


def test_the_room_of_private_parts_stands_below_the_others() -> None:
    """Tasks import it, so it may not import what imports tasks."""
    may = {"flows.prefect_compat", "flows.upkeep", "flows.artifacts", "infra", *CONTRACT}
    wrong = [
        f"{path} imports {found.name}"
        for path in modules()
        if path.startswith(PREFECT_ROOM)
        for found in imports_of(path)
        if found.name.split(".")[0] in ROOMS and not _within(found.name, may)
    ]
    assert not wrong, wrong


# -- errors -------------------------------------------------------------------------------------------------------------


def drawn(module: ModuleType) -> dict[str, str | None]:
    """Class to parent as the docstring draws them; None for those that stand at the left."""
    found: dict[str, str | None] = {}
    parents: list[tuple[int, str]] = []
    for line in (module.__doc__ or "").splitlines():
        match = re.match(r"    ([│├└─ ]*)([A-Z]\w+)(?:\s{2,}|$)", line)
        if match:
            depth = len(match[1])
            parents = [(above, name) for above, name in parents if above < depth]
            found[match[2]] = parents[-1][1] if parents else None
            parents.append((depth, match[2]))
    return found


def defined(module: ModuleType) -> dict[str, type[stenoflow.errors.StenoError]]:
    return {
        name: value
        for name, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, stenoflow.errors.StenoError) and value.__module__ == module.__name__
    }


def test_the_drawn_tree_of_errors_is_the_real_one() -> None:
    tree, classes = drawn(stenoflow.errors), defined(stenoflow.errors)
    assert set(tree) == set(classes)
    for name, parent in tree.items():
        assert parent is None or classes[name].__bases__[0].__name__ == parent


def test_every_error_can_be_met() -> None:
    """Each is raised, made or named as a value somewhere; one that only groups others need not be."""
    used = {name for path in modules() for name in _named_as_value(tree_of(path))}
    classes = defined(stenoflow.errors)
    groups = {base.__name__ for value in classes.values() for base in value.__bases__}
    assert set(classes) - groups <= used, set(classes) - groups - used


def _named_as_value(node: ast.AST) -> Iterator[str]:
    """Names read as values, leaving out those that are only caught, tested for, inherited from or annotated."""
    for field, value in ast.iter_fields(node):
        for child in value if isinstance(value, list) else [value]:
            if not isinstance(child, ast.AST):
                continue
            if isinstance(node, ast.ExceptHandler) and field == "type":
                continue
            if isinstance(node, ast.ClassDef) and field == "bases":
                continue
            if field in ("annotation", "returns"):
                continue
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("isinstance", "issubclass"):
                continue
            if isinstance(child, ast.Name):
                yield child.id
            elif isinstance(child, ast.Attribute):
                yield child.attr
            yield from _named_as_value(child)


def test_codes_of_errors_are_unique() -> None:
    classes = defined(stenoflow.errors)
    codes = [value.code for value in classes.values()]
    assert len(set(codes)) == len(codes)
    assert all(importlib.import_module(value.__module__) for value in classes.values())
