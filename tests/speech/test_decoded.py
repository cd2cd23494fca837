"""Which texts repeat themselves, in any script; and which of two attempts is kept."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from speech.asr.decoded import Decoded, better
from speech.asr.whisper import Transcriber, Weights
from speech.languages import WITHOUT_SPACES
from speech.models import resolve_asr
from speech.schema import AsrParams, RuntimeOptions
from speech.weights import weights_folder
from stenoflow.errors import InvalidOption
from stenoflow.types import ModelInfo
from tests.scripts import ARTICLES


@pytest.fixture(scope="module")
def tokenizer(runtime: RuntimeOptions, models_dir: Path) -> Any:
    """Whisper's, of every multilingual model before large-v3."""
    import tokenizers

    folder = weights_folder(resolve_asr("base", None, models_dir=models_dir, offline=True), models_dir)
    return tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))


def decoded(text: str, tokens: list[int] | None = None, logprob: float = -0.2, **facts: Any) -> Decoded:
    return Decoded(tokens or [], text, logprob, 0.1, **facts)


@pytest.mark.parametrize("language", ARTICLES)
def test_good_prose_is_no_loop_in_any_script(language: str) -> None:
    assert not decoded(ARTICLES[language]).repetitive


@pytest.mark.parametrize("language", ARTICLES)
def test_a_sentence_over_and_over_is_a_loop_in_any_script(language: str) -> None:
    part = ARTICLES[language][:40]
    assert decoded(" ".join([part] * 6)).repetitive
    assert decoded(ARTICLES[language] + " ".join([part] * 6)).repetitive


@pytest.mark.parametrize("language", ARTICLES)
def test_a_strict_pass_can_give_good_prose_in_any_script(language: str, tokenizer: Any) -> None:
    tokens = tokenizer.encode(" " + ARTICLES[language], add_special_tokens=False).ids
    size = decoded(ARTICLES[language], tokens).strict_ngrams[0]
    runs = list(zip(*(tokens[first:] for first in range(size)), strict=False))
    assert len(runs) == len(set(runs)), f"the strict pass may repeat {size} tokens, and this text repeats as many"


def test_a_strict_pass_forbids_in_english_what_it_always_did(tokenizer: Any) -> None:
    tokens = tokenizer.encode(" " + ARTICLES["en"], add_special_tokens=False).ids
    assert decoded(ARTICLES["en"], tokens=tokens).strict_ngrams == [5]


@pytest.mark.parametrize(
    ("text", "loop"),
    [
        ("", False),
        ("good morning everyone, how are you", False),
        ("No, no, no, no, no.", False),
        ("I said it. I said it. You never listen.", False),
        ("and then " * 30, True),
        ("Thank you. " * 8, True),
        ("Tsabi Manufyoko-ta" + "-ta" * 40, True),
        ("We met in the station before the train left for the coast. " + "and then " * 20, True),
    ],
)
def test_a_loop_is_a_phrase_that_goes_on_and_on(text: str, loop: bool) -> None:
    assert decoded(text).repetitive is loop


LOOP = decoded("and then " * 30, logprob=-0.1, cut_short=True)
SAID = decoded("and then we met at the station", logprob=-0.6)


@pytest.mark.parametrize(
    ("first", "strict", "kept"),
    [
        (LOOP, SAID, SAID),
        (decoded("one two three " * 8, logprob=-0.1), decoded("one two three four won to free", logprob=-0.9), 0),
        (decoded("one two three " * 8, logprob=-0.1), decoded("one two three four", logprob=-0.2), 1),
        (LOOP, decoded("and then " * 30, logprob=-0.1, cut_short=True), 0),
        (LOOP, decoded(""), 0),
        (decoded("one two three " * 8), decoded("uno dos tres " * 3, cut_short=True), 0),
    ],
    ids=["out of a loop", "said so often", "as likely without", "as much of a loop", "nothing", "cut short"],
)
def test_the_better_attempt_is_kept(first: Decoded, strict: Decoded, kept: Decoded | int) -> None:
    wanted = (first, strict)[kept] if isinstance(kept, int) else kept
    assert better(first, strict) is wanted


@pytest.fixture
def asked(tokenizer: Any) -> Any:
    """Whisper `base`, asked for a task; of the model only the tokenizer is needed."""

    def make(task: str) -> Transcriber:
        model = SimpleNamespace(hf_tokenizer=tokenizer, model=SimpleNamespace(is_multilingual=True))
        info = ModelInfo(name="base", revision="1", origin="package")
        return Transcriber(Weights(model, Path()), info, AsrParams.model_validate({"task": task}))  # type: ignore[arg-type]

    return make


@pytest.mark.parametrize("language", sorted(WITHOUT_SPACES - {"yue"}))
def test_a_translation_has_english_words_whatever_was_spoken(language: str, asked: Any, tokenizer: Any) -> None:
    splitting = asked("translate")._tokenizer(language)
    tokens = tokenizer.encode(" We learned to listen.", add_special_tokens=False).ids
    assert splitting.split_to_word_tokens(tokens)[0] == [" We", " learned", " to", " listen", "."]
    assert splitting.sot_sequence[1:] == [tokenizer.token_to_id(f"<|{language}|>"), tokenizer.token_to_id("<|translate|>")]


@pytest.mark.parametrize("language", sorted(WITHOUT_SPACES & ARTICLES.keys()))
def test_text_without_spaces_is_split_into_characters(language: str, asked: Any, tokenizer: Any) -> None:
    tokens = tokenizer.encode(ARTICLES[language], add_special_tokens=False).ids
    pieces = asked("transcribe")._tokenizer(language).split_to_word_tokens(tokens)[0]
    assert "".join(pieces) == ARTICLES[language]
    assert max(map(len, pieces)) <= 8


def test_cantonese_is_refused_by_a_model_that_has_no_token_for_it(asked: Any, models_dir: Path) -> None:
    with pytest.raises(InvalidOption, match="'yue'"):
        asked("transcribe")._tokenizer("yue")
    for model in ("base", "large-v2"):
        with pytest.raises(InvalidOption, match=f"{model!r} does not support Cantonese"):
            resolve_asr(model, "yue", models_dir=models_dir, offline=True)


def test_a_loop_may_begin_in_the_hints() -> None:
    echo = Decoded([1] * 20, "Kumquat zeppelin marmalade. And this is Diane.", -0.3, 0.1)
    assert not echo.repetitive
    assert not dataclasses.replace(echo, hints="Kumquat zeppelin marmalade.").repetitive, "a name that was hinted at is said"
    assert dataclasses.replace(echo, hints="Kumquat zeppelin marmalade. " * 8).repetitive
