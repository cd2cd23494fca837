"""What is kept is checked when it is read: artifacts of every kind, on a folder and on an object store, and records."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from infra import integrity
from infra.artifacts import SUFFIXES, ArtifactRef, Kind
from infra.integrity import DAMAGED
from infra.settings import S3Settings
from infra.store import Store
from speech.stored import parsed, reading
from stenoflow.errors import ArtifactMissing
from stenoflow.types import Frozen
from tests.damage import WAYS, flac


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "folder":
        return Store(str(tmp_path / "store"), tmp_path / "scratch")
    bucket, s3 = request.getfixturevalue("bucket"), request.getfixturevalue("s3")
    return Store(f"s3://{bucket}/store", tmp_path / "scratch", s3)


def put(store: Store, folder: Path, kind: Kind, seed: int = 0) -> tuple[ArtifactRef, Path]:
    """An artifact, and the file that it was made from."""
    if kind == "audio":
        path, digest = flac(folder / f"{seed}.flac", seed=seed)
        return store.put(path, kind, sha256=digest), path
    path = folder / f"{seed}{SUFFIXES[kind]}"
    path.write_bytes(b'{"text": "what was said, %d"}' % seed * 40)
    return store.put(path, kind), path


def damage(store: Store, ref: ArtifactRef, other: ArtifactRef, way: str) -> None:
    whole, another = (store.storage.read(one.path) for one in (ref, other))
    store.storage.write(ref.path, WAYS[way](whole, another))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", SUFFIXES)
def test_a_damaged_artifact_is_removed_when_it_is_read_and_put_again(
    store: Store, tmp_path: Path, kind: Kind, way: str
) -> None:
    (ref, source), (other, _) = put(store, tmp_path, kind), put(store, tmp_path, kind, 1)
    damage(store, ref, other, way)
    with pytest.raises(ArtifactMissing, match="run again"), store.local(ref):
        pytest.fail("a damaged artifact was handed out")
    assert not store.exists(ref.path)
    assert store.put(source, kind, sha256=ref.sha256 if kind == "audio" else None) == ref
    with store.local(ref) as path:
        assert path.read_bytes() == source.read_bytes()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", ["audio", "asr"])
def test_putting_an_artifact_mends_a_damaged_one(store: Store, tmp_path: Path, kind: Kind, way: str) -> None:
    (ref, source), (other, _) = put(store, tmp_path, kind), put(store, tmp_path, kind, 1)
    damage(store, ref, other, way)
    assert store.put(source, kind, sha256=ref.sha256 if kind == "audio" else None) == ref
    with store.local(ref) as path:
        assert path.read_bytes() == source.read_bytes()


def test_audio_of_an_earlier_version_whose_files_hash_is_not_known_is_told_by_its_samples(store: Store, tmp_path: Path) -> None:
    (ref, _), (other, _) = put(store, tmp_path, "audio"), put(store, tmp_path, "audio", 1)
    ref = ref.model_copy(update={"meta": {}})
    with store.local(ref) as path:
        assert path.stat().st_size == ref.bytes
    damage(store, ref, other, "flipped")
    with pytest.raises(ArtifactMissing), store.local(ref):
        pass


def test_an_input_that_cannot_be_read_is_damage(store: Store, tmp_path: Path) -> None:
    """Its bytes are what they were, but nothing that this version can read; or it vanished under the stage."""
    ref, _ = put(store, tmp_path, "segmentation")
    with pytest.raises(ArtifactMissing, match="run again"), store.local(ref) as path, reading(path):
        raise ValueError("not an archive")
    assert not store.exists(ref.path)


def test_a_file_is_hashed_once_as_long_as_it_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(str(tmp_path / "store"), tmp_path / "scratch")
    (ref, _), (other, _) = put(store, tmp_path, "audio"), put(store, tmp_path, "audio", 1)
    hashed: list[Path] = []
    real = integrity.file_sha256
    monkeypatch.setattr(integrity, "file_sha256", lambda path: (hashed.append(path), real(path))[1])
    for _ in range(5):
        with store.local(ref) as path:
            pass
    assert hashed == [path]
    before = path.stat()
    damage(store, ref, other, "flipped")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(ArtifactMissing), store.local(ref):
        pass


@pytest.mark.parametrize("path", ["../outside.json", "records/key", "artifacts/asr/../../outside.json"])
def test_a_record_that_points_elsewhere_leads_nowhere(tmp_path: Path, path: str) -> None:
    """Nothing outside the artifacts is read, nor removed for not being what it should be."""
    store = Store(str(tmp_path / "store"), tmp_path / "scratch")
    ref, _ = put(store, tmp_path, "asr")
    victim = Path(store.root, path).resolve()
    victim.parent.mkdir(parents=True, exist_ok=True)
    victim.write_text("mine")
    forged = ref.model_copy(update={"path": path, "bytes": 4})
    assert not store.holds(forged)
    with pytest.raises(ArtifactMissing), store.local(forged):
        pass
    assert victim.read_text() == "mine"


class Said(Frozen):
    language: str
    of: str


# -- records --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
def test_a_damaged_record_is_never_read_as_another(store: Store, way: str) -> None:
    for name in ("a", "b"):
        store.write_record(name, b'{"language": "en", "of": "%s"}' % name.encode())
    whole, other = (store.storage.read(f"records/{name}") for name in ("a", "b"))
    assert len(whole) == len(other)
    store.storage.write("records/a", WAYS[way](whole, other))
    try:
        found = parsed(Said, store.read_record("a") or b"")
    except ValueError:
        return
    assert (way, found) == ("truncated", Said(language="en", of="a")), "only the seal may have been cut off"


def test_one_changed_byte_of_a_record_is_noticed(store: Store) -> None:
    store.write_record("a", b'{"language": "en"}')
    whole = store.storage.read("records/a")
    store.storage.write("records/a", whole.replace(b'"en"', b'"eo"'))
    assert store.read_record("a") == DAMAGED + b'{"language": "eo"}'


def test_records_of_earlier_versions_and_of_plain_text_are_read_as_they_are(store: Store) -> None:
    store.write_record("text", b"s3://bucket/talk.wav")
    store.storage.write("records/old", b'{"language": "en"}')
    assert store.read_record("old") == b'{"language": "en"}'
    assert store.storage.read("records/text") == store.read_record("text") == b"s3://bucket/talk.wav"


def test_a_record_is_followed_by_blanks_alone_so_that_earlier_versions_read_it(store: Store, s3: S3Settings) -> None:
    store.write_record("a", b'{"language": "en"}')
    assert store.storage.read("records/a").strip() == b'{"language": "en"}'
