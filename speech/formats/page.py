"""One page that opens from disk without a network: the transcript, and the recording beside it, played from a clicked word."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from html import escape
from itertools import chain
from urllib.parse import quote

from speech.formats.cues import Token, tokens_of
from speech.formats.lines import one_line
from speech.formats.options import RenderOptions
from speech.formats.paragraphs import Paragraph, clock, paragraphs, without_words
from speech.languages import language_of_text
from stenoflow.types import Transcript

_STYLE = """
:root{color-scheme:light dark;--ink:light-dark(#1d1d1f,#e8e8ea);--paper:light-dark(#fff,#17181a);--grey:light-dark(#5c5f66,#a3a7af);
--mark:light-dark(#ffe08a,#6b5300)}
body{margin:0 auto;max-width:44rem;padding:0 1rem 6rem;font:1.05rem/1.6 system-ui,sans-serif;color:var(--ink);background:var(--paper)}
header{position:sticky;top:0;background:var(--paper);padding:.75rem 0;border-bottom:1px solid var(--grey)}
h1{font-size:1.2rem;margin:0 0 .5rem;overflow-wrap:anywhere}
audio{width:100%}
h2{font-size:1rem;margin:0;display:inline}
time{color:var(--grey);font-variant-numeric:tabular-nums;margin-inline-start:.5rem;font-size:.9rem}
section{margin-top:1.25rem}
p{margin:.1rem 0 0}
p span{cursor:pointer;border-radius:.2rem}
p span:hover,p span.now{background:var(--mark)}
.missing{color:var(--grey);font-style:italic}
@media print{header{position:static}audio,label{display:none}section{break-inside:avoid}}
"""
_SCRIPT = """
const audio=document.querySelector("audio"),file=document.querySelector("input"),words=[...document.querySelectorAll("p span")];
const starts=words.map(word=>+word.dataset.t);let now=null;
file.onchange=()=>{audio.src=URL.createObjectURL(file.files[0]);audio.hidden=false};
audio.onerror=()=>{audio.hidden=true};
document.onclick=event=>{const word=event.target.closest("p span");if(!word||getSelection().toString())return;
if(!audio.hidden){audio.currentTime=+word.dataset.t;audio.play()}};
document.onkeydown=event=>{if(event.key!==" "||/^(INPUT|AUDIO)$/.test(event.target.tagName)||audio.hidden)return;
event.preventDefault();audio.paused?audio.play():audio.pause()};
audio.ontimeupdate=()=>{let low=0,high=starts.length;while(low<high){const half=low+high>>1;
if(starts[half]<=audio.currentTime)low=half+1;else high=half}
const word=words[low-1];if(word===now)return;now?.classList.remove("now");now=word;if(!word)return;word.classList.add("now");
const box=word.getBoundingClientRect();if(!audio.paused&&(box.top<90||box.bottom>innerHeight-40))
word.scrollIntoView({block:"center",behavior:"smooth"})};
"""


def html(transcript: Transcript, options: RenderOptions) -> str:
    """A click on a word plays it, where the recording is beside the page or was chosen there."""
    language = language_of_text(transcript)
    title = escape(one_line(options.uri))
    body = "\n".join(_section(paragraph, transcript) for paragraph in paragraphs(transcript))
    source = f' src="{escape(quote(options.audio))}"' if options.audio else " hidden"
    policy = f"default-src 'none'; media-src * blob: data: file:; style-src '{_hash(_STYLE)}'; script-src '{_hash(_SCRIPT)}'"
    return (
        f'<!doctype html>\n<html lang="{escape(language)}">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        f'<meta name="viewport" content="width=device-width">\n<title>{title}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n'
        f'<header>\n<h1>{title}</h1>\n<audio controls preload="metadata"{source}></audio>\n'
        '<label>Recording: <input type="file" accept="audio/*,video/*"></label>\n</header>\n'
        f'<main dir="auto">\n{body}\n</main>\n<script>{_SCRIPT}</script>\n</body>\n</html>\n'
    )


def _section(paragraph: Paragraph, transcript: Transcript) -> str:
    speaker = f"<h2>{escape(one_line(paragraph.speaker))}</h2>" if paragraph.speaker is not None else ""
    head = f"{speaker}<time>{clock(paragraph.start)}</time>"
    if not paragraph.segments:
        return f'<section>{head}<p class="missing">{without_words(paragraph)}</p></section>'
    tokens = list(chain.from_iterable(tokens_of(segment, paragraph.language) for segment in paragraph.segments))
    text = "".join(_word(token, index) for index, token in enumerate(tokens))
    other = f' lang="{escape(paragraph.language)}"' if paragraph.language != language_of_text(transcript) else ""
    return f"<section>{head}<p{other}>{text}</p></section>"


def _word(token: Token, index: int) -> str:
    return f'{token.lead if index else ""}<span data-t="{token.start:.2f}">{escape(token.text)}</span>'


def _hash(text: str) -> str:
    return f"sha256-{b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
