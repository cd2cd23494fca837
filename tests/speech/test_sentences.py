"""Sentences are cut where a reader would cut them, in the languages Whisper writes."""

from __future__ import annotations

import random

import pytest

from speech.languages import LANGUAGES
from speech.sentences import MAX_WORDS, join_words, separators, split_sentences


def sentences(text: str, language: str = "en") -> list[str]:
    """The text cut, shown with `|` between sentences; languages without spaces are cut into characters first."""
    spaced = language not in ("ja", "zh")
    words = text.split() if spaced else [character for character in text if character.strip()]
    return [(" " if spaced else "").join(words[start:end]) for start, end in split_sentences(words, language)]


@pytest.mark.parametrize(
    ("language", "expected"),
    [
        ("en", "Hello there.|How are you?|Fine!"),
        ("en", "Mr. Smith met Dr. Jones at 5 p.m.|The talk was long."),
        ("en", "He lives in the U.S. Government rules apply.|In the U.S.|The end."),
        ("en", "J. R. R. Tolkien wrote it.|George W. Bush read it."),
        ("en", "No.|I won't.|See No. 5 for that."),
        ("en", '"Really?" he said.|"Yes."|She left.'),
        ("en", "(See above.)|Then go."),
        ("en", "Apples, e.g. Granny Smith, etc.|They are good."),
        ("en", "It cost 3.5 dollars.|It was 2019.|20 people came on Jan. 5 to see it."),
        ("en", "I... I think so.|So...|Then we go."),
        ("en", "1. First item.|2. Second item."),
        ("en", "I like it.|iPhone is good."),
        ("en", "Neither did I.|Peter thought so.|This is John I. Smith."),
        ("en", "hello there.|how are you?|fine."),
        ("en", "Wow!!!|That's it?!|Yes."),
        ("en", "Plan B.|Then we left."),
        ("fr", "Vraiment ?|Oui.|M. Dupont est là, c.-à-d. Paul.|« Bonjour ! » dit-il.|« Bonjour ! »|Il part."),
        ("de", "Am 3. Oktober war z. B. Herr Dr. Meier da.|Das war 2019.|Danach kam er."),
        ("es", "¿Qué?|¡No!|El Sr. López vino a EE.UU. García.|Sí."),
        ("it", "Il sig. Rossi è qui.|Bene, ecc.|Poi va via."),
        ("pt", "O Sr. Silva chegou.|Depois saiu."),
        ("nl", "Dhr. Jansen komt bijv. Maandag.|Dat is goed."),
        ("ru", "Он жил в г. Москва.|Это т.е. Россия.|Потом ушёл."),
        ("pl", "Mieszka przy ul. Długiej.|To dobrze."),
        ("zh", "今天天气很好。|我们去公园吧！！|好吗？|「好。」|圆周率是3.14。"),
        ("ja", "「そうですか。」と言った。|「はい。」|それで終わり。"),
        ("ko", "안녕하세요.|잘 지냈어요?|네."),
        ("hi", "मैं ठीक हूँ।|आप कैसे हैं?|अच्छा।"),
        ("ar", "كيف حالك؟|أنا بخير.|شكرا."),
        ("ur", "آپ کیسے ہیں؟|میں ٹھیک ہوں۔|شکریہ۔"),
        ("el", "Τι κάνεις;|Καλά."),
        ("hy", "Բարեւ։|Ինչպես ես։"),
        ("am", "ሰላም።|እንዴት ነህ።"),
    ],
)
def test_sentences_end_where_a_reader_ends_them(language: str, expected: str) -> None:
    joiner = "" if language in ("ja", "zh") else " "
    assert sentences(expected.replace("|", joiner), language) == expected.split("|")


@pytest.mark.parametrize("language", sorted(LANGUAGES))
def test_every_word_is_in_exactly_one_sentence_in_order(language: str) -> None:
    random.seed(7)
    pool = [
        "a",
        "The",
        "U.S.",
        "3.",
        "...",
        "?",
        "”",
        "Mr.",
        "。",
        "ok,",
        "42",
        "I",
        "»",
        "«",
        "x.",
        "!!",
        "é",
        " ",
        "\n",
        "-",
        "好",
    ]
    for _ in range(60):
        words = random.choices(pool, k=random.randint(0, 200))
        ranges = split_sentences(words, language)
        assert [index for start, end in ranges for index in range(start, end)] == list(range(len(words)))
        if any(character.isalnum() for word in words for character in word):
            assert all(any(c.isalnum() for word in words[start:end] for c in word) for start, end in ranges)


def test_closing_quotes_as_words_of_their_own_stay_with_their_sentence() -> None:
    assert split_sentences(["Er", "geht.", "”", "Dann", "kam", "sie."], "de") == [(0, 3), (3, 6)]


def test_punctuation_alone_is_one_piece() -> None:
    assert split_sentences(["...", "!", "?"], "en") == [(0, 3)]
    assert split_sentences([], "en") == []


def test_a_run_on_is_cut_at_a_comma_and_never_above_the_limit() -> None:
    words = ["word"] * 70 + ["end,"] + ["more"] * 100
    ranges = split_sentences(words, "en")
    assert ranges[0] == (0, 71)
    assert max(end - start for start, end in ranges) <= MAX_WORDS


def test_words_are_joined_as_the_text_spaces_them() -> None:
    text = "我用 Open AI 写 code。"
    words = ["我", "用", "Open", "AI", "写", "code", "。"]
    spaces = separators(words, text, "zh")
    assert join_words(words, spaces) == text
    assert join_words(words[2:4], spaces[2:4]) == "Open AI"
    words = ["a", "well-", "known", "fact"]
    assert join_words(words, separators(words, "a well-known  fact", "en")) == "a well-known fact"


def test_words_missing_from_the_text_are_joined_by_the_language() -> None:
    assert separators(["not", "there"], "other text", "en") == ["", " "]
    assert separators(["不", "在"], "另外", "zh") == ["", ""]
    assert separators([], "", "en") == []
    assert join_words([], []) == ""
