"""Every entry of a list ends in exactly one row: named twice, named in bytes that are no text, or in the way of another."""

from __future__ import annotations

import asyncio
import csv
import errno
import json
import os
from pathlib import Path

import pytest

from flows.batch import BatchIncomplete, batch
from flows.batching.drive import BatchEvent, watching
from flows.options import TranscribeOptions
from infra import outputs
from infra.settings import StenoSettings
from tests.cli.test_cli import steno
from tests.flows.test_batch import Place, place, run
from tests.stage_double import recording
from tests.stub_compute import BACKEND, executions

__all__ = ["place"]

pytestmark = [pytest.mark.usefixtures("prefect_server", "steno"), pytest.mark.slow]


def rows_of(folder: Path) -> list[dict[str, str]]:
    """The last table's rows, in order of their lines."""
    path = max(folder.glob("batch-*.csv"), key=lambda path: path.stat().st_mtime_ns)
    with path.open(newline="", encoding="utf-8") as file:
        return sorted(csv.DictReader(file), key=lambda row: (int(row["line"] or 0), row["name"]))


def recorded(path: Path, seed: int) -> None:
    """A recording of a second under a name that may be any bytes, which the library that writes it does not take."""
    recording(path.with_name("written.wav"), seed=seed, seconds=1.0).rename(path)


async def test_every_entry_of_a_list_has_one_row_whatever_it_is_called(place: Place) -> None:
    for seed, name in enumerate(("a.wav", os.fsdecode(b"caf\xe9.wav"), "b.wav", "c.wav")):
        recorded(place.source / name, seed)
    (place.source / "link").symlink_to(place.source, target_is_directory=True)
    named = [
        {"source": "a.wav"},
        {"source": "../in/a.wav"},
        {"source": "link/a.wav"},
        {"source": "caf\udce9.wav"},
        {"source": "b.wav", "name": "bad \ud83d"},
        {"source": "\ud800.wav"},
        {"source": "c.wav", "initial_prompt": "\ud800"},
        {"source": "a.wav", "diarize": False},
    ]
    listing = place.source / "list.jsonl"
    listing.write_text("\n".join(json.dumps(row) for row in named))
    result = await asyncio.wait_for(run(place.request(source=str(listing), concurrency=2)), 200)

    rows = rows_of(place.out)
    assert [row["line"] for row in rows] == [str(line) for line in range(1, 9)]
    assert [row["state"] for row in rows] == ["done"] * 5 + ["failed"] * 2 + ["done"]
    assert ["listed twice" in row["detail"] for row in rows] == [False, True, True, False, False, False, False, False]
    assert rows[1]["files"] == rows[0]["files"]
    assert (rows[3]["name"], rows[4]["name"]) == ("café.wav", "bad \ufffd")
    assert "not text" in rows[5]["detail"]
    assert "not text" in rows[6]["detail"]
    assert (result.done, result.failed, result.duration) == (6, 2, 4.0)
    assert place.outputs() == ["a.json", "a_wav.json", "bad �.json", "café.json"]
    assert executions(place.log)["segment"] == 3  # a.wav is one recording
    again = await run(place.request(source=str(listing)))
    assert (again.done, again.skipped, again.failed) == (0, 6, 2)


