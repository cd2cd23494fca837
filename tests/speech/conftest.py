from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from speech.audio import Recording, normalise
from speech.schema import AudioInfo


@pytest.fixture
def normalised(tmp_path: Path) -> Callable[..., tuple[AudioInfo, Recording]]:
    """Normalise a file, and open what came out."""

    def run(source: Path, **options: object) -> tuple[AudioInfo, Recording]:
        target = tmp_path / "normalised.flac"
        settings: dict[str, object] = {"max_duration": 3600.0, **options}
        info = normalise(source, target, **settings)  # type: ignore[arg-type]
        return info, Recording(target)

    return run
