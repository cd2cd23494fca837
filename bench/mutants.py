"""Small faults put into the code, one at a time: which of them do the tests notice?

    python -m bench.mutants --seed 3 --count 60            # make mutants SEED=3 COUNT=60
    python -m bench.mutants --rooms speech infra --slow    # what the fast tests let pass is tried on the slow ones too

One recorded run of the fast tests says which test executes which line (coverage's contexts; kept in `.cache/mutants` until a
source file changes). A sample of faults is drawn by the seed, the rooms in turn. Each is put into a copy of the tree, where the
tests that execute its line are run, in a process that is forked from one with the libraries imported. A fault is killed by a test
that fails or does not end; it survives when all pass; and is not covered when no test executes its line within
pytest's process. Survivors are printed as diffs: a person says which of them change nothing.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import difflib
import hashlib
import itertools
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
KEPT = ROOT / ".cache" / "mutants"
ROOMS = ("speech", "infra", "tasks", "flows", "api", "stenoflow", "deployments")
LIBRARIES = (
    "pytest",
    "numpy",
    "prefect.flows",
    "prefect.client.orchestration",
    "fastapi",
    "openai",
    "modal",
    "hypothesis",
    "scipy.optimize",
)
"""Imported once, before each fault's process is forked."""
MOST_TESTS = 60
"""Of those that execute a line, for one fault: those of the module's own test file first, then the ones that execute least."""
PATIENCE = 120.0
"""Seconds for one fault's tests."""
TOO_LONG = "took too long, or could not begin"
SWAPPED: dict[type[Any], type[Any]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Add,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Div,
    ast.Mod: ast.Mult,
    ast.And: ast.Or,
    ast.Or: ast.And,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}
NAMES = {"min": "max", "max": "min", "any": "all", "all": "any"}
_SILENT = ("log", "_log", "logger", "warnings")
"""What is only said to a log is no fault that a test should notice."""


@dataclass(frozen=True)
class Fault:
    path: str
    line: int
    what: str
    source: str
    """The whole file with the fault in it."""

    @property
    def room(self) -> str:
        return self.path.partition("/")[0]

    def diff(self) -> str:
        """Both as `ast` writes them, so that nothing but the fault differs."""
        before = ast.unparse(ast.parse((ROOT / self.path).read_text())).splitlines()
        after = self.source.splitlines()
        lines = list(difflib.unified_diff(before, after, lineterm="", n=2))[3:]
        return "\n".join([f"{self.path}:{self.line}: {self.what}", *lines])


# -- faults -----------------------------------------------------------------------------------------------------------


def places(tree: ast.AST) -> Iterator[ast.AST]:
    """The nodes in bodies of functions, without what is no behaviour: annotations, docstrings, logging, assertions."""
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            for statement in function.body:
                yield from _inside(statement)


def _inside(node: ast.AST) -> Iterator[ast.AST]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Assert | ast.Raise | ast.JoinedStr):
        return
    if isinstance(node, ast.Expr) and (isinstance(node.value, ast.Constant) or _is_logging(node.value)):
        return
    yield node
    for name, value in ast.iter_fields(node):
        if name not in ("annotation", "returns"):
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    yield from _inside(child)


def _is_logging(node: ast.AST) -> bool:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        owner = ast.unparse(node.func.value).lower()
        return owner.removeprefix("self.").startswith(_SILENT) or "logger" in owner
    return False


def mutate(node: ast.AST) -> str | None:
    """Change the node; what was done to it, None when there is nothing to change."""
    match node:
        case ast.Compare() if type(node.ops[0]) in SWAPPED:
            node.ops[0] = SWAPPED[type(node.ops[0])]()
            return "another comparison"
        case ast.BinOp() | ast.AugAssign() if type(node.op) in SWAPPED and not _is_text(node):
            node.op = SWAPPED[type(node.op)]()
            return "another operator"
        case ast.BoolOp():
            node.op = SWAPPED[type(node.op)]()
            return "and for or"
        case ast.If() | ast.While() | ast.IfExp():
            node.test = ast.UnaryOp(ast.Not(), node.test)
            return "the condition turned round"
        case ast.Constant(value=bool(value)):
            node.value = not value
            return "the other truth"
        case ast.Constant(value=int(value) | float(value)):
            node.value = value + 1
            return "one more"
        case ast.Call(func=ast.Name(id=name)) if name in NAMES:
            node.func = ast.Name(NAMES[name], ast.Load())
            return f"{NAMES[name]} for {name}"
        case ast.Return(value=ast.AST()) if not isinstance(node.value, ast.Constant):
            node.value = ast.Constant(None)
            return "nothing returned"
    return None


