"""The words that are compared: two ways to write down the same speech must not count as an error.

The rules are fewer than those of Whisper's own English normaliser (Radford et al., "Robust Speech Recognition via
Large-Scale Weak Supervision", 2022, appendix C) and apply to every language: no table of British and American spellings, and nothing
that is said is dropped, hesitations included.
"""

from __future__ import annotations

import re
import unicodedata

from speech.languages import WITHOUT_SPACES
from speech.scoring.numbers import join_numbers

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
_NUMBERS = {
    "fr": "zero un deux trois quatre cinq six sept huit neuf dix",
    "es": "cero uno dos tres cuatro cinco seis siete ocho nueve diez",
    "it": "zero uno due tre quattro cinque sei sette otto nove dieci",
    "ru": "ноль один два три четыре пять шесть семь восемь девять десять",
}


def in_characters(language: str) -> bool:
    """Whether the language is written without spaces, so that its characters are compared and not its words."""
    return language in WITHOUT_SPACES


def normalise(text: str, language: str = "en") -> list[str]:
    """The words that are compared, in order; characters for a language written without spaces.

    Case and accents are folded (texts are often typed without accents), punctuation is dropped, and thousands lose their
    comma. In English contractions are spelled out, numbers in words become digits (`twenty-one` → `21`), `$5` is `5
    dollars`, four common abbreviations have one spelling, and other apostrophes join (`user's` → `users`). In French,
    Spanish, Italian and Russian number words up to ten become digits. Elsewhere an apostrophe separates (`d'accord` →
    `d accord`). Nothing else is forgiven: compounds and misspellings in the truth count as errors, for every model alike.
    """
    folded = _folded(text)
    if language == "en":
        for pattern, replacement in _CONTRACTIONS:
            folded = re.sub(pattern, replacement, folded)
        folded = folded.replace("'", "")
    folded = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", folded)
    words = "".join(character if _is_letter(character) else " " for character in folded).split()
    if in_characters(language):
        return [character for word in words for character in word]
    if language == "en":
        words = join_numbers(words)
    numbers = {word: str(value) for value, word in enumerate(_NUMBERS.get(language, "").split())}
    return [numbers.get(word, _SPELLINGS.get(word, word)) for word in words]


def _folded(text: str) -> str:
    """In lower case, without the accents of alphabets and the points of Hebrew and Arabic.

    Marks that make another letter of it stay: the vowels of Indic scripts, the tones of Thai, the voicing of kana.
    """
    plain = unicodedata.normalize("NFKD", text.casefold().replace("’", "'"))
    return unicodedata.normalize("NFC", "".join(character for character in plain if not _is_accent(character)))


def _is_accent(character: str) -> bool:
    """By canonical combining class: 200 and above attach to any letter, 10–36 are the points of Hebrew and Arabic."""
    kind = unicodedata.combining(character)
    return kind >= 200 or 10 <= kind <= 36


def _is_letter(character: str) -> bool:
    return unicodedata.category(character)[0] in "LMN"
