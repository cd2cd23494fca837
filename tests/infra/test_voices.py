"""Enrolled voices: what is computed of a recording, what is stored, and that nothing stays of what is forgotten."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from infra.collect import Limits, collect
from infra.compute import get_store
from infra.enrolment import voiceprints
from infra.settings import StenoSettings, get_settings
from infra.store import Store
from infra.voices import CALL, checked_name, consent_of, enrol, forget, forget_all, forget_calls, set_of, voices_in
from speech.enrolled import Voiceprint, similarity
from stenoflow import isolated
from stenoflow.errors import InvalidOption, UnknownVoice, UnusableVoice
from tests import media
from tests.call import turns

PRINT = Voiceprint(model="campplus@1", embedding=(0.125, 0.992157), seconds=4.0)
ANNA, BEN = set_of("anna"), set_of("ben")


@pytest.fixture
def store(steno: StenoSettings) -> Store:
    return get_store(steno)


def contents(settings: StenoSettings) -> bytes:
    """All that there is in the home, with the names of the files."""
    files = [path for path in Path(settings.home_path).rglob("*") if path.is_file()]
    return b"\n".join(str(path).encode() + path.read_bytes() for path in files)


def test_a_forgotten_voice_leaves_no_trace(store: Store, steno: StenoSettings) -> None:
    enrol(store, ANNA, "Zoë  Müller", [PRINT], consent_of("asked by mail", "someone"))
    assert b"0.992157" in contents(steno) and "Zoë Müller".encode() in contents(steno)
    forget(store, ANNA, "zoë müller")
    left = contents(steno)
    assert not [trace for trace in (b"0.992157", b"asked by mail", "Müller".encode(), b"ller") if trace in left]
    with pytest.raises(UnknownVoice):
        forget(store, ANNA, "Zoë Müller")


def test_voices_belong_to_their_owner(store: Store) -> None:
    enrol(store, ANNA, "Zoë", [PRINT], consent_of("asked", "anna"))
    assert voices_in(store, [BEN]) == []
    with pytest.raises(UnknownVoice):
        forget(store, BEN, "Zoë")
    assert [voice.name for voice in voices_in(store, [BEN, ANNA])] == ["Zoë"]


def test_enrolling_again_adds_recordings_and_their_consent(store: Store) -> None:
    enrol(store, ANNA, "Zoë", [PRINT], consent_of("asked", "anna"))
    voice = enrol(store, ANNA, "ZOË", [PRINT, PRINT], consent_of("asked again", "ben"))
    assert len(voice.prints) == 3
    assert [(consent.note, consent.by) for consent in voice.consents] == [("asked", "anna"), ("asked again", "ben")]
    assert voices_in(store, [ANNA]) == [voice]


def test_garbage_collection_leaves_voices_alone(store: Store, steno: StenoSettings) -> None:
    enrol(store, ANNA, "Zoë", [PRINT], consent_of("asked", "anna"))
    collect(store, steno, Limits(older_than=0.0, max_bytes=0))
    assert voices_in(store, [ANNA])


def test_in_a_folder_only_this_user_may_read_them(store: Store, steno: StenoSettings) -> None:
    enrol(store, ANNA, "Zoë", [PRINT], consent_of("asked", "anna"))
    (record,) = [path for path in (Path(steno.store_url) / "records" / "voices").rglob("*") if path.is_file()]
    assert record.stat().st_mode & 0o077 == 0


def test_voices_that_came_with_a_call_go_with_it_or_by_age(store: Store) -> None:
    enrol(store, f"{CALL}1", "Agent", [PRINT], consent_of("came with a call", "key"))
    enrol(store, f"{CALL}2", "Agent", [PRINT], consent_of("came with a call", "key"))
    enrol(store, ANNA, "Zoë", [PRINT], consent_of("asked", "anna"))
    forget_all(store, f"{CALL}1")
    assert len(voices_in(store, [f"{CALL}1", f"{CALL}2", ANNA])) == 2
    forget_calls(store, older_than=3600)
    assert len(voices_in(store, [f"{CALL}2"])) == 1
    forget_calls(store, older_than=-1)
    assert [voice.name for voice in voices_in(store, [f"{CALL}2", ANNA])] == ["Zoë"]


@pytest.mark.parametrize("name", ["", "  ", "a\x00b", "x" * 101])
def test_a_name_can_be_shown(name: str) -> None:
    with pytest.raises(InvalidOption):
        checked_name(name)


def test_nobody_is_enrolled_without_consent() -> None:
    with pytest.raises(InvalidOption, match="consented"):
        consent_of(" ", "me")


# -- what a recording says of a voice ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Of the real call: two parts of each person's speech, in which the other is not heard, and one of both."""
    samples, rate = media.speech(), 16_000
    folder = tmp_path_factory.mktemp("parts")
    spans = {
        "Diane 1": (11.1, 14.4),
        "Diane 2": (18.7, 21.4),
        "Sheila 1": (14.8, 17.9),
        "Sheila 2": (22.0, 27.8),
        "both": (10, 22),
    }
    assert {turn.speaker for turn in turns()} == {"speaker90", "speaker91"}
    for name, (start, end) in spans.items():
        soundfile.write(folder / f"{name}.wav", samples[int(start * rate) : int(end * rate)], rate)
    soundfile.write(folder / "silence.wav", np.zeros(rate * 5, dtype=np.float32), rate)
    return {path.stem: path for path in folder.iterdir()}


@pytest.fixture
def here(steno: StenoSettings, models_dir: Path) -> StenoSettings:
    get_settings.cache_clear()
    return get_settings()


def test_two_recordings_of_a_person_are_more_alike_than_those_of_two(parts: dict[str, Path], here: StenoSettings) -> None:
    names = ["Diane 1", "Diane 2", "Sheila 1", "Sheila 2"]
    diane, diane_again, sheila, sheila_again = voiceprints([parts[name] for name in names], names, here)
    same = min(similarity(diane.embedding, diane_again.embedding), similarity(sheila.embedding, sheila_again.embedding))
    other = max(similarity(one.embedding, two.embedding) for one in (diane, diane_again) for two in (sheila, sheila_again))
    assert same > other
    assert diane.model.startswith("segmentation-3.0+campplus@")
    assert 2.0 < diane.seconds < 3.4
    assert not Path(here.store_url).exists() or not list(Path(here.store_url).rglob("*.npz"))


@pytest.mark.parametrize(("name", "said"), [("both", "2 voices"), ("silence", "0.0 s of speech")])
def test_what_is_not_one_voice_is_refused(parts: dict[str, Path], here: StenoSettings, name: str, said: str) -> None:
    with pytest.raises(UnusableVoice, match=said):
        voiceprints([parts[name]], [name], here)


def test_another_process_is_told_the_same(parts: dict[str, Path], here: StenoSettings) -> None:
    def asked(name: str) -> dict[str, Any]:
        question = {"paths": [str(parts[name])], "names": [name], "model": "auto", "alone": False}
        done = subprocess.run(
            isolated.command("infra.enrolment"), input=json.dumps(question), capture_output=True, text=True, check=True
        )
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    (found,) = asked("Diane 1")["voiceprints"]
    assert Voiceprint.model_validate(found) == voiceprints([parts["Diane 1"]], ["Diane 1"], here)[0]
    assert asked("both")["code"] == "unusable_voice"
