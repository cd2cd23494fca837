"""Which texts repeat themselves, in any script; and which of two attempts is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from speech.asr.decoded import Decoded, better
from speech.models import resolve_asr
from speech.schema import RuntimeOptions
from speech.weights import weights_folder
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
