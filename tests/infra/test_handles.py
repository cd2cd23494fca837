"""A signed address is never a run's parameter."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from infra.handles import concealed, revealed
from infra.names import display_name
from infra.settings import StenoSettings
from stenoflow.errors import SourceNotFound

SIGNED = "https://media.example.org/calls/monday.mp3?X-Amz-Signature=hush&Expires=9"


@pytest.mark.parametrize("source", [SIGNED, "https://user:word@example.org/monday.mp3", "s3://bucket/monday.mp3?versionId=3"])
def test_an_address_with_a_secret_is_replaced_and_found_again(source: str, steno: StenoSettings) -> None:
    handle = concealed(source, steno)
    assert not any(part in handle for part in ("hush", "word", "versionId", "Expires"))
    assert display_name(handle) == "monday.mp3"
    assert revealed(handle, steno) == source


@pytest.mark.parametrize(
    "source", ["call.wav", "/a/b?c.wav", "-", "https://example.org/monday.mp3", "file:///a%3Fb.wav", "s3://b/k"]
)
def test_other_sources_stay_as_they_are(source: str, steno: StenoSettings) -> None:
    assert concealed(source, steno) == source
    assert revealed(source, steno) == source


def test_only_this_user_may_read_what_is_kept(steno: StenoSettings) -> None:
    concealed(SIGNED, steno)
    folder = steno.home_path / "secrets"
    assert folder.stat().st_mode & 0o077 == 0
    assert [path.stat().st_mode & 0o777 for path in folder.iterdir()] == [0o600]


def test_a_handle_of_another_machine_is_refused_in_a_sentence(steno: StenoSettings) -> None:
    with pytest.raises(SourceNotFound, match=r"monday\.mp3.*Start a new run"):
        revealed("secret://0123456789abcdef0123456789abcdef/monday.mp3", steno)


def test_old_addresses_are_forgotten(steno: StenoSettings) -> None:
    handle = concealed(SIGNED, steno)
    kept = next(Path(steno.home_path / "secrets").iterdir())
    os.utime(kept, (0, 0))
    concealed(SIGNED, steno)
    with pytest.raises(SourceNotFound):
        revealed(handle, steno)
