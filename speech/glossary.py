"""Glossaries: terms to expect, and what to write in place of what is recognised. Replacing needs no engine.

A line of a glossary's text is a hot word, `heard => written`, or a comment after `#`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from pydantic import Field

from speech.languages import WITHOUT_SPACES
from speech.sentences import join_words, separators, shared_time
from stenoflow.errors import InvalidOption
from stenoflow.types import Frozen, Segment, Word

ARROW = "=>"
MOST_HOTWORDS = 2000
"""Characters of all hot words together, as of the option."""
MOST_REPLACEMENTS = 1000
_EDGES = re.compile(r"^(\W*)(.*?)(\W*)$", re.DOTALL)


class Replacement(Frozen):
    """Whole words, compared without regard to case or the punctuation around them; written as given."""

    heard: str = Field(min_length=1, max_length=200)
    written: str = Field(min_length=1, max_length=200)


class Glossary(Frozen):
    name: str
    hotwords: tuple[str, ...] = ()
    replacements: tuple[Replacement, ...] = ()

    @property
    def text(self) -> str:
        """As `parsed_glossary` reads it."""
        return "".join(f"{line}\n" for line in (*self.hotwords, *(f"{r.heard} {ARROW} {r.written}" for r in self.replacements)))


def parsed_glossary(name: str, text: str) -> Glossary:
    """The glossary that the text describes. Raises InvalidOption, which names the line."""
    hotwords: list[str] = []
    replacements: dict[str, Replacement] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        plain = " ".join(line.partition("#")[0].split())
        heard, arrow, written = (part.strip() for part in plain.partition(ARROW))
        if not plain:
            continue
        if not arrow:
            hotwords.append(plain)
        elif not heard or not written or ARROW in written or max(len(heard), len(written)) > 200 or not _cores(heard):
            raise InvalidOption(f"Line {number} of the glossary is not a hot word or `heard {ARROW} written`.")
        else:
            replacements[" ".join(_cores(heard))] = Replacement(heard=heard, written=written)
    if len(" ".join(hotwords)) > MOST_HOTWORDS or len(replacements) > MOST_REPLACEMENTS:
        raise InvalidOption(
            f"A glossary has at most {MOST_HOTWORDS} characters of hot words and {MOST_REPLACEMENTS} replacements; split it."
        )
    return Glossary(name=name, hotwords=tuple(dict.fromkeys(hotwords)), replacements=tuple(replacements.values()))


def replaced(
    segments: Sequence[Segment], replacements: Sequence[Replacement], language_of: Callable[[Segment], str]
) -> list[Segment]:
    """The segments, each in a language, with what is to be written. Times stay: several words that become one span theirs; one that becomes several shares its time.

    Replacements do not see each other's words; of several that begin at the same word the longest is taken.
    """
    tables = {spaced: {_key(_cores(one.heard), spaced): one.written for one in replacements} for spaced in (True, False)}
    if not replacements:
        return list(segments)

    def one(segment: Segment) -> Segment:
        language = language_of(segment)
        spaced = language not in WITHOUT_SPACES
        table = tables[spaced]
        longest = max(len(key) if spaced else len("".join(key)) for key in table)
        return _replaced(segment, table, longest, language, spaced)

    return [one(segment) for segment in segments]


def _replaced(segment: Segment, table: dict[tuple[str, ...], str], longest: int, language: str, spaced: bool) -> Segment:
    words = segment.words
    leads = separators([word.word for word in words], segment.text, language)
    out: list[Word] = []
    spaces: list[str] = []
    at = 0
    while at < len(words):
        count, written = _longest_match(words[at : at + longest], table, spaced)
        if not count:
            out.append(words[at])
            spaces.append(leads[at])
            at += 1
            continue
        new = _written(words[at : at + count], written.split())
        out += new
        spaces += [leads[at], *(" " for _ in new[1:])]
        at += count
    if out == list(words):
        return segment
    text = join_words([word.word for word in out], spaces)
    return segment.model_copy(update={"words": tuple(out), "text": text})


def _longest_match(words: Sequence[Word], table: dict[tuple[str, ...], str], spaced: bool) -> tuple[int, str]:
    """How many of the first words are to be replaced, and by what."""
    cores = [_core(word.word) for word in words]
    for count in range(len(cores), 0, -1):
        # Punctuation inside ends a match: `steno. Flow` are two sentences.
        inside = "".join(_tail(word.word) for word in words[: count - 1])
        if not inside and (key := _key(cores[:count], spaced)) in table:
            return count, table[key]
    return 0, ""


def _written(words: Sequence[Word], texts: Sequence[str]) -> list[Word]:
    """The words in place of these, with the punctuation around them."""
    first, last = _EDGES.match(words[0].word), _EDGES.match(words[-1].word)
    assert first is not None and last is not None
    texts = [f"{first[1] if not place else ''}{text}" for place, text in enumerate(texts)]
    texts[-1] += last[3]
    if len(texts) == len(words):
        return [word.model_copy(update={"word": text}) for word, text in zip(words, texts, strict=True)]
    score = min(word.score for word in words)
    start, end = words[0].start, max(word.end for word in words)
    timing = words[0].timing if len(texts) == 1 else "interpolated"
    return [
        words[0].model_copy(
            update={"word": text, "start": round(begins, 3), "end": round(ends, 3), "score": score, "timing": timing}
        )
        for text, begins, ends in shared_time(texts, start, end)
    ]


def _key(cores: Sequence[str], spaced: bool) -> tuple[str, ...]:
    return tuple(cores) if spaced else ("".join(cores),)


def _cores(text: str) -> list[str]:
    return [core for word in text.split() if (core := _core(word))]


def _core(word: str) -> str:
    found = _EDGES.match(word)
    return (found[2] if found else word).casefold()


def _tail(word: str) -> str:
    found = _EDGES.match(word)
    return found[3] if found else ""
