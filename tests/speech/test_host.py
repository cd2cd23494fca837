"""What `auto` stands for: by the machine's hardware, and by what the hub lets it fetch. The hub is one on loopback."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from speech import host as hosts
from speech.host import Host
from speech.models import resolve_align, resolve_asr, resolve_diarization, resolve_segmentation
from speech.registry import PACKAGED_DIARIZATION, TORCHAUDIO_FILES, Resolved
from tests import hub as loopback
from tests.hub import Hub

TOKEN = "hf_a_token"
LICENCE = "https://huggingface.co/pyannote/speaker-diarization-community-1"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """A hub with turbo, large-v3 and community-1, which is gated; this machine has no token and nothing in its cache."""
    with loopback.publishing(monkeypatch, tmp_path / "hub-home", "large-v3-turbo", "large-v3", "community-1") as hub:
        yield hub


@pytest.fixture(autouse=True)
def pytorch(monkeypatch: pytest.MonkeyPatch) -> dict[str, bool]:
    """Whether torchaudio's models can be fetched; in tests nothing is asked of the internet."""
    answers = {"reachable": True}
    monkeypatch.setattr(hosts, "reachable", lambda url, folder: answers["reachable"])
    return answers


def auto(host: Host, **options: Any) -> tuple[str, str]:
    where: Any = {"models_dir": host.models_dir, "offline": host.offline, "host": host}
    asr = resolve_asr("auto", None, **where, **options)
    return asr.name, resolve_diarization("auto", **where).name


def aligned(host: Host, language: str = "en") -> Resolved:
    where: Any = {"models_dir": host.models_dir, "offline": host.offline, "host": host}
    return resolve_align("auto", language, resolve_asr("base", None, **where), **where)


def test_on_a_cpu_auto_is_what_is_packaged(hub: Hub, tmp_path: Path) -> None:
    assert auto(Host(tmp_path, offline=False)) == ("base", PACKAGED_DIARIZATION)
    assert aligned(Host(tmp_path, offline=False)).kind == "attention"
    assert hub.asked == []


def test_a_token_alone_makes_no_large_model_the_default_of_a_cpu(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    hub.members.add(TOKEN)
    assert auto(Host(tmp_path, offline=False)) == ("base", "community-1")
    assert aligned(Host(tmp_path, offline=False)).name == "WAV2VEC2_ASR_BASE_960H"
    assert aligned(Host(tmp_path, offline=False), "xx").kind == "attention"


def test_on_a_gpu_public_models_need_no_token(hub: Hub, tmp_path: Path) -> None:
    host = Host(tmp_path, offline=False, gpu=True)
    assert auto(host) == ("large-v3-turbo", PACKAGED_DIARIZATION)
    assert auto(host, task="translate")[0] == "large-v3"  # turbo was not trained to
    assert aligned(host).name == "WAV2VEC2_ASR_BASE_960H"


def test_a_token_without_the_licence_falls_back_and_names_its_page(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    where: Any = {"models_dir": tmp_path, "offline": False, "host": Host(tmp_path, offline=False)}
    found = resolve_diarization("auto", **where)
    assert found.name == PACKAGED_DIARIZATION
    assert LICENCE in found.warning
    assert PACKAGED_DIARIZATION in found.warning
    assert TOKEN not in found.warning
    assert resolve_segmentation(found, **where).name == PACKAGED_DIARIZATION
    # Named, it is what is used or an error.
    assert resolve_diarization("community-1", **where).name == "community-1"


def test_an_answer_is_remembered_by_token_and_a_refusal_not_for_long(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    host = Host(tmp_path, offline=False)
    for _ in range(3):
        assert host.diarization().name == PACKAGED_DIARIZATION
    assert len(hub.asked) == 1
    assert TOKEN not in (tmp_path / "access.json").read_text()
    hub.members.add(TOKEN)  # the licence is accepted
    assert host.diarization().name == PACKAGED_DIARIZATION
    known = {what: [state, at - 301] for what, (state, at) in json.loads((tmp_path / "access.json").read_text()).items()}
    (tmp_path / "access.json").write_text(json.dumps(known))
    assert host.diarization() == ("community-1", "")
    monkeypatch.setenv("HF_TOKEN", "hf_another")
    assert host.diarization().name == PACKAGED_DIARIZATION
    (tmp_path / "access.json").write_text("damaged")
    assert host.diarization().name == PACKAGED_DIARIZATION


def test_a_hub_out_of_reach_is_a_warning(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    hub.status = 503
    host = Host(tmp_path, offline=False, gpu=True)
    assert auto(host) == ("base", PACKAGED_DIARIZATION)
    assert "not reachable" in host.asr().warning
    assert "large-v3-turbo" in host.asr().warning


@pytest.mark.parametrize("switch", ["offline", "HF_HUB_OFFLINE"])
def test_offline_nobody_is_asked(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, switch: str) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    if switch != "offline":
        monkeypatch.setenv(switch, "1")
    host = Host(tmp_path, offline=switch == "offline", gpu=True)
    assert auto(host) == ("base", PACKAGED_DIARIZATION)
    assert host.asr().warning == host.diarization().warning == ""
    assert aligned(host).kind == "attention"
    assert hub.asked == []


def test_pytorchs_server_out_of_reach_leaves_the_times_to_attention(tmp_path: Path, pytorch: dict[str, bool]) -> None:
    pytorch["reachable"] = False
    host = Host(tmp_path, offline=False, gpu=True)
    found = aligned(host)
    assert found.kind == "attention"
    assert "download.pytorch.org" in found.warning
    (tmp_path / "torchaudio").mkdir()
    (tmp_path / "torchaudio" / TORCHAUDIO_FILES["WAV2VEC2_ASR_BASE_960H"]).write_bytes(b"fetched before")
    assert aligned(host).name == "WAV2VEC2_ASR_BASE_960H"


def test_an_aligner_on_a_hub_out_of_reach_likewise(hub: Hub, tmp_path: Path) -> None:
    hub.status = 503
    found = aligned(Host(tmp_path, offline=False, gpu=True), "ja")
    assert found.kind == "attention"
    assert "attention" in found.warning


def test_of_another_machine_the_hub_is_not_asked_here(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    hub.members.add(TOKEN)
    without = Host(tmp_path, offline=False, gpu=True, gated=frozenset())
    assert auto(without) == ("large-v3-turbo", PACKAGED_DIARIZATION)
    assert without.diarization().warning == ""
    refused = Host(tmp_path, offline=False, gpu=True, gated=frozenset(), token=True)
    assert LICENCE in refused.diarization().warning
    lacking = Host(tmp_path, offline=False, gpu=True, gated=frozenset(), token=True, lacking="It has no token")
    assert lacking.diarization().warning == f"It has no token. {PACKAGED_DIARIZATION} is used instead."
    assert auto(Host(tmp_path, offline=False, gpu=True, gated=frozenset({"community-1"}), token=True)) == (
        "large-v3-turbo",
        "community-1",
    )
    assert hub.asked == []


def test_what_is_in_the_cache_needs_no_token(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosts, "hub_folder", lambda model: tmp_path if model.name == "community-1" else None)
    assert Host(tmp_path, offline=True).diarization().name == "community-1"
