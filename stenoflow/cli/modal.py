"""`steno modal`: deploy the app on Modal, check it, fill its weights, and see how it is."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from infra.settings import ModalSettings


@click.group("modal")
def command() -> None:
    """Run the models on Modal's GPUs.

    \b
    modal token new         once, to create a token
    steno modal deploy      deploy the app with the STENO_MODAL__ settings
    steno modal warm        store model weights on its volume
    steno modal check       verify that a GPU works
    steno transcribe --compute modal talk.mp3
    """


@command.command("deploy")
@click.option(
    "--hub-token/--no-hub-token",
    default=None,
    help="Store this machine's hub token as a Modal secret, for gated models. Asked on a terminal by default.",
)
@click.option("--quiet", "-q", is_flag=True, help="Print errors only.")
def deploy(hub_token: bool | None, quiet: bool) -> None:
    """Deploy the app, or replace it. Running calls are finished by the version they started on."""
    from infra.on_modal import admin
    from infra.settings import get_settings

    async def run() -> None:
        settings = get_settings()
        secret = "" if settings.modal.hf_secret else await _hub_secret(settings.modal, hub_token, quiet=quiet)
        await admin.deploy(settings, quiet=quiet, hf_secret=secret)

    asyncio.run(run())


async def _hub_secret(settings: ModalSettings, wanted: bool | None, *, quiet: bool) -> str:
    """The name of the secret with the hub token: made now, or by an earlier deployment; empty for none."""
    import sys

    from infra.on_modal import admin
    from speech.hub import hub_token

    await admin.require_account()
    name, token = admin.secret_name(settings), hub_token()
    if wanted and token is None:
        raise click.UsageError("--hub-token: there is no hub token here; set HF_TOKEN.")
    if wanted is False:
        return ""
    if wanted is None and await admin.has_secret(settings):
        return name
    if wanted is None and token is not None:
        if sys.stdin is not None and sys.stdin.isatty() and not quiet:
            wanted = click.confirm(f"Store your hub token as the Modal secret {name}, for gated models?", default=True)
        elif not quiet:
            click.echo("The app has no hub token, so it uses no gated models; `steno modal deploy --hub-token` gives it yours.")
    if not wanted or token is None:
        return ""
    await admin.make_secret(settings, token)
    return name


@command.command("check")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def check(as_json: bool) -> int:
    """Have a container use its GPU: cuDNN in torch, and the Whisper model in CTranslate2. Exit code 4 when it cannot."""
    from infra.on_modal import admin
    from infra.settings import get_settings

    facts = asyncio.run(admin.check(get_settings()))
    if as_json:
        click.echo(json.dumps(facts))
    else:
        _print_facts(facts)
    return 4 if facts["problems"] else 0


@command.command("warm")
@click.option("--model", "-m", "models", multiple=True, metavar="MODEL", help="ASR model; STENO_MODEL by default. Repeatable.")
@click.option(
    "--language", "-l", "languages", multiple=True, metavar="LANGUAGE", help="Language to align with wav2vec2. Repeatable."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per model.")
def warm(models: tuple[str, ...], languages: tuple[str, ...], as_json: bool) -> int:
    """Fetch, convert and keep weights on the app's volume, so that no call waits for them. Repeat -m and -l for several."""
    from infra.on_modal import admin
    from infra.settings import get_settings
    from speech.languages import language_code

    codes = [language_code(language) for language in languages]
    rows = asyncio.run(admin.warm(get_settings(), list(models), codes))
    for row in rows:
        said = row.get("error") or f"{row['revision']} in {row['seconds']} s"
        click.echo(json.dumps(row) if as_json else f"{row['model']}: {said}")
    return 4 if any("error" in row for row in rows) else 0


@command.command("status")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def status(as_json: bool) -> None:
    """Whether the app is deployed, its containers and the calls that wait."""
    from infra.on_modal import admin
    from infra.settings import get_settings

    found = asyncio.run(admin.status(get_settings()))
    if as_json:
        click.echo(json.dumps(found))
        return
    click.echo(f"{found['app']} in environment {found['environment']}: {found['dashboard']}")
    for name, counts in found["classes"].items():
        click.echo(f"  {name:<8} {counts['containers']} containers, {counts['waiting']} calls waiting")


@command.command("costs")
@click.option("--days", default=7, show_default=True, type=click.IntRange(1, 366), help="Whole days (UTC) before today.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per day.")
def costs(days: int, as_json: bool) -> None:
    """Compare estimated costs of runs on Modal with Modal's own report.

    Estimates cover the compute seconds of the runs in this store. Modal also bills containers that start, idle or fail, and
    the runs of other stores.
    """
    from datetime import UTC, datetime, timedelta

    from flows.spent import estimated
    from infra.on_modal.admin import billed
    from infra.prices import dollars
    from infra.settings import get_settings

    settings = get_settings()
    end = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    start = end - timedelta(days=days)
    theirs = asyncio.run(billed(settings, start, end))
    ours = estimated(settings, start, end)
    rows = [(day, ours.get(day, 0.0), theirs.get(day, 0.0)) for day in sorted({*ours, *theirs})]
    if as_json:
        for day, mine, bill in rows:
            click.echo(json.dumps({"day": day.isoformat(), "estimated": round(mine, 6), "billed": round(bill, 6)}))
        return
    total = ("all", sum(row[1] for row in rows), sum(row[2] for row in rows))
    click.echo(f"{'day (UTC)':<12}{'estimated':>14}{'billed':>14}")
    for label, mine, bill in [*((day.isoformat(), mine, bill) for day, mine, bill in rows), total]:
        click.echo(f"{label:<12}{dollars(mine):>14}{dollars(bill):>14}")


def _print_facts(facts: dict[str, Any]) -> None:
    click.echo(f"GPU           {facts['gpu'] or 'none'}")
    if "torch" in facts:
        click.echo(f"torch         {facts['torch']}, cuDNN {facts['cudnn']}, {facts['convolution_seconds']} s")
    if "ctranslate2" in facts:
        detail = f"{facts['whisper']} on {facts['device']} in {facts['compute_type']}, {facts['encoder_seconds']} s"
        click.echo(f"CTranslate2   {facts['ctranslate2']}, {detail}")
    for problem in facts["problems"]:
        click.echo(f"steno: {problem}", err=True)
    if not facts["problems"]:
        click.echo("All checks passed.")
