"""Corrections in the store: one record per transcript, gone with it, never overwritten by those of another."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from infra import edits, waveform
from infra.collect import Limits, collect
from infra.edits import EditLog, Entry
from infra.removal import remove_run
from infra.settings import StenoSettings
from infra.store import Store
from infra.usage import Use, write_use
from stenoflow.edits import NameSpeaker

ENTRY = Entry(at=datetime.now(UTC), by="anybody", operations=(NameSpeaker(speaker="SPEAKER_00", name="Anna"),))


def kept(store: Store, folder: Path, content: str, *runs: str) -> str:
    """The path of an artifact that these runs have used."""
    path = folder / "transcript"
    path.write_text(content)
    ref = store.put(path, "transcript")
    for run in runs:
        write_use(store, Use(run=run, artifacts=(ref.path,), beat=1.0, ended=True))
    return ref.path


def test_a_transcript_that_a_retry_replaced_keeps_its_corrections(steno: StenoSettings) -> None:
    store = Store.from_settings(steno)
    first, second = f"artifacts/transcript/aa/{'a' * 64}.json", f"artifacts/transcript/bb/{'b' * 64}.json"
    edits.write_log(store, "run", EditLog(transcript=first, entries=(ENTRY,)))
    assert edits.read_log(store, "run", second).entries == ()
    edits.write_log(store, "run", EditLog(transcript=second, entries=(ENTRY, ENTRY)))
    assert len(edits.read_log(store, "run", first).entries) == 1
    assert len(edits.records_of(store, "run")) == 2


def test_a_deleted_job_takes_its_own_corrections_and_leaves_those_of_others(steno: StenoSettings, tmp_path: Path) -> None:
    store = Store.from_settings(steno)
    shared = kept(store, tmp_path, "shared", "mine", "theirs")
    for run in ("mine", "theirs"):
        edits.write_log(store, run, EditLog(transcript=shared, entries=(ENTRY,)))
    assert remove_run(store, steno, "mine")
    assert store.exists(shared)
    assert edits.records_of(store, "mine") == []
    assert edits.read_log(store, "theirs", shared).entries == (ENTRY,)


def test_what_is_collected_takes_its_corrections_and_waveform_with_it(steno: StenoSettings, tmp_path: Path) -> None:
    store = Store.from_settings(steno)
    path = kept(store, tmp_path, "old", "run")
    edits.write_log(store, "run", EditLog(transcript=path, entries=(ENTRY,)))
    store.write_record(waveform.record_of("a" * 64), f'{{"audio": "{path}", "peaks": ""}}'.encode())
    collect(
        store,
        steno.model_copy(update={"retention": steno.retention.model_copy(update={"grace_hours": 0.0})}),
        Limits(older_than=0.0),
    )
    assert not store.exists(path)
    assert edits.records_of(store, "run") == []
    assert store.read_record(waveform.record_of("a" * 64)) is None
