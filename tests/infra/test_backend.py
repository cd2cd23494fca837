"""A further kind of storage is one file and one entry: then it is the store, where recordings are read and listed, and where files go."""

from __future__ import annotations

from typing import Any

import pytest

from tests.changed_tree import Change, changed_tree, seen_by

ENTRY = Change(
    "infra/storage/__init__.py", '    Kind(("memory",),', '    Kind(("attic",), "infra.storage.attic:Attic", "fsspec"),\n'
)
FILES = {
    "infra/storage/attic.py": """import os
from pathlib import Path

import fsspec
from fsspec.implementations.dirfs import DirFileSystem
from fsspec.implementations.local import LocalFileSystem

from infra.storage.folder import FileLocks
from infra.storage.remote import Remote


class Files(DirFileSystem):
    protocol = "attic"

    def __init__(self, **options):
        super().__init__(path=os.environ["ATTIC"], fs=LocalFileSystem(auto_mkdir=True), **options)


fsspec.register_implementation("attic", Files, clobber=True)


class Attic(Remote):
    def locks(self, lease):
        return FileLocks(Path(os.environ["ATTIC"], self.root, "locks"))
"""
}
LOOK = """
import json, os
from pathlib import Path

from infra import outputs
from infra.compute import get_store
from infra.jobs import StageJob
from infra.listing import entries
from infra.local import LocalCompute
from infra.settings import get_settings
from infra.sources import fetch_source
from infra.store import Store
from speech.schema import RuntimeOptions
from tests.stage_double import recording, stand_in
import asyncio

settings, attic = get_settings(), Path(os.environ["ATTIC"])
store = get_store()
recording(attic / "in" / "call.wav")
job = StageJob(stage="asr", key="0" * 64, inputs={}, params={}, runtime=RuntimeOptions())
text = stand_in(job)
merged = asyncio.run(LocalCompute(store).run(
    StageJob(stage="merge", key="1" * 64, params={}, runtime=RuntimeOptions(), inputs={
        "audio": store.put(recording(attic / "audio.flac"), "audio", meta={"duration": 4.0}), "asr": text.artifact}),
    lambda done: None,
))
store.write_record("0" * 64, text.model_dump_json().encode())
lock = store.locks.try_acquire("a")
other = Store(store.url, settings.scratch_path / "other").locks.try_acquire("a")
fetched = fetch_source("attic://in/call.wav", settings.scratch_path / "fetched", settings)
outputs.write("attic://out/call.txt", b"words", settings)
with store.local(merged.artifact) as path:
    merged_text = json.loads(path.read_text())["segments"][0]["text"]
kept = len(list((attic / "store").rglob("*.json")))
print(json.dumps({
    "store": store.url,
    "merged": merged_text,
    "kept": kept,
    "record": store.read_record("0" * 64) is not None,
    "locked": [lock is not None, other is not None],
    "listed": [entry.name for entry in entries("attic://in/*.wav", settings)],
    "source": fetched.path.read_bytes() == (attic / "in" / "call.wav").read_bytes(),
    "output": [(attic / "out" / "call.txt").read_text(), outputs.exists("attic://out/call.txt", settings)],
}))
"""


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Any:
    tree = changed_tree(tmp_path_factory.mktemp("changed"), [ENTRY], FILES)
    home, attic = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("attic")
    return seen_by(tree, LOOK, STENO_HOME=str(home), STENO_STORE="attic://store", ATTIC=str(attic))


def test_a_new_backend_is_the_store_with_its_locks(seen: Any) -> None:
    assert (seen["store"], seen["kept"], seen["record"]) == ("attic://store", 2, True)
    assert seen["merged"]
    assert seen["locked"] == [True, False]


def test_recordings_are_read_from_a_new_backend_and_listed(seen: Any) -> None:
    assert seen["source"] is True
    assert seen["listed"] == ["call.wav"]


def test_files_are_written_to_a_new_backend(seen: Any) -> None:
    assert seen["output"] == ["words", True]
