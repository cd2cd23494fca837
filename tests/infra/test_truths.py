"""Where the truth about a recording is looked for: beside it, in a folder or a bucket, or where a manifest says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from infra.listing import Item, Left, entries
from infra.settings import S3Settings, StenoSettings
from infra.truths import truth_files
from stenoflow.errors import SourceForbidden, SourceNotFound
from tests.infra.conftest import make_settings, s3_client

SUFFIXES = (".json", ".stm", ".rttm")


def item(source: str, **options: Any) -> Item:
    return Item(source=source, name=source.rpartition("/")[2], origin=source, options=options)


def test_files_of_the_same_name_beside_a_recording_are_its_truth(tmp_path: Path) -> None:
    for name in ("a.wav", "a.stm", "a.rttm", "b.stm", "a.docx"):
        (tmp_path / name).write_text(name)
    (tmp_path / "a.json").write_text("")
    found = truth_files(item(str(tmp_path / "a.wav")), str(tmp_path), StenoSettings(), SUFFIXES)
    assert found == {"a.stm": b"a.stm", "a.rttm": b"a.rttm", "a.json": b""}
    assert truth_files(item(str(tmp_path / "c.wav")), str(tmp_path), StenoSettings(), SUFFIXES) == {}


def test_a_bucket_holds_recordings_and_truth_alike(tmp_path: Path, s3: S3Settings, bucket: str, moto_endpoint: str) -> None:
    client = s3_client(moto_endpoint)
    for name in ("calls/a.wav", "calls/a.stm", "calls/b.wav", "truth/b.rttm"):
        client.put_object(Bucket=bucket, Key=name, Body=name.encode())
    manifest = f"source,reference\ncalls/b.wav,truth/b.rttm\ns3://{bucket}/calls/a.wav,\n"
    client.put_object(Bucket=bucket, Key="set.csv", Body=manifest.encode())
    settings = make_settings(tmp_path, s3=s3)
    found = {}
    for listed_in in (f"s3://{bucket}/calls", f"s3://{bucket}/set.csv"):
        for entry in entries(listed_in, settings):
            if isinstance(entry, Left):
                assert entry.name == "a.stm"
                continue
            assert isinstance(entry, Item)
            found[listed_in.rpartition("/")[2], entry.name] = truth_files(entry, listed_in, settings, SUFFIXES)
    assert found == {
        ("calls", "a.wav"): {"a.stm": b"calls/a.stm"},
        ("calls", "b.wav"): {},
        ("set.csv", "b.wav"): {"b.rttm": b"truth/b.rttm"},
        ("set.csv", "a.wav"): {"a.stm": b"calls/a.stm"},
    }


def test_a_manifest_names_truth_relative_to_itself(tmp_path: Path) -> None:
    (tmp_path / "truth").mkdir()
    (tmp_path / "truth" / "all.stm").write_text("said")
    listed_in = str(tmp_path / "set.csv")
    found = truth_files(item("https://example.org/a.mp3", reference="truth/all.stm"), listed_in, StenoSettings(), SUFFIXES)
    assert found == {"all.stm": b"said"}
    with pytest.raises(SourceNotFound):
        truth_files(item("a.wav", reference="truth/all.stm; gone.rttm"), listed_in, StenoSettings(), SUFFIXES)


@pytest.mark.parametrize("reference", ["/etc/passwd", "file:///etc/passwd", "~/secret.stm"])
def test_a_manifest_from_elsewhere_names_no_file_of_this_machine(reference: str) -> None:
    with pytest.raises(SourceForbidden):
        truth_files(item("s3://b/a.wav", reference=reference), "https://example.org/set.csv", StenoSettings(), SUFFIXES)
