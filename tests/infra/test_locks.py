"""Locks by name on the store: one holder at a time, whatever becomes of it."""

from __future__ import annotations

import errno
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from infra import processes
from infra.locks import Locks
from infra.storage import Lock, leases
from infra.store import Store
from tests.s3_faults import FaultyS3

LEASE = 2.0


LEASED = ["s3", "google_storage", "azure_storage"]


@pytest.fixture(params=["folder", *(pytest.param(name, marks=pytest.mark.slow) for name in LEASED)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "folder":
        return Store(str(tmp_path / "store"), tmp_path / "scratch")
    if request.param != "s3":
        return Store(f"{request.getfixturevalue(request.param)()}/store", tmp_path / "scratch")
    service: FaultyS3 = request.getfixturevalue("faulty_s3")
    return Store(f"s3://{service.bucket()}/store", tmp_path / "scratch", service.settings)


def soon(locks: Locks, name: str, seconds: float = 20) -> Lock:
    end = time.monotonic() + seconds
    while (lock := locks.try_acquire(name)) is None:
        assert time.monotonic() < end, f"{name} was not released"
        time.sleep(0.05)
    return lock


def names(store: Store) -> list[str]:
    return [file.path for file in store.files("locks")]


def test_one_holder_at_a_time(store: Store) -> None:
    mine, theirs = Locks(store, LEASE), Locks(store, LEASE)
    held = mine.try_acquire("a")
    assert held is not None
    assert mine.try_acquire("a") is None
    assert theirs.try_acquire("a") is None
    other = theirs.try_acquire("b")
    assert other is not None
    held.release()
    held.release()
    soon(theirs, "a").release()
    other.release()
    soon(mine, "b").release()


def test_a_lock_is_released_in_whichever_thread(store: Store) -> None:
    held = soon(Locks(store, LEASE), "a")
    with ThreadPoolExecutor(1) as pool:
        pool.submit(held.release).result()
    soon(Locks(store, LEASE), "a").release()


@pytest.mark.parametrize("store", ["folder"], indirect=True)
@pytest.mark.parametrize("missing", ["ENOLCK", "ENOSYS"])
def test_a_file_system_without_locks_is_told_of_and_gets_no_lock_that_a_killed_process_would_keep(
    store: Store, missing: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(getattr(errno, missing), missing)

    monkeypatch.setattr("fcntl.flock", refuse)
    leases.warn_once.cache_clear()
    one, other = (Locks(store, LEASE).try_acquire("a") for _ in range(2))
    assert one and other
    assert "runs of the same recording may compute it twice" in caplog.text
    one.release()
    other.release()


def test_nothing_stays_behind(store: Store) -> None:
    locks = Locks(store, 60.0)  # a lock is not touched once its lease may have run out
    for name in ("a", "b"):
        soon(locks, name).release()
    end = time.monotonic() + 10
    while names(store) and time.monotonic() < end:
        time.sleep(0.05)
    assert names(store) == []


def test_many_at_once_never_hold_it_together(store: Store) -> None:
    inside: list[int] = []
    most = 0

    def work(number: int) -> None:
        nonlocal most
        lock = soon(Locks(store, LEASE), "a", 60)
        inside.append(number)
        most = max(most, len(inside))
        time.sleep(0.01)
        inside.remove(number)
        lock.release()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(8)))
    assert most == 1


HOLDER = """
import sys, time
from pathlib import Path
from infra.locks import Locks
from infra.settings import S3Settings
from infra.store import Store
url, scratch, endpoint, lease = sys.argv[1:]
s3 = S3Settings(endpoint_url=endpoint or None, region="us-east-1", key="testing", secret="testing", addressing_style="path")
lock = Locks(Store(url, Path(scratch), s3), float(lease)).try_acquire("a")
print("held" if lock else "refused", flush=True)
if sys.stdin.readline():
    lock.release()
"""


def holder(store: Store, tmp_path: Path, request: pytest.FixtureRequest) -> subprocess.Popen[str]:
    endpoint = request.getfixturevalue("faulty_s3").endpoint if store.url.startswith("s3:") else ""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, store.url, str(tmp_path / "other"), endpoint, str(LEASE)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    assert process.stdout.readline() == "held\n"
    return process


def test_a_holder_killed_on_this_machine_does_not_keep_it_for_its_lease(
    store: Store, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    process = holder(store, tmp_path, request)
    patient = Locks(store, 3600)
    assert patient.try_acquire("a") is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    soon(patient, "a").release()


@pytest.mark.slow
@pytest.mark.parametrize("store", LEASED, indirect=True)
def test_a_holder_killed_on_another_machine_keeps_it_no_longer_than_its_lease(
    store: Store, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = holder(store, tmp_path, request)
    process.send_signal(signal.SIGKILL)
    process.wait()
    monkeypatch.setattr(processes, "_machine", lambda: ("another", "boot", "namespace"))
    assert Locks(store, 3600).try_acquire("a") is None
    soon(Locks(store, LEASE), "a").release()


@pytest.mark.slow
def test_a_holder_at_work_keeps_it_longer_than_a_lease(store: Store, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    process = holder(store, tmp_path, request)
    locks = Locks(store, LEASE)
    end = time.monotonic() + 2.5 * LEASE
    while time.monotonic() < end:
        assert locks.try_acquire("a") is None
        time.sleep(0.2)
    process.communicate("release\n", timeout=30)
    assert process.returncode == 0
    soon(locks, "a").release()


@pytest.mark.slow
@pytest.mark.parametrize("store", LEASED, indirect=True)
def test_a_holder_that_was_paused_does_not_release_its_successors_lock(
    store: Store, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    process = holder(store, tmp_path, request)
    process.send_signal(signal.SIGSTOP)
    locks = Locks(store, LEASE)
    lock = soon(locks, "a")
    process.send_signal(signal.SIGCONT)
    process.communicate("release\n", timeout=30)
    third = Locks(store, LEASE)
    end = time.monotonic() + 1.5 * LEASE
    while time.monotonic() < end:
        assert third.try_acquire("a") is None
        time.sleep(0.2)
    lock.release()
    soon(third, "a").release()


@pytest.mark.slow
@pytest.mark.parametrize("store", ["s3"], indirect=True)
def test_an_answer_that_was_lost_does_not_lock_the_holder_out(store: Store, faulty_s3: FaultyS3) -> None:
    faulty_s3.set({"fault": "lost", "method": "PUT", "times": 1})
    lock = Locks(store, LEASE).try_acquire("a")
    assert lock is not None
    assert faulty_s3.state()["faults"] == {"lost": 1}
    lock.release()


def test_locks_of_the_dead_are_swept(store: Store, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    process = holder(store, tmp_path, request)
    if store.storage.on_disk(""):
        assert Locks(store, LEASE).sweep(-1) == 0  # held
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert len(names(store)) == 1
    assert Locks(store, LEASE).sweep(3600) == 0
    assert Locks(store, LEASE).sweep(-1) == 1
    assert names(store) == []
