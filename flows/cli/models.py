"""`steno models`: what can be named with --model, where it comes from, and whether it is on this machine."""

from __future__ import annotations

import json

import click


@click.command("models")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per model.")
def command(as_json: bool) -> None:
    """List the models: what each does, where it comes from, whether it is here.

    --model also takes any hub id (owner/name) of a CTranslate2 Whisper model, and any folder that holds one.
    """
    from infra.settings import get_settings
    from speech.weights import catalogue

    settings = get_settings()
    rows = catalogue(settings.models_path, settings.offline)
    if as_json:
        for row in rows:
            click.echo(json.dumps(row.model_dump(mode="json")))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("model", "for", "here", "where it comes from", "licence", ""):
        table.add_column(title, overflow="fold", no_wrap=title in ("model", "for", "here"))
    for row in rows:
        table.add_row(row.name, row.kind, "yes" if row.available else "no", row.origin, row.licence, row.detail)
    Console(highlight=False).print(table)
