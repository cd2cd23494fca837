"""What a stage cost, in dollars: a table of public list prices, and the price of this machine where one is set.

An estimate to compare with, not a bill: containers also cost while they start, wait for more work and wind down, and
Modal charges for the CPU and memory that are used where that is more than was asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date
from itertools import pairwise
from typing import NamedTuple

from infra.settings import StenoSettings

# From the table as known to its author, then held against what others noted when they read the page: all of A10, L40S,
# A100-80GB, H100 and a core on the day below, T4 and L4 in May 2026. Nobody confirmed A100-40GB, H200, B200 and memory.
AS_OF = date(2026, 10, 4)
SOURCE = "Modal's public list prices (modal.com/pricing), serverless, preemptible, without what a plan adds"

GPU_SECOND: Mapping[str, float] = {
    "T4": 0.000164,
    "L4": 0.000222,
    "A10": 0.000306,
    "L40S": 0.000542,
    "A100-40GB": 0.000583,
    "A100-80GB": 0.000694,
    "H100": 0.001097,
    "H200": 0.001261,
    "B200": 0.001736,
}
"""Dollars per second of one GPU."""
CORE_SECOND = 0.0000131
"""Dollars per second of one physical core (two virtual ones)."""
GIB_SECOND = 0.00000222
"""Dollars per second of a GiB of memory."""

WIDE_REGION, NARROW_REGION = 1.5, 1.75
"""What Modal multiplies all prices by where regions are chosen: wide ones (`eu`), or ones within those (`eu-west`)."""

_ALIASES = {"A10G": "A10", "A100": "A100-40GB", "A100-80": "A100-80GB", "A100-40": "A100-40GB"}


class Rented(NamedTuple):
    """A container's machine."""

    gpu: str = ""
    """As Modal writes it: `L4`, `H100!`, `A100-80GB:2`; empty for none."""
    cores: float = 0.0
    memory: float = 0.0
    """GiB."""
    factor: float = 1.0
    """What its prices are multiplied by; see `region_factor`."""


def gpu_second(gpu: str) -> float | None:
    """Dollars per second of `gpu`, of several with `:n`; 0 for none, None when the table lacks it."""
    name, _, count = gpu.strip().upper().partition(":")
    name = name.rstrip("!")
    price = GPU_SECOND.get(_ALIASES.get(name, name)) if name else 0.0
    return None if price is None or not (count or "1").isdigit() else price * int(count or 1)


def rented_cost(seconds: float, machine: Rented) -> float | None:
    """Dollars for `seconds` of a container; None when nothing is known of the machine, or its GPU is not in the table."""
    gpu = gpu_second(machine.gpu)
    if gpu is None or machine[:3] == Rented()[:3]:
        return None
    return seconds * machine.factor * (gpu + machine.cores * CORE_SECOND + machine.memory * GIB_SECOND)


def region_factor(regions: Iterable[str]) -> float:
    """What containers that may run in these regions alone cost more, times the list price; of several, the dearest counts."""
    return max((NARROW_REGION if "-" in region else WIDE_REGION for region in regions), default=1.0)


def own_cost(seconds: float, settings: StenoSettings) -> float:
    """Dollars for `seconds` of the machine that runs the flow."""
    return seconds * settings.prices.machine_hour / 3600


def shared_seconds(spans: Mapping[str, tuple[float, float]]) -> dict[str, float]:
    """How many seconds of one machine each stage took, by name, when `spans` say from when to when each was at work.

    Where several were, each took its part of that time, so that all together add up to the time the machine was in use.
    """
    edges = sorted({edge for span in spans.values() for edge in span})
    shares = dict.fromkeys(spans, 0.0)
    for start, end in pairwise(edges):
        at_work = [name for name, (began, ended) in spans.items() if began <= start and end <= ended]
        for name in at_work:
            shares[name] += (end - start) / len(at_work)
    return shares


def total_cost(costs: Iterable[float | None]) -> float | None:
    """Their sum; None as soon as one of them is not known."""
    total = 0.0
    for cost in costs:
        if cost is None:
            return None
        total += cost
    return total


def dollars(cost: float | None) -> str:
    """`$0.0123`, `$1.20`, `$0` or `unknown`."""
    if cost is None:
        return "unknown"
    if cost == 0:
        return "$0"
    if cost < 0.0001:
        return "under $0.0001"
    return f"${cost:.2f}" if cost >= 1 else f"${cost:.4f}"
