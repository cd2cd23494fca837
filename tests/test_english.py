"""Phrases that read as translated stay out of docstrings, messages, help and guides."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("api", "bench", "deployments", "examples", "flows", "infra", "speech", "stenoflow", "tasks")

PHRASES = {
    r"\b(can|cannot|may|could|might|would) (not )?be had\b|\bto be had\b": "available, not available",
    r"\b(some|any|no)body's\b": "another owner's, unused, the caller's",
    r"\b(is|are|was|were|be|been|being|who is|unless|when|where) told\b|\btold (when|whom|of|to)\b": "notify, report, receive",
    r"\bbur(y|ied|ies)\b|\bpardon(s|ed)?\b|\bmourn": "mark for deletion, delete, clear",
    r"\bwants? to be (told|asked|heard)\b": "subscribes, has a webhook",
    r"\bis given up\b|\bwas given up\b": "stopped, released, exhausted its attempts",
    r"\bset aside\b|\bput aside\b": "quarantined, rotated",
    r"\bwhen left out\b": "by default",
    r"(?<!there )\bis no (sound|such|[a-z]+ address|duration|host|origin)\b": "is not a …",
    r"\bno sign of life\b": "no heartbeat",
    r"\bput up with\b|\bsee(s|n)? to what\b": "allow, fix",
    r"\bis at no such place\b|\bleads? (nowhere|where nobody)\b": "broken, not allowed",
    r"\bwhat comes? of (it|each|them)\b": "the result",
    r"\bas \w+ (has|have) it[.,;:]": "as in …",
}
"""What is not written → what is, instead."""

KEPT = {"stenoflow: no sign of life"}
"""The name of an automation on deployed servers."""


@functools.cache
def texts() -> tuple[tuple[str, str], ...]:
    """Place and text of all that is read: string literals (docstrings, messages, help) of the rooms, and the guides."""
    return tuple(_texts())


def _texts() -> Iterator[tuple[str, str]]:
    for room in ROOMS:
        for path in sorted((ROOT / room).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value not in KEPT:
                    yield f"{path.relative_to(ROOT)}:{node.lineno}", node.value
    for path in sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]):
        for number, line in enumerate(path.read_text().splitlines(), 1):
            yield f"{path.relative_to(ROOT)}:{number}", line.replace("*no sign of life*", "")


def found(pattern: str) -> list[str]:
    compiled = re.compile(pattern, re.IGNORECASE)
    places = []
    for place, text in texts():
        places += [f"{place}: {text[max(0, hit.start() - 40) : hit.end() + 40]!r}" for hit in compiled.finditer(text)]
    return places


@pytest.mark.parametrize("pattern", PHRASES)
def test_no_phrase_reads_as_translated(pattern: str) -> None:
    places = found(pattern)
    assert not places, f"write instead: {PHRASES[pattern]}\n" + "\n".join(places)


@pytest.mark.parametrize(
    "sentence",
    [
        "The model cannot be had.",
        "An error is nobody's until somebody asks.",
        "The caller is told to come back.",
        "Where the job is to be had.",
        "Detected when left out.",
        "The address is no loopback address.",
    ],
)
def test_the_phrases_are_noticed(sentence: str) -> None:
    assert any(re.search(pattern, sentence, re.IGNORECASE) for pattern in PHRASES)
