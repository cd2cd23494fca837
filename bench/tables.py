"""Tables as the benchmarks print them."""

from __future__ import annotations

from collections.abc import Sequence


def markdown(lines: Sequence[Sequence[str]]) -> str:
    """Rows of cells as Markdown; the second row is the rule under the heading."""
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
