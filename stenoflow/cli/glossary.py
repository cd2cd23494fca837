"""`steno glossary`: terms that last, chosen by name with `--glossary`."""

from __future__ import annotations

import json
from typing import IO, Any

import click

EPILOG = """\b
steno glossary set acme acme.txt          one hot word a line, or `cooper netties => Kubernetes`; # begins a comment
steno transcribe call.wav --glossary acme
steno glossary show acme
steno glossary remove acme
\b
Exit codes: 0 success; 2 invalid option, or no such glossary; 3, 5, 6 errors of the store.
"""
_KEY = click.option("--key", help="Id or name of an API key: the glossaries of its owner, which jobs of the API use.")
_DEBUG = click.option("--debug", is_flag=True, help="Show tracebacks.")


@click.group("glossary", epilog=EPILOG)
def command() -> None:
    """Keep terms under a name: hot words, which ASR expects, and replacements, which are written in place of what it heard.

    Replacements are of whole words, without regard to case or the punctuation around them, and written as given. Words keep their times.
    """


@command.command("set")
@click.argument("name")
@click.argument("file", type=click.File(encoding="utf-8"))
@_KEY
@_DEBUG
def set_glossary(name: str, file: IO[str], key: str | None, debug: bool) -> None:
    """Keep the glossary in FILE (`-` for standard input) as NAME, in place of one of that name."""
    from infra import glossaries

    store, owner = _place(key)
    kept = glossaries.keep(store, owner, name, file.read())
    click.echo(f"Glossary {kept.name}: {len(kept.hotwords)} hot words, {len(kept.replacements)} replacements.")


@command.command("list")
@_KEY
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@_DEBUG
def list_glossaries(key: str | None, as_json: bool, debug: bool) -> None:
    """List the glossaries."""
    from infra import glossaries

    for one in glossaries.all_of(*_place(key)):
        if as_json:
            click.echo(json.dumps({"type": "glossary", **one.model_dump(mode="json")}, ensure_ascii=False))
        else:
            click.echo(f"{one.name}: {len(one.hotwords)} hot words, {len(one.replacements)} replacements")


@command.command("show")
@click.argument("name")
@_KEY
@_DEBUG
def show_glossary(name: str, key: str | None, debug: bool) -> None:
    """Print the glossary as it can be set again."""
    from infra import glossaries

    store, owner = _place(key)
    click.echo(glossaries.find(store, owner, name).text, nl=False)


@command.command("remove")
@click.argument("name")
@_KEY
@_DEBUG
def remove_glossary(name: str, key: str | None, debug: bool) -> None:
    """Remove the glossary. Transcripts that were made with it stay."""
    from infra import glossaries

    store, owner = _place(key)
    glossaries.remove(store, owner, name)
    click.echo(f"Removed the glossary {name}.")


def _place(key: str | None) -> tuple[Any, str]:
    """The store, and whose glossaries are meant."""
    from api import keys
    from infra.compute import get_store
    from infra.settings import get_settings
    from infra.webhooks import SERVICE

    store = get_store(get_settings())
    return store, SERVICE if key is None else keys.owner_of(store, key)
