"""What `steno doctor` finds, and the steps that help."""

from __future__ import annotations

from typing import Literal, NamedTuple

Verdict = Literal["ok", "warn", "missing"]

INSTALL_CPU = 'pip install "stenoflow[cpu]"'
INSTALL_GPU = 'pip install "stenoflow[gpu]"'
FETCH_WEIGHTS = "steno models fetch"


class Check(NamedTuple):
    """One line of the report."""

    verdict: Verdict
    subject: str
    finding: str
    fix: str = ""
    """The command or step that helps; empty when nothing is wrong."""
