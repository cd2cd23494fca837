"""Hub tokens and Modal: what `steno modal deploy` does with the local one, what `auto` is for the app, what is refused before it costs.

The commands are those that a user types, against the Modal test server and a hub on loopback.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.compute import host_of
from infra.on_modal import about
from infra.on_modal.contract import ABOUT, About, calls_name
from infra.settings import StenoSettings, get_settings
from speech.registry import PACKAGED_DIARIZATION
from tests import hub as loopback
from tests.hub import Hub
from tests.modal_server import ModalServer
from tests.modal_server.fixture import forget_client, use

pytestmark = pytest.mark.slow

TOKEN = "hf_holder"
SECRET = "stenoflow-hub-token"
GATED = "pyannote/speaker-diarization-community-1"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    with loopback.publishing(monkeypatch, tmp_path / "hub-home", "community-1") as hub:
        yield hub


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[ModalServer]:
    monkeypatch.setenv("STENO_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("STENO_MODELS_DIR", str(tmp_path / "models"))  # what tokens have access to is remembered there
    with ModalServer.start() as server:
        use(server, monkeypatch)
        get_settings.cache_clear()
        yield server
    forget_client()
    get_settings.cache_clear()


def deploy(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "stenoflow.cli.main", "modal", "deploy", *options]
    return subprocess.run(command, env=dict(os.environ), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)


def settings() -> StenoSettings:
    get_settings.cache_clear()
    forget_client()
    return get_settings()


def secrets(server: ModalServer) -> list[str]:
    return [secret["name"] for secret in server.app("stenoflow")["functions"]["Voices.*"]["secrets"]]


def test_a_token_holder_deploys_once_and_gated_models_are_the_apps(
    hub: Hub, server: ModalServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    hub.members.add(TOKEN)
    done = deploy("--hub-token")
    assert done.returncode == 0, done.stderr
    assert secrets(server) == [SECRET]
    host = host_of(settings(), "modal")
    assert (host.diarization(), host.asr()) == (("community-1", ""), ("large-v3-turbo", ""))
    # The secret stays: it need not be named again, on this machine or on one without a token.
    monkeypatch.delenv("HF_TOKEN")
    assert deploy().returncode == 0
    assert secrets(server) == [SECRET]
    assert TOKEN not in done.stdout + done.stderr


def test_a_token_that_was_not_given_to_the_app_is_not_counted_on(
    hub: Hub, server: ModalServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    hub.members.add(TOKEN)
    done = deploy()
    assert done.returncode == 0, done.stderr
    assert "steno modal deploy --hub-token" in done.stdout
    assert secrets(server) == []
    name, warning = host_of(settings(), "modal").diarization()
    assert name == PACKAGED_DIARIZATION
    assert "steno modal deploy --hub-token" in warning


def test_without_a_token_nothing_gated_is_asked_for_and_nothing_is_said(hub: Hub, server: ModalServer) -> None:
    assert deploy().returncode == 0
    host = host_of(settings(), "modal")
    assert host.diarization() == (PACKAGED_DIARIZATION, "")
    assert host.asr().name == "large-v3-turbo"
    refused = deploy("--hub-token")
    assert refused.returncode == 2
    assert "HF_TOKEN" in refused.stderr


def test_a_missing_licence_is_named_with_its_page(hub: Hub, server: ModalServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert deploy("--hub-token").returncode == 0
    name, warning = host_of(settings(), "modal").diarization()
    assert name == PACKAGED_DIARIZATION
    assert f"https://huggingface.co/{GATED}" in warning


def test_another_versions_app_is_refused_before_a_container_starts(hub: Hub, server: ModalServer, tmp_path: Path) -> None:
    import modal

    from tests.guides import spoken

    assert deploy().returncode == 0
    notes = modal.Dict.from_name(calls_name(settings().modal))
    notes.update({ABOUT: About(code="another").model_dump_json()})
    assert about.read(settings().modal) == About(code="another")
    command = [sys.executable, "-m", "stenoflow.cli.main", "transcribe", "--compute", "modal", "--model", "base"]
    done = subprocess.run(
        [*command, str(spoken(tmp_path / "call.wav"))], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 4
    assert "steno modal deploy" in done.stderr
    assert server.calls == []
