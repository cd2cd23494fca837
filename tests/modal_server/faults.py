"""Fault switches: what is armed, for which function, how often it still acts. See the package's docstring for what each does."""

from __future__ import annotations

import fnmatch
import itertools
import time
from dataclasses import asdict, dataclass, field
from typing import Any

from .state import Input

AT_CALL = {"refuse", "lose"}
AT_DELIVERY = {"delay", "fail", "boot"}
DURING = {"kill", "preempt", "timeout", "oom", "disconnect"}
AT_END = {"expire"}
KINDS = AT_CALL | AT_DELIVERY | DURING | AT_END
_numbers = itertools.count(1)


@dataclass
class Fault:
    kind: str
    function: str = "*"
    """`asr`, `Speech.asr`, or a pattern; a method also matches by its own name"""
    count: int = 1
    after: float = 0.2
    """seconds into the input at which a fault during it strikes"""
    seconds: float = 1.0
    """how long a delay is, or for how long a server stays away that a client lost"""
    status: str = "RESOURCE_EXHAUSTED"
    message: str = ""
    rpc: str = "FunctionMap"
    """which request is refused, or loses its reply"""
    retry_after: float = 0.0
    """seconds after which the refusing server tells the client to try again; 0: it does not say"""
    final: bool = False
    """oom: the input fails, rather than being run again"""
    number: int = field(default_factory=lambda: next(_numbers))
    hits: list[dict[str, Any]] = field(default_factory=list)


class Faults:
    def __init__(self) -> None:
        self.armed: list[Fault] = []
        self.last = 0

    def arm(self, **options: Any) -> int:
        fault = Fault(**options)
        if fault.kind not in KINDS:
            raise ValueError(f"there is no fault {fault.kind!r}: {', '.join(sorted(KINDS))}")
        self.armed.append(fault)
        return fault.number

    def clear(self) -> None:
        self.armed.clear()

    def listed(self) -> list[dict[str, Any]]:
        return [asdict(fault) for fault in self.armed]

    def take(self, kinds: set[str], tag: str, item: Input | None = None, rpc: str = "") -> Fault | None:
        """The first armed fault that applies, one hit less."""
        for fault in self.armed:
            if len(fault.hits) >= fault.count or fault.kind not in kinds or not matches(fault.function, tag):
                continue
            if fault.kind in AT_CALL and fault.rpc != rpc:
                continue
            fault.hits.append({"at": time.time(), "function": tag, "call": item.call.id if item else "", "rpc": rpc})
            return fault
        return None


def matches(pattern: str, tag: str) -> bool:
    return fnmatch.fnmatchcase(tag, pattern) or fnmatch.fnmatchcase(tag.rpartition(".")[2], pattern)
