"""Volumes, dicts, queues and secrets, from a client and from inside a container."""

from __future__ import annotations

import io
from pathlib import Path

import modal
import pytest
from modal.exception import AlreadyExistsError, NotFoundError

from .client import ModalServer

pytestmark = pytest.mark.slow

BIG = bytes(range(256)) * 40_000  # above 8 MiB: two blocks, and more than goes in one message


def files(action: str, name: str, text: str = "") -> object:
    return modal.Function.from_name("sample", "files").remote(action, name, text)


@pytest.mark.parametrize("version", [1, 2])
def test_files_go_up_and_come_down(server: ModalServer, version: int, tmp_path: Path) -> None:
    volume = modal.Volume.from_name(f"up-and-down-{version}", create_if_missing=True, version=version)
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "small").write_text("small")
    with volume.batch_upload() as batch:
        batch.put_file(io.BytesIO(BIG), "/big.bin")
        batch.put_directory(tmp_path, "/folder")
    assert b"".join(volume.read_file("big.bin")) == BIG
    assert sorted(entry.path for entry in volume.listdir("/", recursive=True)) == [
        "big.bin",
        "folder",
        "folder/sub",
        "folder/sub/small",
    ]
    with pytest.raises(FileExistsError), volume.batch_upload() as batch:
        batch.put_file(io.BytesIO(b"again"), "/big.bin")
    volume.copy_files(["folder/sub/small"], "copied")
    volume.remove_file("folder", recursive=True)
    assert sorted(entry.path for entry in volume.listdir("/")) == ["big.bin", "copied"]
    with pytest.raises(FileNotFoundError):
        list(volume.read_file("nothing"))


def test_a_containers_changes_are_its_own_until_it_commits(server: ModalServer) -> None:
    volume = modal.Volume.from_name("sample-files")
    assert files("write", "mine/one", "one") is True
    with pytest.raises(NotFoundError):
        volume.listdir("mine")
    assert files("commit", "mine/one") is True
    assert b"".join(volume.read_file("mine/one")) == b"one"
    files("delete", "mine/one")
    files("commit", "mine/one")
    with pytest.raises(FileNotFoundError):
        list(volume.read_file("mine/one"))


def test_others_changes_come_with_a_reload(server: ModalServer) -> None:
    files("list", "")
    with modal.Volume.from_name("sample-files").batch_upload(force=True) as batch:
        batch.put_file(io.BytesIO(b"from outside"), "/news")
    with pytest.raises(FileNotFoundError):
        files("read", "news")
    assert files("reload", "news") is True
    assert files("read", "news") == "from outside"
    with pytest.raises(RuntimeError, match="open files"):
        files("reload with it open", "news")


def test_what_was_not_committed_is_when_the_container_ends_well(server: ModalServer) -> None:
    files("write", "late", "late")
    server.scale_to_zero()
    assert b"".join(modal.Volume.from_name("sample-files").read_file("late")) == b"late"


def test_what_was_not_committed_is_lost_with_a_killed_container(server: ModalServer) -> None:
    files("write", "lost", "lost")
    server.kill(server.calls[-1]["container"])
    assert "lost" not in files("list", "")  # type: ignore[operator]


def test_a_read_only_volume_cannot_be_written(server: ModalServer) -> None:
    assert modal.Function.from_name("sample", "only_reads").remote() == "OSError30"


def test_a_seeded_volume_has_the_files(server: ModalServer, tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(BIG)
    assert server.seed("weights", tmp_path, "/base") == 1
    assert server.volume("weights")["files"] == ["base/model.bin"]
    assert (Path(server.volume("weights")["folder"]) / "base/model.bin").stat().st_nlink >= 2, "linked, not copied"
    assert b"".join(modal.Volume.from_name("weights").read_file("base/model.bin")) == BIG


def test_a_dict(server: ModalServer) -> None:
    kept = modal.Dict.from_name("kept", create_if_missing=True)
    kept["a"] = {"b": 1}
    assert kept.put("a", 2, skip_if_exists=True) is False
    assert (kept["a"], kept.get("c"), "a" in kept, kept.len()) == ({"b": 1}, None, True, 1)
    assert dict(kept.items()) == {"a": {"b": 1}}
    assert kept.pop("a") == {"b": 1}
    with modal.Dict.ephemeral() as passing:
        passing.update(x=1)
        assert passing["x"] == 1
    with pytest.raises(NotFoundError):
        modal.Dict.from_name("never-made").len()


def test_a_queue(server: ModalServer) -> None:
    with modal.Queue.ephemeral() as queue:
        queue.put_many([1, 2, 3])
        assert queue.len() == 3
        assert queue.get() == 1
        assert queue.get_many(5) == [2, 3]
        assert queue.get(block=False) is None


def test_secrets(server: ModalServer) -> None:
    modal.Secret.objects.create("made", {"KEY": "value"})
    assert [each.name for each in modal.Secret.objects.list()] == ["made", "sample-secret"]
    with pytest.raises(AlreadyExistsError):
        modal.Secret.objects.create("made", {"KEY": "other"})
    modal.Secret.objects.delete("made")
    with pytest.raises(NotFoundError):
        modal.Secret.from_name("made").hydrate()
    with pytest.raises(NotFoundError, match="OTHER"):
        modal.Secret.from_name("sample-secret", required_keys=["OTHER"]).hydrate()
