from __future__ import annotations

from tests.stage_double import double

__all__ = ["double"]
