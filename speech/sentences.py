"""Where sentences end, and what stands between words.

Own rules instead of a library: NLTK's punkt (what WhisperX uses) needs a download at run time and knows neither initials
nor CJK; pysbd covers 22 languages, takes text instead of words, and loses offsets on odd whitespace; sentencex cuts fewer of
our hard cases right (docs/decisions/libraries.md). Whisper's own punctuation is regular enough that a stop, the next word's case and
a list of abbreviations decide nearly all of it.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence

from speech.languages import WITHOUT_SPACES

MAX_WORDS = 80
"""A sentence longer than this is cut, at a comma where there is one. 30 s of fast speech hold about 100 words."""
MAX_WORDS_WITHOUT_SPACES = 160
"""The same where a word is a character or two."""

_CLOSERS = "\"'”’“»›«‹)]}」』）】》〉〕*_"
_OPENERS = "\"'“‘„‚«‹([{「『（【《〈〔¿¡*_-–—"
_FULL_STOPS = "。！？｡．।॥۔؟։።፧។៕။།༎‽⁇⁈⁉"
"""Stops that end a sentence whatever follows."""
_STOPS = "!?！？؟‽⁇⁈⁉"
_WEAK = ",;:，、；：،؛—–"


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


# Stems without the final dot, lower case. The first list stands before a name or an example and never ends a sentence;
# the second may; the third is an abbreviation only before a number ("No. 5", but "No. I won't.").
_BEFORE_NAME: dict[str, str] = {
    "": "dr prof st vs cf ca approx e.g i.e viz mr mrs ms mx mme mlle",
    "en": "rev hon mt ft capt cpt col gen lt sgt cmdr maj gov sen rep pres supt messrs dist",
    "fr": "mm pr ste mgr env p.ex c.-à-d bd chap",
    "de": "hr fr bzw z.b d.h u.a o.ä evtl ggf inkl exkl vgl bspw sog geb gest tel mio mrd dipl ing usf mind max min",
    "es": "sr sra srta sres dra dña lic ing profa ud uds av avda p.ej ej gral",
    "it": "sig sigg sig.ra sig.na dott dott.ssa avv ing arch on geom rag es p.es mons",
    "pt": "sr sra srta dra profa eng exmo exma av p.ex ex",
    "nl": "dhr mevr mw drs ir ing bijv d.w.z o.a m.b.t i.p.v t.o.v i.v.m a.u.b",
    "ru": "гг ул пр т.е т.к им проф акад доц см напр ред",
    "uk": "вул просп т.зв ім проф акад доц див напр",
    "pl": "mgr inż hab ul np tzw tzn m.in św ks wg al",
    "cs": "např tj tzv mudr judr ing doc mgr bc sv",
    "sk": "napr tj tzv mudr judr ing doc mgr bc sv",
    "sv": "t.ex bl.a d.v.s dvs s.k",
    "da": "f.eks bl.a dvs hr fr s.k",
    "no": "f.eks bl.a dvs hr fr s.k",
    "fi": "esim ns mm ts",
    "tr": "doç av sn örn",
    "hu": "pl ún kb ifj id özv ill",
    "ro": "dl dna dra str ing",
    "el": "κ κκ π.χ δηλ",
    "id": "jl drs ir",
}
_MAY_END: dict[str, str] = {
    "": "etc jr sr inc ltd co corp bros a.m p.m u.s u.k u.n e.u ph.d m.d b.a m.a d.c",
    "en": "dept ave blvd rd est",
    "de": "usw etc str u.s.w jh",
    "es": "ee.uu",
    "it": "ecc",
    "nl": "enz b.v n.v e.d",
    "ru": "т.д т.п др пр руб тыс млн млрд н.э",
    "uk": "т.д т.п ін грн тис млн млрд",
    "pl": "itd itp r w zł",
    "cs": "atd apod",
    "sk": "atď apod",
    "sv": "osv m.m",
    "da": "osv m.m",
    "no": "osv m.m",
    "fi": "jne",
    "tr": "vb vs",
    "hu": "stb",
    "el": "κλπ κ.λπ κ.ά",
    "id": "dll",
}
_BEFORE_NUMBER = _set(
    "no nos nr vol p pp pag pág art fig figs ch sec par jan feb apr jun jul aug sep sept oct nov dec n núm num nº n.º "
    "kl klo nro godz č str стр рис ст абз бл c § tel"
)
_ORDINAL_DOT = _set("de da no nn fi cs sk pl hu hr sr bs sl et lv is lb tr fo")
"""Languages that write "3. Oktober"."""

# Words that begin sentences far more often than they follow an abbreviation or an initial as a name.
_STARTERS: dict[str, frozenset[str]] = {
    language: _set(words)
    for language, words in {
        "en": "the a an we he she it they you this that these those there here but and so or if when what where why how who "
        "which then now well yes no okay oh my your his her our their in on at for to as with because do does did is are was "
        "were can could would should will let not just after before while since i'm i've i'll it's that's there's he's she's",
        "fr": "le la les un une des il elle ils elles on je nous vous ce cette ces c'est et mais ou donc alors puis quand si "
        "comment pourquoi où que qui oui non dans en sur pour avec à",
        "de": "der die das ein eine er sie es wir ihr ich und aber oder dann danach da dort hier jetzt heute wenn weil als wie "
        "was wer wo warum ja nein in im am auf mit für bei nach von zu dieser diese dieses man so doch",
        "es": "el la los las un una él ella ellos yo nosotros esto este esta eso y pero o entonces luego cuando si cómo qué "
        "quién dónde sí no en con para por a hay es ahora",
        "it": "il lo la i gli le un una lui lei loro io noi questo questa quello e ma o allora poi quando se come che chi dove "
        "sì no in con per a è ora",
        "pt": "o a os as um uma ele ela eles eu nós isto este esta isso e mas ou então depois quando se como que quem onde sim "
        "não em com para por há é agora",
        "nl": "de het een hij zij ze het wij we ik dit dat deze en maar of dan toen daar hier nu als wat wie waar waarom hoe ja "
        "nee in op met voor bij na van te er",
        "ru": "он она оно они я мы вы это этот эта эти и но а или тогда потом когда если как что кто где почему да нет в на с "
        "для по там здесь теперь сейчас",
    }.items()
}


def split_sentences(words: Sequence[str], language: str) -> list[tuple[int, int]]:
    """Half-open ranges of `words`, one per sentence, in order, covering all of them.

    No range is punctuation alone unless all words are. A run-on without a stop is cut at MAX_WORDS.
    """
    if not words:
        return []
    units, unit_ends = _units(words, _FULL_STOPS)
    rules = _Rules(units, language)
    ends = [end for index, end in enumerate(unit_ends) if rules.ends_sentence(index)]
    ranges: list[tuple[int, int]] = []
    start = 0
    for end in [*ends, len(words)]:
        if end > start and any(_has_letter(word) for word in words[start:end]):
            ranges.append((start, end))
            start = end
    if start < len(words):
        ranges[-1:] = [(ranges[-1][0] if ranges else 0, len(words))]
    limit = MAX_WORDS_WITHOUT_SPACES if language in WITHOUT_SPACES else MAX_WORDS
    return [part for whole in ranges for part in _cut(words, whole, limit)]


def separators(words: Sequence[str], text: str, language: str) -> list[str]:
    """What stands before each word in `text`: "" or " "; always "" before the first.

    Read off the text, so that "Open AI" inside Chinese keeps its space; where a word is not found in it, by the language.
    """
    default = "" if language in WITHOUT_SPACES else " "
    found: list[str] = []
    cursor = 0
    for word in words:
        at = text.find(word, cursor)
        if at < 0 or text[cursor:at].strip():
            found = [default] * len(words)
            break
        found.append(" " if at > cursor else "")
        cursor = at + len(word)
    return ["", *found[1:]] if found else []


def join_words(words: Sequence[str], spaces: Sequence[str]) -> str:
    """The words as one line, with what `separators` put before each, except before the first."""
    return "".join(part for pair in zip(["", *spaces[1:]], words, strict=True) for part in pair) if words else ""


class _Rules:
    """The decision for one list of units: does a sentence end after unit `index`?"""

    def __init__(self, units: Sequence[str], language: str) -> None:
        base = "no" if language == "nn" else language
        self.units = units
        self.language = base
        self.spaced = base not in WITHOUT_SPACES
        self.before_name = _set(f"{_BEFORE_NAME['']} {_BEFORE_NAME.get(base, '')}")
        self.may_end = _set(f"{_MAY_END['']} {_MAY_END.get(base, '')}")
        if base == "tr":
            self.before_name -= {"vs"}
        if base in ("es", "pt"):
            self.may_end -= {"sr"}
        self.starters = _STARTERS.get(base)
        self.case_tells = any(_core(unit)[:1].isupper() for unit in units)
        self.full_stops = _FULL_STOPS + (";\u037e" if base == "el" else "")

    def ends_sentence(self, index: int) -> bool:
        unit = self.units[index]
        stem = unit.rstrip(_CLOSERS)
        following = next((_core(after) for after in self.units[index + 1 :] if _has_letter(after)), "")
        if not stem or not following:
            return False
        if self.language == "ja" and unit[-1] in "」』" and following[0] in "とっ":
            return False
        if stem[-1] in self.full_stops:
            return True
        if stem[-1] in _STOPS:
            return not self._continues(following)
        if stem.endswith(("…", "..")):
            # "I" is a capital anyway, and "I... I think" is one sentence.
            return following[0].isupper() and re.split("['’]", following.lower())[0] != "i"
        return stem[-1] == "." and self._dot_ends(index, stem, following)

    def _dot_ends(self, index: int, stem: str, following: str) -> bool:
        body = (stem if self.spaced else self._latin_tail(index)).lstrip(_OPENERS)[:-1].lower()
        if self._continues(following) or self._is_enumerator(index, body) or body in self.before_name:
            return False
        if following[0].isdigit() and (body in _BEFORE_NUMBER or (not self.spaced and body[-1:].isdigit())):
            return False
        starter = self.starters is not None and following.lower() in self.starters
        if body in self.may_end:
            return starter or (self.starters is None and following[0].isupper())
        if re.fullmatch(r"(\w\.)+\w", body):
            return starter
        if len(body) == 1 and body.isalpha():
            # "Neither did I. I thought so." ends; "John I. Smith" does not.
            pronoun = self.language == "en" and body == "i" and index > 0 and _core(self.units[index - 1])[:1].islower()
            return pronoun or starter or not following[0].isupper()
        if body.isdigit() and len(body) <= 2 and self.language in _ORDINAL_DOT:
            return starter
        return True

    def _continues(self, following: str) -> bool:
        """A word in lower case goes on with the sentence, in a text that has capitals at all ("iPhone" is not lower)."""
        return self.case_tells and following.islower()

    def _is_enumerator(self, index: int, body: str) -> bool:
        """ "1." or "a." as the first word of all, or after a sentence's end, numbers what follows."""
        if not (body.isdigit() and len(body) <= 2) and not (len(body) == 1 and body.isalpha() and body != "i"):
            return False
        before = self.units[index - 1].rstrip(_CLOSERS)[-1:] if index else ""
        return self.spaced and (not before or before in "." + _STOPS + self.full_stops)

    def _latin_tail(self, index: int) -> str:
        """The run of Latin letters that ends here, where a word may be a single character."""
        joined = "".join(self.units[max(0, index - 12) : index + 1]).rstrip(_CLOSERS)
        match = re.search(r"[!-~]+$", joined)
        return match.group() if match else joined[-2:]


