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
    from speech.models import catalogue

    settings = get_settings()
    rows = catalogue(settings.models_path, settings.offline)
    if as_json:
        for row in rows:
            click.echo(json.dumps(row.model_dump(mode="json")))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("model", "for", "here", "licence", "where it comes from"):
        table.add_column(title, no_wrap=True)
    for row in sorted(rows, key=lambda row: (row.kind != "whisper", not row.available)):
        gated = " (gated)" if "gated" in row.detail else ""
        table.add_row(row.name, row.kind, "yes" if row.available else "no", row.licence, row.origin + gated)
    console = Console(highlight=False)
    # A narrow terminal wraps the last column by itself; cut names would be of no use.
    console.width = max(console.width, 140)
    console.print(table)
    console.print(
        "\nWhat is not here is fetched from the hub when it is first used, unless STENO_OFFLINE is set; "
        "a gated model also needs its licence accepted and HF_TOKEN."
    )
