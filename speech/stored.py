"""What an earlier stage wrote, read back: damage is distinguished from a bug, and fields that a later version added are left out."""

from __future__ import annotations

import contextlib
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel

from stenoflow.errors import UnreadableArtifact

Model = TypeVar("Model", bound=BaseModel)

_UNREADABLE = (OSError, ValueError, TypeError, LookupError, EOFError, zipfile.BadZipFile, zlib.error, RuntimeError)
"""What numpy, libsndfile and pydantic raise for a file that is not what it should be, or is gone."""


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Raise UnreadableArtifact for whatever goes wrong while the artifact at `path` is read."""
    try:
        yield
    except MemoryError:
        raise
    except _UNREADABLE as error:
        raise UnreadableArtifact(path) from error


def read_json(model: type[Model], path: Path) -> Model:
    """The artifact as the stage wrote it. Raises UnreadableArtifact."""
    with reading(path):
        return parsed(model, path.read_bytes())


def parsed(model: type[Model], content: bytes) -> Model:
    """What is stored as JSON, without the fields that this version does not know. Raises ValueError.

    Models refuse unknown fields, which finds misspelt options and callers' mistakes; of what is stored, an unknown field only says
    that a later version wrote it.
    """
    return model.model_validate_json(content, extra="ignore")
