"""`steno voices`: enrol people's voices, so that transcripts call them by name; list and forget them."""

from __future__ import annotations

import getpass
import json
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from flows.naming import Named
    from infra.settings import StenoSettings
    from speech.enrolled import EnrolledVoice, Voiceprint

EPILOG = """\b
steno voices enrol "Anna Berg" anna.wav --consent "asked by mail on 3 May, wiki/consent"
steno transcribe meeting.wav --voices     SPEAKER_01 is called Anna Berg where her voice is recognised
steno voices list
steno voices apply                        name the speakers of earlier runs, from what is stored of them
steno voices forget "Anna Berg"
\b
Exit codes: 0 success; 2 invalid option; 3 unusable recording, or no such voice; 4 model not available;
5, 6 errors of the store.
"""
_KEY = click.option("--key", help="Id or name of an API key: the voices of its owner, which jobs of the API use.")
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_DEBUG = click.option("--debug", is_flag=True, help="Show tracebacks.")


@click.group("voices", epilog=EPILOG)
def command() -> None:
    """Name people by their voices, in runs that ask for it with --voices.

    What is stored of a voice is its speaker embedding, which is biometric data: enrol nobody who did not agree. It stays in the
    artifact store (STENO_STORE) until it is forgotten.
    """


@command.command("enrol")
@click.argument("name")
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@click.option(
    "--consent",
    metavar="NOTE",
    help="How the person agreed to be recognised, and where that is recorded. Prompted for if omitted.",
)
@click.option(
    "--diarization-model",
    default="auto",
    metavar="MODEL",
    help="Diarization model of the runs that are to recognise the voice; `auto` is the default model.",
)
@_KEY
@_JSON
@_DEBUG
def enrol_voice(
    name: str,
    sources: tuple[str, ...],
    consent: str | None,
    diarization_model: str,
    key: str | None,
    as_json: bool,
    debug: bool,
) -> None:
    """Enrol the voice of NAME from recordings of this person alone; ten seconds or more of speech in all.

    Enrolling a name again adds recordings to it.
    """
    from infra import voices
    from infra.settings import get_settings
    from stenoflow.cli.report import counted

    settings = get_settings()
    store, set_ = _store(settings), _set_of(settings, key)
    voices.checked_name(name)
    if consent is None and sys.stdin.isatty():
        consent = click.prompt(f"How did {name} agree to be recognised by voice?", err=True)
    noted = voices.consent_of(consent or "", getpass.getuser())
    voice = voices.enrol(store, set_, name, _voiceprints(sources, settings, diarization_model), noted)
    if as_json:
        click.echo(json.dumps(_shown(voice), ensure_ascii=False))
        return
    seconds = sum(print_.seconds for print_ in voice.prints)
    click.echo(
        f"Enrolled {voice.name}: {seconds:.0f} s of speech in {counted(len(voice.prints), 'recording')}. Runs with --voices recognise this voice."
    )


@command.command("list")
@_KEY
@_JSON
@_DEBUG
def list_voices(key: str | None, as_json: bool, debug: bool) -> None:
    """List the enrolled voices: name, speech, model, and how the person agreed."""
    from infra import voices
    from infra.settings import get_settings

    settings = get_settings()
    found = voices.voices_in(_store(settings), [_set_of(settings, key)])
    if as_json:
        for voice in found:
            click.echo(json.dumps(_shown(voice), ensure_ascii=False))
        return
    if not found:
        click.echo("No voices; `steno voices enrol NAME FILE` enrols one.")
        return
    width = max(len("name"), *(len(voice.name) for voice in found))
    models = {voice.name: ", ".join(sorted({print_.model.partition("@")[0] for print_ in voice.prints})) for voice in found}
    wide = max(len("model"), *map(len, models.values()))
    click.echo(f"{'name':<{width + 2}}{'speech':<10}{'model':<{wide + 2}}{'enrolled':<18}consent")
    for voice in found:
        last = voice.consents[-1]
        seconds = f"{sum(print_.seconds for print_ in voice.prints):.0f} s"
        when = last.at.astimezone().strftime("%Y-%m-%d %H:%M")
        click.echo(f"{voice.name:<{width + 2}}{seconds:<10}{models[voice.name]:<{wide + 2}}{when:<18}{last.note} ({last.by})")