def _is_text(node: ast.BinOp | ast.AugAssign) -> bool:
    sides = [node.left, node.right] if isinstance(node, ast.BinOp) else [node.value]
    return any(isinstance(side, ast.JoinedStr) or isinstance(getattr(side, "value", None), str) for side in sides)


def fault_at(path: str, place: int) -> Fault | None:
    """The fault at one of the file's places; None where nothing can be changed."""
    tree = ast.parse((ROOT / path).read_text())
    node = next(itertools.islice(places(tree), place, None))
    line = getattr(node, "lineno", 0)
    if isinstance(node, ast.Expr):
        node.value, what = ast.Constant(None), "a statement left out"
    else:
        what = mutate(node) or ""
    return Fault(path, line, what, ast.unparse(ast.fix_missing_locations(tree))) if what and line else None


def drawn(rooms: list[str], count: int, seed: int) -> Iterator[Fault]:
    """So many faults, the rooms in turn, files by how much there is to change in them."""
    chance, seen = random.Random(seed), set[tuple[str, int]]()
    files = {room: [str(path.relative_to(ROOT)) for path in sorted((ROOT / room).rglob("*.py"))] for room in rooms}
    sizes = {path: sum(1 for _ in places(ast.parse((ROOT / path).read_text()))) for paths in files.values() for path in paths}
    for room in itertools.islice(itertools.cycle(rooms), count):
        fault = None
        while fault is None:
            [path] = chance.choices(files[room], [sizes[path] for path in files[room]])
            place = chance.randrange(sizes[path])
            if (path, place) not in seen:
                seen.add((path, place))
                fault = fault_at(path, place)
        yield fault


# -- which tests ------------------------------------------------------------------------------------------------------


def recorded(tests: str, *, last: bool) -> Path:
    """The coverage of the tests of that marker expression, by test; recorded when a file has changed since, unless the `last` will do."""
    if last and (kept := sorted(KEPT.glob("*.coverage"), key=lambda path: path.stat().st_mtime)):
        return kept[-1]
    state = hashlib.sha256(tests.encode())
    for path in sorted(itertools.chain.from_iterable((ROOT / room).rglob("*.py") for room in (*ROOMS, "tests"))):
        state.update(path.read_bytes())
    KEPT.mkdir(parents=True, exist_ok=True)
    target = KEPT / f"{state.hexdigest()[:16]}.coverage"
    if not target.exists():
        settings = KEPT / "coveragerc"
        settings.write_text(f"[run]\ndata_file = {target}.part\nsource = {','.join(ROOMS)}\n")
        print("Recording which test executes which line (minutes)", flush=True)
        command = [
            sys.executable,
            "-m",
            "coverage",
            "run",
            f"--rcfile={settings}",
            "-m",
            "pytest",
            "-q",
            "-p",
            "bench.mutants",
            "-m",
            tests,
        ]
        subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL, check=False)
        Path(f"{target}.part").replace(target)
    return target


class Tests:
    """Which tests execute which line."""

    def __init__(self, data: Path) -> None:
        from coverage import CoverageData

        self._data = CoverageData(str(data))
        self._data.read()
        self._lines: Counter[str] = Counter()
        self._of: dict[str, dict[int, list[str]]] = {}
        for path in self._data.measured_files():
            found = self._of[str(Path(path).relative_to(ROOT))] = defaultdict(list)
            for line, contexts in self._data.contexts_by_lineno(path).items():
                found[line] = [context for context in contexts if context]
                self._lines.update(found[line])

    def of(self, fault: Fault) -> list[str]:
        """Node ids, those most likely to notice first."""
        contexts = self._of.get(fault.path, {}).get(fault.line, [])
        own = f"test_{Path(fault.path).stem}"
        return sorted(contexts, key=lambda context: (own not in context, self._lines[context]))[:MOST_TESTS]


def pytest_runtest_logstart(nodeid: str, location: object) -> None:
    """As a plugin of the recorded run: from here on, and in every thread, this test executes the lines."""
    from coverage import Coverage

    if (recording := Coverage.current()) is not None:
        recording.switch_context(nodeid.partition("[")[0])


# -- trying -----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def copied() -> Iterator[Path]:
    """A copy of the tree, which faults are put into."""
    with tempfile.TemporaryDirectory(prefix="steno-mutants-") as name:
        folder = Path(name) / "tree"
        files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
        for path in files:
            if (ROOT / path).is_file():
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / path, folder / path)
        (folder / ".cache").symlink_to(ROOT / ".cache")
        yield folder


