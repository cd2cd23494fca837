"""Model files that are made here are trusted only as long as they are what they were."""

from __future__ import annotations

from pathlib import Path

import pytest

from speech.weights import is_as_made, made_once
from stenoflow.errors import ModelUnavailable
from tests.damage import WAYS

SUFFIXES = (".onnx", ".npz")


class Converter:
    """Makes two files, as converting a network does, and counts how often."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "onnx" / "network-1.0-v1.onnx"
        self.times = 0
        self.failure: Exception | None = None

    def ask(self) -> None:
        made_once(self.path, SUFFIXES, self.folder, self._make)

    def _make(self) -> None:
        self.times += 1
        if self.failure is not None:
            raise self.failure
        for suffix in SUFFIXES:
            self.path.with_suffix(suffix).write_bytes(suffix.encode() * 500)


@pytest.fixture
def converter(tmp_path: Path) -> Converter:
    made = Converter(tmp_path)
    made.ask()
    return made


def test_what_is_as_it_was_made_is_not_made_again(converter: Converter) -> None:
    converter.ask()
    assert converter.times == 1


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("suffix", [*SUFFIXES, ".sha256.json"])
def test_what_is_damaged_is_made_again(converter: Converter, suffix: str, way: str) -> None:
    file = converter.path.with_suffix(suffix)
    file.write_bytes(WAYS[way](file.read_bytes(), b"another file"))
    assert not is_as_made(converter.path, SUFFIXES, converter.folder)
    converter.ask()
    assert converter.times == 2
    assert is_as_made(converter.path, SUFFIXES, converter.folder)


def test_what_an_earlier_version_made_has_no_hash_and_is_made_again_where_that_is_possible(converter: Converter) -> None:
    converter.path.with_suffix(".sha256.json").unlink()
    converter.failure = ModelUnavailable("weights that are gone")
    converter.ask()
    converter.failure = None
    converter.ask()
    assert converter.times == 3
    assert is_as_made(converter.path, SUFFIXES, converter.folder)


def test_what_is_damaged_and_cannot_be_made_again_is_not_used(converter: Converter) -> None:
    converter.path.write_bytes(b"damaged")
    converter.failure = ModelUnavailable("weights that are gone")
    with pytest.raises(ModelUnavailable):
        converter.ask()