@command.command("forget")
@click.argument("name")
@_KEY
@_DEBUG
def forget_voice(name: str, key: str | None, debug: bool) -> None:
    """Delete all that is stored of the voice of NAME. Transcripts that have the name keep it; `steno voices apply` takes it out."""
    from infra import voices
    from infra.settings import get_settings

    settings = get_settings()
    forgotten = voices.forget(_store(settings), _set_of(settings, key), name)
    click.echo(f"Forgot the voice of {forgotten.name}.")


@command.command("apply")
@_KEY
@_JSON
@_DEBUG
def apply_voices(key: str | None, as_json: bool, debug: bool) -> None:
    """Name the speakers of earlier runs by the voices that are enrolled now, and take out the names of forgotten ones.

    Nothing is computed: the store has the embeddings of these runs. Their files are written again, unless they were changed.
    """
    import asyncio

    from stenoflow.cli.transcribe import quieten

    quieten(verbose=False)
    asyncio.run(_apply(key, as_json))


async def _apply(key: str | None, as_json: bool) -> None:
    from api import keys
    from flows.local_server import server
    from flows.naming import apply
    from infra.settings import get_settings
    from infra.webhooks import SERVICE

    owner = SERVICE if key is None else keys.owner_of(_store(get_settings()), key)
    temporary = server.start()
    try:
        if temporary is not None:
            temporary.wait()
        from prefect.client.orchestration import get_client

        async with get_client() as client:
            async for run in apply(client, owner):
                _say_named(run, as_json)
    finally:
        if temporary is not None:
            temporary.stop()


def _say_named(run: Named, as_json: bool) -> None:
    if as_json:
        speakers = {label: match.model_dump() for label, match in run.speakers.items()}
        line = {"type": "named", "run": run.run, "source": run.name, "speakers": speakers, "problem": run.problem or None}
        click.echo(json.dumps(line, ensure_ascii=False))
        return
    said = ", ".join(f"{label} is {match.name} ({match.score:.2f})" for label, match in run.speakers.items())
    click.echo(f"{run.name} ({run.run[:8]}): {said or 'nobody was recognised'}")
    if run.problem:
        click.echo(f"steno: warning: {run.name}: {run.problem}", err=True)


def _voiceprints(sources: tuple[str, ...], settings: StenoSettings, model: str) -> list[Voiceprint]:
    from infra.enrolment import voiceprints
    from infra.sources import fetch_source

    with tempfile.TemporaryDirectory(prefix="steno-voices-") as folder:
        paths, names = [], []
        for number, source in enumerate(sources):
            own = Path(folder) / str(number)
            own.mkdir()
            fetched = fetch_source(source, own, settings)
            paths.append(fetched.path)
            names.append(fetched.name)
        return voiceprints(paths, names, settings, model)


def _store(settings: StenoSettings) -> Any:
    from infra.compute import get_store

    return get_store(settings)


def _set_of(settings: StenoSettings, key: str | None) -> str:
    from api import keys
    from infra.voices import set_of
    from infra.webhooks import SERVICE

    return set_of(SERVICE if key is None else keys.owner_of(_store(settings), key))


def _shown(voice: EnrolledVoice) -> dict[str, Any]:
    """All but the embeddings."""
    return {
        "type": "voice",
        "id": voice.id,
        "name": voice.name,
        "recordings": [print_.model_dump(mode="json", exclude={"embedding"}) for print_ in voice.prints],
        "consents": [consent.model_dump(mode="json") for consent in voice.consents],
    }