async def test_what_is_there_and_is_not_ours_is_kept(place: Place) -> None:
    for seed in range(3):
        recording(place.source / f"talk-{seed}.wav", seed=seed, seconds=1.0)
    own = recording(place.source / "own.wav", seed=3, seconds=1.0).rename(place.source / "own.json")
    listing = place.source / "list.csv"
    listing.write_text("source\ntalk-0.wav\ntalk-1.wav\ntalk-2.wav\nown.json\n")
    request = place.request(source=str(listing), output_dir=str(place.source))
    (place.source / "talk-1.json").write_text("somebody's notes")
    os.link(own, place.source / "talk-2.json")
    before = own.read_bytes()

    result = await run(request)
    assert [(row["state"], row["code"]) for row in rows_of(place.source)] == [
        ("done", ""),
        ("failed", "output_exists"),
        ("failed", "output_is_recording"),
        ("failed", "output_is_recording"),
    ]
    assert (result.exit_code, (place.source / "talk-1.json").read_text()) == (3, "somebody's notes")
    assert executions(place.log)["asr"] == 1

    (place.source / "talk-0.json").write_text("edited by hand")
    replaced = await run(request.model_copy(update={"retry_failed": True, "options": TranscribeOptions(overwrite=True)}))
    assert (replaced.done, replaced.failed, replaced.skipped) == (1, 2, 1)  # what was done before stays, edits and all
    assert "good morning" in (place.source / "talk-1.json").read_text()
    assert (place.source / "talk-0.json").read_text() == "edited by hand"
    assert own.read_bytes() == before


async def test_what_was_deleted_and_what_is_no_recording_are_rows_and_no_failures(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    recording(place.source / "a.wav", seed=1, seconds=1.0)
    gone = recording(place.source / "gone.wav", seed=2, seconds=1.0)
    recording(place.source / "voice memo.wav", seed=3, seconds=1.0).rename(place.source / "voice memo")
    (place.source / "notes").write_text("Buy milk.")

    def delete(event: BatchEvent) -> None:
        if event.kind == "began":
            gone.unlink(missing_ok=True)

    with watching(delete):
        result = await run(place.request(concurrency=1))
    assert (result.done, result.failed, result.skipped, result.left, result.exit_code) == (2, 0, 1, 1, 0)
    assert result.sentence == "2 done, 1 skipped, 1 file left: not recordings."
    assert {row["name"]: (row["state"], row["detail"]) for row in rows_of(place.out)} == {
        "a.wav": ("done", ""),
        "gone.wav": ("skipped", "deleted after it was listed"),
        "notes": ("left", "not a recording: neither audio nor video"),
        "voice memo": ("done", ""),
    }


async def test_a_batch_whose_table_cannot_be_written_says_so_and_fails(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    recording(place.source / "talk.wav", seed=1, seconds=1.0)
    write = outputs.write

    def full(target: str, content: bytes, settings: StenoSettings) -> None:
        if target.endswith(".csv"):
            raise OSError(errno.ENOSPC, "No space left on device")
        write(target, content, settings)

    monkeypatch.setattr(outputs, "write", full)
    with pytest.raises(BatchIncomplete, match="No space left") as raised:
        await batch(place.request())
    result = raised.value.result
    assert result is not None
    assert (result.done, result.failed, result.table, result.exit_code) == (1, 0, None, 5)
    rows = Path(result.trouble.rpartition(" in ")[2].rstrip("."))
    assert "talk.wav,done" in rows.read_text()


def test_a_name_that_is_not_utf8_is_transcribed_beside_a_good_one(tmp_path: Path) -> None:
    bad, gone = os.fsdecode(b"caf\xe9.wav"), os.fsdecode(b"n\xe3o.wav")
    for seed, name in enumerate(("good.wav", bad)):
        recorded(tmp_path / name, seed)
    (tmp_path / "plan.json").write_text("{}")
    done = steno(
        *("transcribe", "good.wav", bad, gone, "--json", "-o", "out", "--model", "tiny.en"),
        folder=tmp_path,
        STENO_COMPUTE__BACKEND=BACKEND,
        STUB_PLAN=str(tmp_path / "plan.json"),
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 3, done.stdout + done.stderr
    assert [line["source"] for line in lines if line["type"] == "result"] == ["good.wav", "café.wav"]
    (error,) = [line for line in lines if line["type"] == "error"]
    assert (error["source"], error["code"]) == ("não.wav", "source_not_found")
    assert sorted(path.name for path in (tmp_path / "out").glob("*.json")) == ["café.json", "good.json"]
