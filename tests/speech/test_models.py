"""Names of models: what they stand for, and what is said of those that stand for nothing. No network is asked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from speech.hub import hub_token
from speech.models import (
    Machine,
    folder_revision,
    recommended,
    resolve_align,
    resolve_asr,
    resolve_diarization,
)
from speech.registry import (
    ATTENTION,
    ENGINES,
    HUB_ALIGN,
    MODELS,
    TORCHAUDIO_ALIGN,
    TORCHAUDIO_FILES,
    Resolved,
    names,
    torchaudio_file,
)
from stenoflow.errors import InvalidOption, ModelUnavailable, StenoError, UnknownModel
from tests.hub import without_account

TOKEN = "hf_a_secret_that_is_never_shown"


@pytest.fixture(autouse=True)
def no_account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    without_account(monkeypatch, tmp_path / "hub-home")


def asr(name: str, language: str | None = None, *, models_dir: Path, offline: bool = False) -> Resolved:
    return resolve_asr(name, language, models_dir=models_dir, offline=offline)


def align(name: str, language: str, *, models_dir: Path, offline: bool = False) -> Resolved:
    whisper = asr("base", models_dir=models_dir)
    return resolve_align(name, language, whisper, models_dir=models_dir, offline=offline)


def whisper_folder(folder: Path) -> Path:
    folder.mkdir()
    for name in ("model.bin", "config.json", "tokenizer.json", "vocabulary.txt"):
        (folder / name).write_text(name)
    return folder


def test_without_an_account_auto_is_what_pip_installed(tmp_path: Path) -> None:
    assert asr("auto", models_dir=tmp_path).name == "base"
    assert asr("auto", models_dir=tmp_path).origin == "package"
    assert resolve_diarization("auto", models_dir=tmp_path, offline=False).origin == "package"
    assert align("auto", "en", models_dir=tmp_path).name == "attention:base"


@pytest.mark.parametrize("name", ["base", "tiny.en"])
def test_packaged_weights_are_known_by_their_packages(tmp_path: Path, name: str) -> None:
    resolved = asr(name, models_dir=tmp_path, offline=True)
    assert (resolved.name, resolved.origin) == (name, "package")
    assert all("==" in part for part in resolved.revision.split("+"))


@pytest.mark.parametrize(
    ("name", "meant"),
    [("large", "large-v3"), ("turbo", "large-v3-turbo"), ("small", "small"), ("distil-large-v3", "distil-large-v3")],
)
def test_sizes_and_aliases_are_pinned(tmp_path: Path, name: str, meant: str) -> None:
    resolved = asr(name, models_dir=tmp_path)
    assert (resolved.name, resolved.origin) == (meant, "hub")
    assert (resolved.location, resolved.revision) == MODELS[meant].hub
    assert len(resolved.revision) == 40


@pytest.mark.parametrize(
    ("name", "meant"),
    [("larg-v3", "large-v3"), ("Base", "base"), ("trubo", "turbo"), ("tiny-en", "tiny.en"), ("LARGE-V3", "large-v3")],
)
def test_a_typo_is_answered_with_the_name_that_was_meant(tmp_path: Path, name: str, meant: str) -> None:
    with pytest.raises(UnknownModel, match=f"Did you mean '{meant}'"):
        asr(name, models_dir=tmp_path)


def test_a_typo_in_an_aligner_names_aligners(tmp_path: Path) -> None:
    with pytest.raises(UnknownModel, match="Did you mean 'wav2vec2'") as caught:
        align("wave2vec2", "en", models_dir=tmp_path)
    assert "attention" in caught.value.message
    assert "large" not in caught.value.message


@pytest.mark.parametrize("name", ["pyannote/speaker-diarization-3.1", "comunity-1", "large-v3"])
def test_a_diarization_model_is_one_of_two(tmp_path: Path, name: str) -> None:
    with pytest.raises(UnknownModel, match=r"'community-1' \(hub\) or 'segmentation-3.0\+campplus'"):
        resolve_diarization(name, models_dir=tmp_path, offline=True)


@pytest.mark.parametrize("name", ["tiny.en", "base.en", "distil-small.en", "Systran/faster-whisper-tiny.en"])
def test_english_models_refuse_other_languages(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidOption, match="supports English only, not 'fr'"):
        asr(name, "fr", models_dir=tmp_path)
    with pytest.raises(InvalidOption, match="supports English only, not 'fr'"):
        asr(name, "en,fr", models_dir=tmp_path)


def test_a_folder_is_known_by_its_contents(tmp_path: Path) -> None:
    folder = whisper_folder(tmp_path / "mine")
    first = asr(str(folder), models_dir=tmp_path)
    assert (first.name, first.origin, first.location) == ("mine", "folder", str(folder))
    assert first == asr(str(folder), models_dir=tmp_path)
    (folder / "model.bin").write_text("another")
    assert asr(str(folder), models_dir=tmp_path).revision != first.revision
    folder.rename(tmp_path / "moved")
    assert asr(str(tmp_path / "moved"), models_dir=tmp_path).revision == folder_revision(tmp_path / "moved")


def test_a_relative_folder_may_be_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whisper_folder(tmp_path / "mine")
    monkeypatch.chdir(tmp_path)
    assert asr("./mine", models_dir=tmp_path).location == asr("mine", models_dir=tmp_path).location == str(tmp_path / "mine")


@pytest.mark.parametrize("missing", ["model.bin", "tokenizer.json"])
def test_a_folder_without_a_model_is_refused(tmp_path: Path, missing: str) -> None:
    """Without its tokenizer, faster-whisper would ask the hub for one."""
    folder = whisper_folder(tmp_path / "mine")
    (folder / missing).unlink()
    with pytest.raises(UnknownModel, match=f"{missing} missing"):
        asr(str(folder), models_dir=tmp_path)


@pytest.mark.parametrize("name", ["/no/such/folder", "./nowhere", "~/no-such-model"])
def test_a_missing_folder_is_said_to_be_missing(tmp_path: Path, name: str) -> None:
    with pytest.raises(UnknownModel, match="There is no folder"):
        asr(name, models_dir=tmp_path)


@pytest.mark.parametrize("name", ["small", "someone/some-model"])
def test_offline_a_model_that_is_not_here_is_unavailable(tmp_path: Path, name: str) -> None:
    with pytest.raises(ModelUnavailable, match="STENO_OFFLINE is set"):
        asr(name, models_dir=tmp_path, offline=True)


def test_offline_torchaudios_models_must_be_here(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match="STENO_OFFLINE"):
        align("wav2vec2", "en", models_dir=tmp_path, offline=True)
    file = torchaudio_file("WAV2VEC2_ASR_BASE_960H", tmp_path)
    file.parent.mkdir()
    file.touch()
    assert align("wav2vec2", "en", models_dir=tmp_path, offline=True).name == "WAV2VEC2_ASR_BASE_960H"


def test_a_language_without_wav2vec2_is_said_to_have_none(tmp_path: Path) -> None:
    with pytest.raises(InvalidOption, match="no default wav2vec2 model for 'haw'"):
        align("wav2vec2", "haw", models_dir=tmp_path)


@pytest.mark.slow
def test_the_aligners_are_whisperxs_and_torchaudios() -> None:
    import torchaudio.pipelines
    from whisperx.alignment import DEFAULT_ALIGN_MODELS_HF, DEFAULT_ALIGN_MODELS_TORCH

    assert TORCHAUDIO_ALIGN == DEFAULT_ALIGN_MODELS_TORCH
    assert HUB_ALIGN == DEFAULT_ALIGN_MODELS_HF
    found = {name: getattr(torchaudio.pipelines, name)._path for name in TORCHAUDIO_ALIGN.values()}
    assert found == TORCHAUDIO_FILES


def test_the_sizes_are_faster_whispers() -> None:
    from faster_whisper.utils import _MODELS

    for name, repository in _MODELS.items():
        if name not in ("large", "turbo"):
            assert MODELS[name].hub[0].casefold() == repository.casefold()


def test_the_token_is_found_where_the_hub_keeps_it_and_never_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert hub_token() is None
    (tmp_path / "hub-home").mkdir()
    (tmp_path / "hub-home" / "token").write_text(f"{TOKEN}\n")
    assert hub_token() == TOKEN
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    assert hub_token() == "hf_other"
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    for wrong in ("no-such", "/no/such", "someone/some-model"):
        with pytest.raises(StenoError) as caught:
            asr(wrong, models_dir=tmp_path, offline=True)
        assert TOKEN not in caught.value.message


@pytest.mark.parametrize("hub", [True, False])
@pytest.mark.parametrize("gpu", [None, 4.0, 80.0])
@pytest.mark.parametrize("cores", [2, 16])
def test_what_is_recommended_can_be_had_there(hub: bool, gpu: float | None, cores: int) -> None:
    name, why = recommended(Machine(gpu, cores, hub))
    assert name in names("asr")
    assert MODELS[name].packages or hub
    assert why
    if gpu is None and cores == 2:
        assert MODELS[name].megabytes < 200


def test_every_model_says_what_is_asked_of_an_entry() -> None:
    for name, model in MODELS.items():
        assert model.licence and model.megabytes, name
        assert model.engine in ENGINES
        assert model.hub or (model.packages and model.sha256), name
        assert model.hub is None or len(model.hub[1]) == 40
    for name, engine in ENGINES.items():
        assert engine.needs or name == ATTENTION
        assert (Path(__file__).parents[2] / f"{engine.module.replace('.', '/')}.py").is_file()


def test_the_list_of_models_says_sizes_languages_and_licences_and_recommends_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from click.testing import CliRunner

    from infra.settings import get_settings
    from stenoflow.cli.models import command

    monkeypatch.setenv("STENO_HOME", str(tmp_path))
    get_settings.cache_clear()
    plain = CliRunner().invoke(command, []).output
    lines = {line.split()[0]: line.split() for line in plain.splitlines() if line.strip()}
    assert lines["parakeet-tdt-0.6b-v3"][1:6] == ["--model", "no", "2550", "25", "CC-BY-4.0"]
    assert lines["community-1"][1] == "--diarization-model"
    assert lines["community-1"][-1] == "(gated)"
    assert "For this machine: --model " in plain
    rows = [json.loads(line) for line in CliRunner().invoke(command, ["--json"]).output.splitlines()]
    assert {row["name"] for row in rows} == set(MODELS)
    assert {row["step"] for row in rows} == {"asr", "diarize"}
    get_settings.cache_clear()