class _FirstFailure:
    """Writes down the first test that fails."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed:
            self.target.write_text(report.nodeid)

    pytest_collectreport = pytest_runtest_logreport


def failing(folder: Path, arguments: list[str], patience: float) -> str | None:
    """The first of the tests that fails, run in a process that is forked from this one, whose libraries are there."""
    noted = folder.parent / "failed"
    noted.unlink(missing_ok=True)
    child = os.fork()
    if not child:
        os.setsid()
        os.chdir(folder)
        silence = os.open(os.devnull, os.O_RDWR)
        for descriptor in range(3):
            os.dup2(silence, descriptor)
        sys.path.insert(0, str(folder))
        import pytest

        quick = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", "--timeout", "60"]
        os._exit(int(pytest.main([*arguments, *quick], plugins=[_FirstFailure(noted)])))
    end = time.monotonic() + patience
    while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0) and time.monotonic() < end:
        time.sleep(0.02)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    if ended == (0, 0):
        os.waitpid(child, 0)
        return TOO_LONG
    if noted.exists():
        return noted.read_text() or TOO_LONG
    return None if os.waitstatus_to_exitcode(ended[1]) == 0 else TOO_LONG


class Trial:
    """A copy of the tree, and the tests that fail in it without any fault, which say nothing."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.sound: dict[str, bool] = {}

    def survives(self, fault: Fault, arguments: list[str], patience: float = PATIENCE) -> bool:
        while (killer := self._killer(fault, arguments, patience)) is not None:
            if killer == TOO_LONG or self._is_sound(killer, patience):
                return False
            arguments = [*arguments, "--deselect", killer]
        return True

    def _killer(self, fault: Fault, arguments: list[str], patience: float) -> str | None:
        target = self.folder / fault.path
        target.write_text(fault.source)
        try:
            return failing(self.folder, arguments, patience)
        finally:
            shutil.copy2(ROOT / fault.path, target)

    def _is_sound(self, test: str, patience: float) -> bool:
        if test not in self.sound:
            self.sound[test] = failing(self.folder, [test], patience) is None
            if not self.sound[test]:
                print(f"     {test} fails without a fault, and is left out", flush=True)
        return self.sound[test]


def slow_tests(fault: Fault) -> list[str]:
    """The test files that mirror the fault's module."""
    stem = Path(fault.path).stem.removeprefix("_")
    found = [
        path
        for path in sorted((ROOT / "tests").rglob("test_*.py"))
        if path.stem in (f"test_{stem}", f"test_{Path(fault.path).parent.name}")
    ]
    return [str(path.relative_to(ROOT)) for path in found]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=70, help="Faults to draw.")
    parser.add_argument("--rooms", nargs="+", default=list(ROOMS), choices=ROOMS)
    parser.add_argument("--slow", action="store_true", help="Try what the fast tests let pass on the module's slow tests.")
    parser.add_argument("--last", action="store_true", help="Use the last record, although files have changed since.")
    asked = parser.parse_args()
    sys.dont_write_bytecode = True
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    tests = Tests(recorded("not slow and not matrix", last=asked.last))
    sys.path[:] = [entry for entry in sys.path if entry not in ("", str(ROOT))]
    for library in LIBRARIES:
        with contextlib.suppress(ImportError):
            __import__(library)
    ends: dict[str, Counter[str]] = {room: Counter() for room in asked.rooms}
    left: list[str] = []
    with copied() as folder:
        trial = Trial(folder)
        for number, fault in enumerate(drawn(asked.rooms, asked.count, asked.seed), start=1):
            began, nodes = time.monotonic(), tests.of(fault)
            end = "not covered" if not nodes else "survived" if trial.survives(fault, nodes) else "killed"
            if end != "killed" and asked.slow and (files := slow_tests(fault)):
                slowly = [*files, "-m", "not matrix", "--timeout", "300"]
                end = end if trial.survives(fault, slowly, 10 * PATIENCE) else "killed slowly"
            ends[fault.room][end] += 1
            if not end.startswith("killed"):
                left.append(f"[{end}, {len(nodes)} tests] {fault.diff()}")
            print(
                f"{number:4} {end:<13} {time.monotonic() - began:6.1f} s  {fault.path}:{fault.line}: {fault.what}", flush=True
            )
    print("\n" + "\n\n".join(left))
    columns = ("killed", "killed slowly", "survived", "not covered")
    print(f"\nseed {asked.seed}\n{'room':<12}" + "".join(f"{column:>15}" for column in columns))
    for room, counts in [*ends.items(), ("all", sum(ends.values(), Counter()))]:
        print(f"{room:<12}" + "".join(f"{counts[column]:>15}" for column in columns))
    return 0


if __name__ == "__main__":
    sys.exit(main())
