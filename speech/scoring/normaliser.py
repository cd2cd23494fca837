"""The words that are compared: two ways to write down the same speech must not count as an error.

The rules are fewer than those of Whisper's own English normaliser (Radford et al., "Robust Speech Recognition via
Large-Scale Weak Supervision", 2022, appendix C) and apply to every language: no table of British and American spellings, and nothing
that is said is dropped, hesitations included.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Callable

from speech.languages import WITHOUT_SPACES

_CONTRACTIONS = (
    (r"\bwon't\b", "will not"),
    (r"\bcan't\b", "can not"),
    (r"\bcannot\b", "can not"),
    (r"n't\b", " not"),
    (r"'re\b", " are"),
    (r"'ve\b", " have"),
    (r"'ll\b", " will"),
    (r"'m\b", " am"),
    (r"\b(it|that|there|here|what)'s\b", r"\1 is"),
    (r"\$\s?(\d[\d,.]*)", r"\1 dollars"),
    (r"(\d)\s?%", r"\1 percent"),
)
_SPELLINGS = {"ok": "okay", "mr": "mister", "mrs": "missus", "dr": "doctor"}
# Number words that text2num does not know without their accents, which folding takes; and Russian's, which it does not know.
_SPELLINGS |= {"zero": "0", "funf": "5", "zwolf": "12"}
_RUSSIAN = "ноль один два три четыре пять шесть семь восемь девять десять"
_SPELLINGS |= {word: str(value) for value, word in enumerate(_RUSSIAN.split())}
_WITH_NUMBERS = frozenset({"da", "de", "en", "es", "fr", "it", "nl", "pt"})
"""Languages whose numbers text2num reads."""


def in_characters(language: str) -> bool:
    """Whether the language is written without spaces, so that its characters are compared and not its words."""
    return language in WITHOUT_SPACES


def normalise(text: str, language: str = "en") -> list[str]:
    """The words that are compared, in order; characters for a language written without spaces.

    Case and accents are folded (texts are often typed without accents), punctuation is dropped, and thousands lose their
    comma (outside of English their point as well). In Danish, Dutch, English, French, German, Italian, Portuguese and Spanish numbers
    in words become digits (`twenty-one` → `21`), in Russian those up to ten. In English contractions are spelled out, `$5` is
    `5 dollars`, and other apostrophes join (`user's` → `users`); elsewhere an apostrophe separates (`d'accord` → `d accord`).
    Four common abbreviations have one spelling. Nothing else is forgiven: compounds and misspellings in the truth count as
    errors, for every model alike.
    """
    lower = unicodedata.normalize("NFC", text.casefold().replace("’", "'"))
    if language == "en":
        for pattern, replacement in _CONTRACTIONS:
            lower = re.sub(pattern, replacement, lower)
        lower = lower.replace("'", "")
    lower = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", lower)
    if language != "en":
        lower = re.sub(r"(?<=\d)\.(?=\d{3}(?!\d)|er\b)", "", lower)  # `10.000`, and Spanish `1.er`
    if language in _WITH_NUMBERS:
        lower = _in_digits(_letters(lower), language)
    words = _letters(_without_accents(lower)).split()
    if in_characters(language):
        return [character for word in words for character in word]
    return [_SPELLINGS.get(word, word) for word in words]


def whisper_normalise(text: str, language: str = "en") -> list[str]:
    """The same by OpenAI's rules, which published word error rates are counted by: English's own, elsewhere the basic ones."""
    return _whisper(language)(text).split()


@functools.cache
def _whisper(language: str) -> Callable[[str], str]:
    from whisper_normalizer.basic import BasicTextNormalizer
    from whisper_normalizer.english import EnglishTextNormalizer

    rules: Callable[[str], str] = (
        EnglishTextNormalizer() if language == "en" else BasicTextNormalizer(split_letters=in_characters(language))
    )
    return rules


def _in_digits(text: str, language: str) -> str:
    """The text with each number in digits; text2num's, and what is said in English or written half in digits as well."""
    from text_to_num import alpha2digit

    if language == "en":
        text = re.sub(r"\ban? (?=(hundred|thousand|million|billion)\b)", "", text)
    text = alpha2digit(text, language, threshold=0).replace(".ᵉʳ", "er")
    if language == "en":  # a year: its halves are said as numbers of two digits
        text = re.sub(r"\b(1[3-9]|20) ([1-9]\d)\b", r"\1\2", text)
    return re.sub(r"\b([1-9]\d{0,2}) 1((?:000)+)\b", r"\1\2", text)  # `5 million`


def _letters(text: str) -> str:
    return " ".join("".join(character if _is_letter(character) else " " for character in text).split())


def _without_accents(text: str) -> str:
    """Without the accents of alphabets and the points of Hebrew and Arabic.

    Marks that make another letter of it stay: the vowels of Indic scripts, the tones of Thai, the voicing of kana.
    """
    plain = unicodedata.normalize("NFKD", text)
    return unicodedata.normalize("NFC", "".join(character for character in plain if not _is_accent(character)))


def _is_accent(character: str) -> bool:
    """By canonical combining class: 200 and above attach to any letter, 10–36 are the points of Hebrew and Arabic."""
    kind = unicodedata.combining(character)
    return kind >= 200 or 10 <= kind <= 36


def _is_letter(character: str) -> bool:
    return unicodedata.category(character)[0] in "LMN"
