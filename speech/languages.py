"""Whisper's languages: codes, names, and the aliases users type."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stenoflow.types import Segment, Transcript

LANGUAGES: dict[str, str] = {
    "en": "english",
    "zh": "chinese",
    "de": "german",
    "es": "spanish",
    "ru": "russian",
    "ko": "korean",
    "fr": "french",
    "ja": "japanese",
    "pt": "portuguese",
    "tr": "turkish",
    "pl": "polish",
    "ca": "catalan",
    "nl": "dutch",
    "ar": "arabic",
    "sv": "swedish",
    "it": "italian",
    "id": "indonesian",
    "hi": "hindi",
    "fi": "finnish",
    "vi": "vietnamese",
    "he": "hebrew",
    "uk": "ukrainian",
    "el": "greek",
    "ms": "malay",
    "cs": "czech",
    "ro": "romanian",
    "da": "danish",
    "hu": "hungarian",
    "ta": "tamil",
    "no": "norwegian",
    "th": "thai",
    "ur": "urdu",
    "hr": "croatian",
    "bg": "bulgarian",
    "lt": "lithuanian",
    "la": "latin",
    "mi": "maori",
    "ml": "malayalam",
    "cy": "welsh",
    "sk": "slovak",
    "te": "telugu",
    "fa": "persian",
    "lv": "latvian",
    "bn": "bengali",
    "sr": "serbian",
    "az": "azerbaijani",
    "sl": "slovenian",
    "kn": "kannada",
    "et": "estonian",
    "mk": "macedonian",
    "br": "breton",
    "eu": "basque",
    "is": "icelandic",
    "hy": "armenian",
    "ne": "nepali",
    "mn": "mongolian",
    "bs": "bosnian",
    "kk": "kazakh",
    "sq": "albanian",
    "sw": "swahili",
    "gl": "galician",
    "mr": "marathi",
    "pa": "punjabi",
    "si": "sinhala",
    "km": "khmer",
    "sn": "shona",
    "yo": "yoruba",
    "so": "somali",
    "af": "afrikaans",
    "oc": "occitan",
    "ka": "georgian",
    "be": "belarusian",
    "tg": "tajik",
    "sd": "sindhi",
    "gu": "gujarati",
    "am": "amharic",
    "yi": "yiddish",
    "lo": "lao",
    "uz": "uzbek",
    "fo": "faroese",
    "ht": "haitian creole",
    "ps": "pashto",
    "tk": "turkmen",
    "nn": "nynorsk",
    "mt": "maltese",
    "sa": "sanskrit",
    "lb": "luxembourgish",
    "my": "myanmar",
    "bo": "tibetan",
    "tl": "tagalog",
    "mg": "malagasy",
    "as": "assamese",
    "tt": "tatar",
    "haw": "hawaiian",
    "ln": "lingala",
    "ha": "hausa",
    "ba": "bashkir",
    "jw": "javanese",
    "su": "sundanese",
    "yue": "cantonese",
}
"""Code to English name, as in OpenAI's `whisper/tokenizer.py`."""

ALIASES: dict[str, str] = {
    "burmese": "my",
    "valencian": "ca",
    "flemish": "nl",
    "haitian": "ht",
    "letzeburgesch": "lb",
    "pushto": "ps",
    "panjabi": "pa",
    "moldavian": "ro",
    "moldovan": "ro",
    "sinhalese": "si",
    "castilian": "es",
}

WITHOUT_SPACES = frozenset({"ja", "zh", "yue", "th", "lo", "my", "km", "bo"})
"""Languages whose words are not separated by spaces."""


def text_language(spoken: str, task: str) -> str:
    """The language of the text: a translation is English whatever was spoken."""
    return "en" if task == "translate" else spoken


def language_of_text(transcript: Transcript, segment: Segment | None = None) -> str:
    """That of a transcript's text, or of a segment's."""
    spoken = segment.language if segment is not None else None
    return text_language(spoken or transcript.language, str(transcript.options.get("task")))


