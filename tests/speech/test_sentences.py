"""Sentences are cut where a reader would cut them, in the languages Whisper writes."""

from __future__ import annotations

import random

import pytest
import sentencex

from speech.languages import LANGUAGES
from speech.sentences import MAX_WORDS, join_words, separators, split_sentences


def sentences(text: str, language: str = "en") -> list[str]:
    """The text cut, shown with `|` between sentences; languages without spaces are cut into characters first."""
    spaced = language not in ("ja", "zh")
    words = text.split() if spaced else [character for character in text if character.strip()]
    return [(" " if spaced else "").join(words[start:end]) for start, end in split_sentences(words, language)]


def as_text(language: str, expected: str) -> str:
    return expected.replace("|", "" if language in ("ja", "zh") else " ")


# Written before anybody looked at what the rules make of them, to hold them to a library; `MISSED` are cut wrongly.
HARD = [
    ("en", "He paid $3.50 at 7.30 a.m.|Then he left."),
    ("en", "Visit https://example.com/a.html for more.|Thanks."),
    ("en", "Mail me at j.doe@example.co.uk.|I will answer."),
    ("en", "The U.S. economy grew.|So did Japan's."),
    ("en", "She said: “I know.”|He nodded."),
    ("en", "“Are you sure?” asked Tom.|“Yes!”"),
    ("en", "Version 2.0.1 is out.|Get it."),
    ("en", "Well... maybe.|Or not…|Who knows?"),
    ("en", "Yahoo! is a company.|So is Google."),
    ("en", "He works for Acme Co. Ltd.|They make things."),
    ("en", "Mrs. O'Neil, Ph.D., spoke.|All listened."),
    ("en", "Is it 5 ft. tall?|No, 6."),
    ("es", "¿Cómo estás?|¡Muy bien!|Gracias."),
    ("es", "La Sra. Gómez pagó 3.500 pesos.|Se fue."),
    ("es", "Vive en la Avda. Libertador n.º 5.|Es caro."),
    ("es", "¿De verdad…?|No sé.|Quizá."),
    ("fr", "J'ai vu Mme Durand et le Pr. Martin.|Ils vont bien."),
    ("fr", "Elle a dit : « Je viens. »|Puis elle est partie."),
    ("de", "Das kostet ca. 3,50 Euro.|Danke."),
    ("de", "Er kommt am 1. Mai, d. h. morgen.|Gut."),
    ("de", "„Kommst du?“, fragte er.|„Ja.“|Sie ging."),
    ("it", "Il dott. Bianchi arriva alle 8.30.|Aspettiamo."),
    ("it", "«Davvero?» chiese.|«Sì.»|Poi tacque."),
    ("pt", "O Dr. Sousa mora na Av. Paulista, nº 10.|É longe."),
    ("nl", "Prof. dr. Visser kwam om 3.15 uur.|Hij sprak o.a. over water."),
    ("ru", "Это стоит 5 тыс. руб. в месяц.|Дорого."),
    ("ru", "А. С. Пушкин родился в 1799 г. в Москве.|Он поэт."),
    ("tr", "Dr. Yılmaz geldi.|Saat 10.30'da başladık."),
    ("sv", "Det kostar ca. 50 kr.|Tack."),
    ("cs", "Pan Ing. Novák přišel 3. května.|Dobře."),
    ("zh", "他说：“你好！”|然后走了。|价格是3.5元。"),
    ("ja", "本当ですか？|はい！|価格は3.5円です。"),
    ("ja", "「行くの？」と聞いた。|「うん。」"),
    ("ko", "가격은 3.5달러입니다.|좋아요."),
    ("el", "Ο κ. Παπαδόπουλος ήρθε.|Πού είναι;|Εδώ."),
    ("th", "สวัสดีครับ"),
]
MISSED = [
    ("en", "Prof. A. B. Clark vs. Acme Inc. is on p. 12.|Read it."),
    ("en", "We met at St. John's on Fri. Feb. 3rd.|It rained."),
    ("fr", "Il est né le 1er janv. 1980.|Il vit à Paris."),
    ("fr", "Rendez-vous à 10 h. 30 env. devant la gare.|Merci."),
    ("de", "Fr. Dr. Meier wohnt in der Hauptstr. 5.|Sie ist da."),
    ("de", "Es gibt Äpfel, Birnen usw.|Alles ist frisch."),
    ("pl", "Prof. Nowak przyjechał o godz. 10.|Mówił np. o wodzie."),
    ("zh", "真的吗？|是的……|好吧。"),
    ("hi", "डॉ. शर्मा आए।|वे अच्छे हैं।"),
    ("ar", "وصل د. أحمد.|أين هو؟|هنا."),
]


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
        *HARD,
    ],
)
def test_sentences_end_where_a_reader_ends_them(language: str, expected: str) -> None:
    assert sentences(as_text(language, expected), language) == expected.split("|")


def test_the_library_for_it_cuts_fewer_of_the_hard_ones_right() -> None:
    """When this fails, rules of our own are no longer worth their lines: docs/decisions/libraries.md."""
    right = ours = 0
    for language, expected in HARD + MISSED:
        text = as_text(language, expected)
        right += [part.strip() for part in sentencex.segment(language, text)] == expected.split("|")
        ours += sentences(text, language) == expected.split("|")
    assert ours > right > 0


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
    assert split_sentences(["…"], "en") == [(0, 1)]
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


@pytest.mark.parametrize(
    ("words", "ranges"),
    [
        (["—", "Yes.", "No."], [(0, 2), (2, 3)]),
        (["Yes.", "…", "No.", "!"], [(0, 2), (2, 4)]),
        (["Yes.", "—", "…"], [(0, 3)]),
    ],
)
def test_punctuation_beside_words_is_in_a_sentence_of_theirs(words: list[str], ranges: list[tuple[int, int]]) -> None:
    assert split_sentences(words, "en") == ranges
