"""The truth about pyannote's sample recording, as its package carries it: turns (.rttm) and text (.stm)."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple


class TrueTurn(NamedTuple):
    start: float
    end: float
    speaker: str


def turns() -> list[TrueTurn]:
    lines = [line.split() for line in _file("sample.rttm").read_text().splitlines() if line.strip()]
    return [TrueTurn(float(line[3]), float(line[3]) + float(line[4]), line[7]) for line in lines]


def words() -> list[str]:
    lines = [line.split(maxsplit=5) for line in _file("sample.stm").read_text().splitlines() if line.strip()]
    return normal(" ".join(line[5] for line in lines))


def normal(text: str) -> list[str]:
    """Words as they are compared: case folded, split at punctuation and apostrophes."""
    return re.findall(r"\w+", text.casefold())


def _file(name: str) -> Path:
    spec = find_spec("pyannote")
    assert spec is not None and spec.submodule_search_locations is not None
    return Path(next(iter(spec.submodule_search_locations)), "audio/sample", name)