_TAGS = (
    "en=eng zh=chi/zho/cmn de=ger/deu es=spa ru=rus ko=kor fr=fre/fra ja=jpn pt=por tr=tur pl=pol ca=cat "
    "nl=dut/nld ar=ara sv=swe it=ita id=ind hi=hin fi=fin vi=vie he=heb/iw uk=ukr el=gre/ell ms=may/msa "
    "cs=cze/ces ro=rum/ron/mol/mo da=dan hu=hun ta=tam no=nor/nob/nb th=tha ur=urd hr=hrv/scr bg=bul "
    "lt=lit la=lat mi=mao/mri ml=mal cy=wel/cym sk=slo/slk te=tel fa=per/fas lv=lav bn=ben sr=srp/scc "
    "az=aze sl=slv kn=kan et=est mk=mac/mkd br=bre eu=baq/eus is=ice/isl hy=arm/hye ne=nep mn=mon bs=bos "
    "kk=kaz sq=alb/sqi sw=swa gl=glg mr=mar pa=pan si=sin km=khm sn=sna yo=yor so=som af=afr oc=oci "
    "ka=geo/kat be=bel tg=tgk sd=snd gu=guj am=amh yi=yid lo=lao uz=uzb fo=fao ht=hat ps=pus tk=tuk "
    "nn=nno mt=mlt sa=san lb=ltz my=bur/mya bo=tib/bod tl=tgl/fil mg=mlg as=asm tt=tat haw=haw ln=lin "
    "ha=hau ba=bak jw=jav/jv su=sun yue=yue "
)
"""How containers tag Whisper's languages: ISO 639-2, both its codes where it has two, and what became of old ones."""

_BY_TAG = {tag: code for code, tags in (pair.split("=") for pair in _TAGS.split()) for tag in tags.split("/")}

_BY_NAME = {name: code for code, name in LANGUAGES.items()} | ALIASES


def language_code(value: str) -> str:
    """The code for a code or an English name, whatever its case. Raises InvalidOption for anything else."""
    from stenoflow.errors import InvalidOption

    text = value.strip().lower()
    if text in LANGUAGES:
        return text
    if text in _BY_NAME:
        return _BY_NAME[text]
    import difflib

    close = difflib.get_close_matches(text, [*LANGUAGES, *_BY_NAME], n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise InvalidOption(
        f"Unknown language {value!r}: give a code such as 'en' or a name such as 'french', or omit it to detect the language.{hint}"
    )


def language_codes(value: str) -> str:
    """The codes for one language or several (`en, french` → `en,fr`), each once. Raises InvalidOption as `language_code` does."""
    return ",".join(dict.fromkeys(language_code(name) for name in re.split(r"[,;]", value) if name.strip()))


def languages_of(asked: str | None) -> tuple[str, ...]:
    """The languages that may be spoken, from what `language_codes` gives; none: any."""
    return tuple(asked.split(",")) if asked else ()


def only_language(asked: str | None) -> str | None:
    """The language, where a single one is asked for."""
    return asked if asked and "," not in asked else None


def language_names(main: str, languages: Sequence[str] = ()) -> str:
    """For people: `English`; `English, French and Spanish`."""
    names = [LANGUAGES.get(code, code).title() for code in languages or (main,)]
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def language_of_tag(tag: str) -> str | None:
    """Whisper's code for a container's language tag (`fre`, `pt-BR`, `French`); the tag itself, in lower case, for a language that
    Whisper does not know; None where the tag says that nothing is known.
    """
    text = tag.strip().lower().replace("_", "-")
    main = text.partition("-")[0]
    if main in ("", "und", "unk", "mis", "zxx", "qaa", "mul"):
        return None
    return main if main in LANGUAGES else _BY_TAG.get(main) or _BY_NAME.get(text, text)
