"""Checkpoints are read as PyTorch reads them, and nothing that they name is imported or run."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from speech.checkpoints import Inert, read_checkpoint
from stenoflow.errors import ChecksumMismatch
from tests.damage import WAYS


def saved(folder: Path, value: Any) -> Path:
    path = folder / "pytorch_model.bin"
    torch.save(value, path)
    return path


def equal(found: Any, expected: Any) -> bool:
    if isinstance(expected, torch.Tensor):
        return str(found.dtype) == str(expected.dtype).removeprefix("torch.") and np.array_equal(found, expected.numpy())
    if isinstance(expected, dict):
        return list(found) == list(expected) and all(equal(found[key], expected[key]) for key in expected)
    return bool(found == expected)


def test_tensors_of_every_kind_and_layout_are_what_pytorch_saved(tmp_path: Path) -> None:
    whole = torch.arange(60, dtype=torch.float32).reshape(3, 4, 5)
    kinds = (torch.float64, torch.float16, torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool)
    value = {
        "state_dict": OrderedDict(
            whole=whole,
            transposed=whole.permute(2, 0, 1),
            part=whole[1:, ::2, 3],
            same=whole[0, 0].expand(7, 5),
            scalar=torch.tensor(3),
            empty=torch.zeros(0, 4),
            **{str(kind): torch.tensor([0, 1, 3]).to(kind) for kind in kinds},
        ),
        "epoch": 7,
        "names": ["a", ("b", None)],
    }
    assert equal(read_checkpoint(saved(tmp_path, value)), value)


def test_a_networks_state_is_what_pytorch_loads(tmp_path: Path) -> None:
    network = torch.nn.Sequential(torch.nn.LSTM(3, 4, bidirectional=True), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 2))
    assert equal(read_checkpoint(saved(tmp_path, network.state_dict())), dict(network.state_dict()))


def test_objects_of_pyannotes_are_read_and_their_classes_not_imported(tmp_path: Path) -> None:
    task = pytest.importorskip("pyannote.audio.core.task")
    held = task.Specifications(
        problem=task.Problem.MONO_LABEL_CLASSIFICATION,
        resolution=task.Resolution.FRAME,
        duration=10.0,
        classes=["a", "b"],
        powerset_max_classes=2,
    )
    found = read_checkpoint(saved(tmp_path, {"specifications": held, "versions": {"torch": torch.__version__}}))
    assert isinstance(found["specifications"], Inert)
    assert found["specifications"].attributes["classes"] == ["a", "b"]
    assert found["specifications"].attributes["problem"].args == (held.problem.value,)
    assert found["versions"]["torch"].args == (str(torch.__version__),)


class Evil:
    def __init__(self, *call: Any) -> None:
        self.call = call

    def __reduce__(self) -> Any:
        return self.call[0], self.call[1:]


@pytest.mark.parametrize(
    ("call", "name"),
    [(open, "open"), (eval, "builtins.eval"), (getattr, "builtins.getattr"), (pickle.loads, "_pickle.loads")],
)
def test_a_checkpoint_that_would_run_something_is_refused_and_not_run(tmp_path: Path, call: Any, name: str) -> None:
    trace = tmp_path / "was-run"
    arguments: dict[str, tuple[Any, ...]] = {
        "open": (str(trace), "w"),
        "builtins.eval": (f"open({str(trace)!r}, 'w')",),
        "builtins.getattr": ("", "join"),
        "_pickle.loads": (b"",),
    }
    path = saved(tmp_path, {"state_dict": {}, "hyper_parameters": Evil(call, *arguments[name])})
    with pytest.raises(ChecksumMismatch, match=rf"would execute .*{name.rpartition('.')[2]} when"):
        read_checkpoint(path)
    assert not trace.exists()


def test_what_stands_for_a_class_cannot_be_changed_by_a_file(tmp_path: Path) -> None:
    """GLOBAL typing.Any, and BUILD with (None, {"__init__": 1}), which sets attributes of whatever it is given."""
    stream = b"\x80\x02ctyping\nAny\nN}X\x08\x00\x00\x00__init__K\x01s\x86b."
    with pytest.raises(ChecksumMismatch):
        read_checkpoint(_archive(tmp_path / "first.bin", stream))
    found = read_checkpoint(saved(tmp_path, {"version": torch.__version__}))
    assert found["version"].args == (str(torch.__version__),)


def _archive(path: Path, pickled: bytes, storage: bytes | None = None, compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", pickled)
        if storage is not None:
            archive.writestr("archive/data/0", storage)
    return path


def _tensor_pickle(count: int, offset: int, size: tuple[int, ...], stride: tuple[int, ...]) -> bytes:
    """The pickle of one float tensor, as torch.save writes it."""

    class Storage:
        pass

    class Tensor:
        def __reduce__(self) -> Any:
            return torch._utils._rebuild_tensor_v2, (Storage(), offset, size, stride, False, OrderedDict())

    class Pickler(pickle.Pickler):
        def persistent_id(self, obj: Any) -> Any:
            return ("storage", torch.FloatStorage, "0", "cpu", count) if isinstance(obj, Storage) else None

    out = io.BytesIO()
    Pickler(out, 2).dump(Tensor())
    return out.getvalue()


FOUR = np.arange(4, dtype="<f4").tobytes()


def test_a_tensor_within_its_storage_is_read(tmp_path: Path) -> None:
    found = read_checkpoint(_archive(tmp_path / "one.bin", _tensor_pickle(4, 1, (3,), (1,)), FOUR))
    assert found.tolist() == [1.0, 2.0, 3.0]


@pytest.mark.parametrize(
    ("count", "offset", "size", "stride"),
    [
        (4, 2, (3,), (1,)),
        (4, 0, (2, 2), (3, 1)),
        (4, -1, (2,), (1,)),
        (4, 3, (2,), (-1,)),
        (4, 0, (-2,), (1,)),
        (5, 0, (1,), (1,)),
    ],
)
def test_a_tensor_that_reaches_beyond_its_storage_is_damage(
    tmp_path: Path, count: int, offset: int, size: tuple[int, ...], stride: tuple[int, ...]
) -> None:
    with pytest.raises(ChecksumMismatch, match="damaged"):
        read_checkpoint(_archive(tmp_path / "one.bin", _tensor_pickle(count, offset, size, stride), FOUR))


def test_a_storage_that_would_unpack_to_more_than_the_file_is_refused(tmp_path: Path) -> None:
    path = _archive(tmp_path / "bomb.bin", _tensor_pickle(4, 0, (4,), (1,)), FOUR, zipfile.ZIP_DEFLATED)
    with pytest.raises(ChecksumMismatch, match="damaged"):
        read_checkpoint(path)


@pytest.mark.parametrize("way", WAYS)
def test_damage_is_said_in_a_sentence(tmp_path: Path, way: str) -> None:
    path = saved(tmp_path, {"state_dict": {"weight": torch.arange(1000)}})
    path.write_bytes(WAYS[way](path.read_bytes(), b"another file"))
    with pytest.raises(ChecksumMismatch, match=r"weights pytorch_model\.bin are damaged; delete"):
        read_checkpoint(path)


def test_a_file_that_is_not_there_is_not_called_damaged(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_checkpoint(tmp_path / "none.bin")
