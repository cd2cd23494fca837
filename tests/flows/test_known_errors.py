"""How a user's error ends a run in Prefect: one sentence that says what, where, and what to do, and no traceback."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from prefect.states import State

from flows.batch import batch
from flows.evaluate import evaluate
from flows.gc import gc
from flows.transcribe import transcribe
from infra.settings import get_settings
from stenoflow.errors import InvalidOption, StenoError
from tests.prefect_views import logs, run_of
from tests.stage_double import ComputeDouble, recording

pytestmark = [pytest.mark.usefixtures("prefect_server", "steno", "double"), pytest.mark.slow]

CASES: dict[str, tuple[Callable[..., Any], dict[str, Any], str]] = {
    "no such file": (transcribe, {"source": "{folder}/talks/gone.wav"}, "{folder}/talks/gone.wav"),
    "a folder": (transcribe, {"source": "{folder}"}, "{folder} is a folder"),
    "no such page": (transcribe, {"source": "http://joe:pass-5@{server}/feed/gone.wav?sig=se-5#x"}, "http://{server}/feed/gone.wav"),
    "no such object": (transcribe, {"source": "memory://bucket/calls/gone.wav"}, "memory://bucket/calls/gone.wav"),
    "no such model": (transcribe, {"source": "{folder}/call.wav", "model": "larg-v3"}, "larg-v3"),
    "no such folder of weights": (transcribe, {"source": "{folder}/call.wav", "model": "./weights"}, "/weights"),
    "not a recording": (transcribe, {"source": "{folder}/words.wav"}, "words.wav"),
    "an empty file": (transcribe, {"source": "{folder}/empty.wav"}, "empty.wav"),
    "an output folder that is a file": (transcribe, {"source": "{folder}/call.wav", "output_dir": "{folder}/words.wav"}, "words.wav"),
    "fewest above most": (transcribe, {"source": "{folder}/call.wav", "min_speakers": 5, "max_speakers": 2}, "min_speakers (5)"),
    "an unknown field": (transcribe, {"source": "{folder}/call.wav", "speekers": 2}, "speekers"),
    "no source": (transcribe, {"name": "call"}, "source"),
    "no such folder": (batch, {"source": "{folder}/calls"}, "{folder}/calls"),
    "nothing matches": (batch, {"source": "{folder}/*.ogg"}, "{folder}/*.ogg"),
    "a batch's options": (batch, {"source": "{folder}", "options": {"min_speakers": 5, "max_speakers": 2}}, "min_speakers (5)"),
    "no references": (evaluate, {"references": "{folder}/truth.csv"}, "{folder}/truth.csv"),
    "a variant's option": (evaluate, {"references": "{folder}", "variants": {"a": {"hotword": "x"}}}, "hotword"),
    "no age": (gc, {"older_than_days": -1}, "older_than_days"),
}  # fmt: skip
CURES = ("Correct", "Check", "check", "Choose", "Upload", "convert")


class Nothing(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_error(404)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A web server that has nothing."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Nothing) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        address = f"127.0.0.1:{listening.server_port}"
        monkeypatch.setenv("STENO_NET__ALLOW_HOSTS", f'["{address}"]')
        get_settings.cache_clear()
        yield address
        listening.shutdown()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    recording(tmp_path / "call.wav")
    (tmp_path / "words.wav").write_text("no sound at all, " * 50)
    (tmp_path / "empty.wav").touch()
    return tmp_path


def filled(value: Any, **places: Any) -> Any:
    if isinstance(value, dict):
        return {name: filled(one, **places) for name, one in value.items()}
    return value.format(**places) if isinstance(value, str) else value


async def test_a_users_error_is_one_sentence_with_its_cure(folder: Path, server: str) -> None:
    places = {"folder": folder, "server": server}
    requests = [(flow, filled(request, **places), filled(named, **places)) for flow, request, named in CASES.values()]
    states = await asyncio.gather(*(flow(request=request, return_state=True) for flow, request, _ in requests))
    for case, state, (_, _, named) in zip(CASES, states, requests, strict=True):
        message = state.message or ""
        assert state.is_failed(), case
        assert named in message, (case, message)
        assert "\n" not in message and message.endswith("."), (case, message)
        assert any(cure in message for cure in CURES), (case, message)
        said = await logs(run_of(state), until=lambda text: "Finished in state" in text)
        assert message in said, (case, said)
        for traced in ("Traceback", 'File "', "Encountered exception", "pass-5", "se-5"):
            assert traced not in said + message, (case, said)
        with pytest.raises(StenoError) as raised:
            await state.aresult()
        assert raised.value.happened in message, case


async def test_what_is_refused_is_not_repeated(folder: Path) -> None:
    """Values of a request may be secret, or speech."""
    request = {"source": "call.wav", "initial_prompt": ["words that nobody may read"], "language": {"not": "a code"}}
    state: State[Any] = await transcribe(request=request, return_state=True)
    said = await logs(run_of(state), until=lambda text: "Finished in state" in text)
    assert "initial_prompt" in said and "language" in said
    assert "nobody may read" not in said + (state.message or "")
    with pytest.raises(InvalidOption, match="initial_prompt"):
        await transcribe(request=request)


async def test_a_defect_keeps_its_traceback(folder: Path, double: ComputeDouble, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("of ours")

    monkeypatch.setattr("flows.pipeline.output_of", broken)
    state: State[Any] = await transcribe(request={"source": str(folder / "call.wav")}, return_state=True)
    said = await logs(run_of(state), until=lambda text: "Finished in state" in text)
    assert "Traceback" in said and "ZeroDivisionError" in said