def characters(text: str) -> list[str]:
    """What a script without spaces is broken and edited in: characters with their marks; Latin words and numbers whole."""
    found: list[str] = []
    for piece in re.findall(r"[!-~]+|\S", text):
        if found and unicodedata.category(piece[0]).startswith("M"):
            found[-1] += piece
        else:
            found.append(piece)
    return found


def shared_time(words: Sequence[str], start: float, end: float) -> Iterator[tuple[str, float, float]]:
    """Each word with the part of a stretch of seconds that its length has a claim to."""
    total, done = sum(map(len, words)), 0
    for word in words:
        begin = start + (end - start) * done / total
        done += len(word)
        yield word, begin, start + (end - start) * done / total


def _units(words: Sequence[str], full_stops: str) -> tuple[list[str], list[int]]:
    """Each word joined with the stops and closing quotes that follow as words of their own; and where each unit ends."""
    alone = set(full_stops + _STOPS + ".…") | (set(_CLOSERS) - set(_OPENERS))
    units: list[str] = []
    ends: list[int] = []
    for index, word in enumerate(words):
        text = word.strip()
        if units and set(text) <= alone:
            units[-1] += text
            ends[-1] = index + 1
        else:
            units.append(text)
            ends.append(index + 1)
    return units, ends


def _cut(words: Sequence[str], whole: tuple[int, int], limit: int) -> list[tuple[int, int]]:
    start, end = whole
    parts: list[tuple[int, int]] = []
    while end - start > limit:
        window = range(start + limit, start + limit // 2, -1)
        at = next((index for index in window if words[index - 1].strip()[-1:] in tuple(_WEAK)), start + limit)
        if not any(_has_letter(word) for word in words[at:end]):
            break
        parts.append((start, at))
        start = at
    return [*parts, (start, end)]


def _core(word: str) -> str:
    return word.strip().strip(_OPENERS + _CLOSERS).rstrip(".,;:!?…")


def _has_letter(word: str) -> bool:
    return any(character.isalnum() for character in word)
