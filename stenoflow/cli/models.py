"""`steno models`: the registry. What can be named, what it knows, where it comes from, and which suits this machine."""

from __future__ import annotations

import json

import click

STEPS = {"asr": "--model", "align": "--align-model", "diarize": "--diarization-model"}


@click.command("models")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per model.")
def command(as_json: bool) -> None:
    """List models with size, languages, licence and source, and recommend one for this machine.

    --model also accepts a hub repository (owner/name) or a folder with a model in CTranslate2 format, or a NeMo model in ONNX.
    """
    from infra.compute import machine
    from infra.settings import get_settings
    from speech.models import catalogue, recommended

    settings = get_settings()
    rows = catalogue(settings.models_path, settings.offline)
    if as_json:
        for row in rows:
            click.echo(json.dumps(row.model_dump(mode="json")))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("model", "named with", "here", "MB", "languages", "licence", "where it comes from"):
        table.add_column(title, no_wrap=True, justify="right" if title == "MB" else "left")
    for row in sorted(rows, key=lambda row: (row.step != "asr", not row.available)):
        gated = " (gated)" if "gated" in row.detail else ""
        here = "yes" if row.available else "no"
        table.add_row(
            row.name,
            STEPS[row.step],
            here,
            str(row.megabytes),
            _languages(row.step, row.languages),
            row.licence,
            row.origin + gated,
        )
    console = Console(highlight=False)
    # A narrow terminal wraps the last column by itself; cut names would be of no use.
    console.width = max(console.width, 160)
    console.print(table)
    name, why = recommended(machine(settings))
    (row,) = (row for row in rows if row.name == name and row.origin.startswith("hub"))
    lacks = row.detail.partition("; needs ")[2]
    console.print(f"\nFor this machine: --model {name} ({why})" + (f"; it needs {lacks}" if lacks else "") + ".")
    console.print(
        "Words are timed by the model itself, or by a wav2vec2 model of the language: --align-model wav2vec2, a hub id, or a folder.\n"
        "What is not here is fetched from the hub when it is first used, unless STENO_OFFLINE is set; "
        "a gated model also needs its licence accepted and HF_TOKEN."
    )


def _languages(step: str, languages: tuple[str, ...]) -> str:
    if not languages:
        return "99+" if step == "asr" else "any"
    return languages[0] if len(languages) == 1 else str(len(languages))
