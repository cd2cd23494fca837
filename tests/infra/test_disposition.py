"""The name that a server gives a download, and what hostile servers make of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from infra.disposition import served_name
from infra.sources import fetch_source

NAMES = {
    'attachment; filename="talk.mp3"': "talk.mp3",
    "attachment; filename=talk.mp3": "talk.mp3",
    "inline;FileName = talk.mp3 ; size=5": "talk.mp3",
    "attachment; filename*=UTF-8''Gespr%C3%A4ch%201.mp3": "Gespräch 1.mp3",
    "attachment; filename=\"fallback.mp3\"; filename*=UTF-8''%E2%82%AC%20rates.mp3": "€ rates.mp3",
    "attachment; filename*=iso-8859-1'de'Gespr%E4ch.mp3": "Gespräch.mp3",
    "attachment; filename*=x-unknown''talk.mp3; filename=\"plain.mp3\"": "plain.mp3",
    r'attachment; filename="a \"quoted\" name.wav"': 'a "quoted" name.wav',
    'attachment; filename="Gespräch.mp3"'.encode().decode("latin-1"): "Gespräch.mp3",
    'attachment; filename="Gespr\xe4ch.mp3"': "Gespräch.mp3",
    'attachment; filename="my%20call.mp3"': "my call.mp3",
    'attachment; filename="=?UTF-8?B?R2VzcHLDpGNoLm1wMw==?="': "Gespräch.mp3",
    'attachment; filename="../../etc/passwd"': "passwd",
    r'attachment; filename="..\\..\\boot.ini"': "boot.ini",
    "attachment; filename*=UTF-8''..%2F..%2Fetc%2Fshadow": "shadow",
    "attachment; filename*=UTF-8''a%00b%0Ac.mp3": "ab c.mp3",
    "attachment; filename*=UTF-8''safe%E2%80%AEgpj.mp3": "safegpj.mp3",
    'attachment; filename=""': None,
    'attachment; filename=".."': None,
    'attachment; filename="-"': None,
    "attachment; filename*=UTF-8''%2F%2F": None,
    "attachment": None,
    "": None,
}


@pytest.mark.parametrize("header", NAMES)
def test_the_name_is_read_as_browsers_do_and_names_nothing_else(header: str) -> None:
    assert served_name(header) == NAMES[header]


def test_a_name_of_any_length_is_bounded() -> None:
    name = served_name(f'attachment; filename="{"x" * 5000}.mp3"')
    assert name is not None
    assert len(name) <= 121


def test_what_a_server_calls_a_recording_comes_with_it(server: Any, settings: Any, tmp_path: Path) -> None:
    server.answers["/download"] = lambda handler, turn: handler.reply(
        200, b"\xff" * 800, content_disposition='attachment; filename="call 7.ulaw"'
    )
    fetched = fetch_source(server.url("/download?id=7"), tmp_path, settings)
    assert (fetched.name, fetched.served_name) == ("download", "call 7.ulaw")
    assert fetched.path.suffix == ".ulaw"
    assert fetched.path.read_bytes() == b"\xff" * 800
