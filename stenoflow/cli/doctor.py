"""`steno doctor`: everything a run needs, and for what is missing the command that brings it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from stenoflow.cli.findings import FETCH_WEIGHTS, INSTALL_CPU, INSTALL_GPU, Check, Verdict

if TYPE_CHECKING:
    from infra.settings import StenoSettings
    from speech.registry import Resolved

CPU = ("faster-whisper", "ctranslate2", "onnx", "onnxruntime", "av", "soundfile", "scipy")
GPU = ("torch", "torchaudio", "whisperx", "pyannote.audio")
_GIB = 2**30


@click.command("doctor")
@click.option("--deep", is_flag=True, help="Also load the models and run a few seconds of audio through them.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per check.")
def command(deep: bool, as_json: bool) -> int:
    """Check that everything a run needs is installed and working.

    Exits with 1 if something required is missing. Models are loaded only with --deep.
    """
    from infra.settings import get_settings
    from stenoflow.cli.transcribe import quieten

    quieten(verbose=False)
    settings = get_settings()
    checks: list[Check] = []
    for check in _all_checks(settings, deep=deep):
        checks.append(check)
        if as_json:
            click.echo(json.dumps(check._asdict()))
    if not as_json:
        _print(checks)
    return int(any(check.verdict == "missing" for check in checks))


def _all_checks(settings: StenoSettings, *, deep: bool) -> Iterator[Check]:
    yield check_python()
    yield from check_engine()
    yield from check_models(settings)
    yield from check_device(settings)
    yield from check_storage(settings)
    yield from check_memory()
    yield check_prefect()
    yield check_hub(settings)
    if deep:
        from stenoflow.cli.deep import check_run

        yield check_run(settings)


def _print(checks: list[Check]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    styles = {"ok": "green", "warn": "yellow", "missing": "bold red"}
    for check in checks:
        finding = Text(check.finding)
        if check.fix:
            finding.append(f"\n→ {check.fix}", style="cyan")
        table.add_row(Text(check.verdict, style=styles[check.verdict]), check.subject, finding)
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
    console.print(table)
    missing = sum(check.verdict == "missing" for check in checks)
    console.print(
        "\nEverything a run needs is available." if not missing else f"\n{missing} missing: runs fail until this is fixed."
    )


# -- the checks ---------------------------------------------------------------------------------------------------------


def check_python() -> Check:
    version = sys.version.split()[0]
    if (3, 11) <= sys.version_info[:2] < (3, 14):
        return Check("ok", "python", version)
    return Check("missing", "python", f"{version}; 3.11 to 3.13 is required", "install Stenoflow with one of these")


def check_engine() -> Iterator[Check]:
    """The packages of the extras `cpu` and `gpu`, by their metadata: importing torch would take seconds. `gpu` is checked where
    part of it is installed."""
    for extra, packages, fix in (("cpu", CPU, INSTALL_CPU), ("gpu", GPU, INSTALL_GPU)):
        found = {package: installed(package) for package in packages}
        absent = [package for package, version in found.items() if version is None]
        if absent and (extra == "cpu" or len(absent) < len(packages)):
            yield Check("missing", extra, f"not installed: {', '.join(absent)}", fix)
        elif not absent:
            yield Check("ok", extra, ", ".join(f"{package} {version}" for package, version in found.items()))


def check_models(settings: StenoSettings) -> Iterator[Check]:
    """The weights that a run without options would use, and the others that are here."""
    from infra.compute import host_of
    from speech.models import catalogue, resolve_asr, resolve_diarization
    from stenoflow.errors import StenoError

    folder, offline, host = settings.models_path, settings.offline, host_of(settings)
    rows = catalogue(folder, offline)
    wanted: dict[str, Callable[[], Resolved]] = {
        "whisper": lambda: resolve_asr(settings.model, None, models_dir=folder, offline=offline, host=host),
        "diarization": lambda: resolve_diarization("auto", models_dir=folder, offline=offline, host=host),
    }
    steps = {"whisper": "asr", "diarization": "diarize"}
    for subject, resolve in wanted.items():
        here = [row.name for row in rows if row.available and row.step == steps[subject]]
        try:
            model = resolve()
        except StenoError as error:
            yield Check("missing", subject, error.message, FETCH_WEIGHTS)
            continue
        fetched = model.origin == "hub" and model.name not in here
        if not fetched and (damage := _damage(model, folder)) is not None:
            yield damage
            continue
        finding = f"{model.name} ({model.revision})"
        others = [name for name in here if name != model.name]
        if others:
            finding += f"; also here: {', '.join(others)}"
        if model.warning:
            yield Check("warn", subject, f"{finding}; {model.warning}")
        elif fetched:
            yield Check("warn", subject, f"{finding}; downloaded from the hub on first use")
        else:
            yield Check("ok", subject, finding)


def _damage(model: Resolved, folder: Path) -> Check | None:
    """What is wrong with the files of a model that is here; those that have not changed since they were hashed are not read again."""
    from speech.diarize.networks import damaged_conversions
    from speech.weights import packaged_files, weights_folder
    from stenoflow.errors import StenoError

    try:
        if model.origin == "package" and model.engine.seam == "diarize":
            packaged_files(model.name, folder)
        else:
            weights_folder(model, folder)
        if model.engine.seam != "diarize":
            return None
    except StenoError as error:
        return Check("missing", model.kind, error.message, FETCH_WEIGHTS)
    damaged = damaged_conversions(folder)
    return Check("warn", model.kind, f"damaged, recreated on next use: {', '.join(damaged)}") if damaged else None


def check_device(settings: StenoSettings) -> Iterator[Check]:
    """CTranslate2 is asked for a GPU, as the engine does."""
    from speech.runtime import available_cores, has_gpu_extra, sees_gpu
    from stenoflow.errors import EngineMissing

    try:
        gpu = sees_gpu()
    except EngineMissing:
        return
    asked = settings.compute.device
    if (asked == "cuda" or (asked == "auto" and gpu)) and not has_gpu_extra():
        verdict: Verdict = "missing" if asked == "cuda" else "warn"
        yield Check(verdict, "device", "a GPU is used only with the extra `gpu`, which is not installed", INSTALL_GPU)
        return
    device = "cuda" if gpu else "cpu"
    if asked == "cuda" and device != "cuda":
        yield Check(
            "missing",
            "device",
            "STENO_COMPUTE__DEVICE is cuda, but no GPU is visible",
            "unset STENO_COMPUTE__DEVICE, or check nvidia-smi",
        )
        return
    yield Check("ok", "device", f"{asked if asked != 'auto' else device}, {available_cores()} cores")
    if "cuda" in (asked, device) and asked != "cpu":
        yield check_cuda_libraries()


def check_cuda_libraries() -> Check:
    """As the engine loads them."""
    from speech.cuda import load

    if absent := load():
        return Check("missing", "cuda", f"could not be loaded: {', '.join(absent)}", INSTALL_GPU)
    return Check("ok", "cuda", "cuBLAS 12 and cuDNN 9 load")


def check_storage(settings: StenoSettings) -> Iterator[Check]:
    """Where artifacts, downloads and the run history go: writable, and with space."""
    from infra.names import scheme_of
    from infra.store import Store
    from stenoflow.cli.checks import check_output
    from stenoflow.errors import StenoError

    for subject, url, variable in (
        ("store", settings.store_url, "STENO_STORE"),
        ("scratch", str(settings.scratch_path), "STENO_SCRATCH"),
    ):
        if scheme_of(url):
            try:
                Store.from_settings(settings).exists("artifacts")
            except Exception as error:
                yield Check(
                    "missing",
                    subject,
                    f"{url} does not answer ({type(error).__name__})",
                    f"check {variable}, STENO_S3__* and the credentials",
                )
            else:
                yield Check("ok", subject, url)
            continue
        try:
            check_output(url, None)
        except StenoError:
            yield Check("missing", subject, f"{url} cannot be written", f"set {variable} to a writable folder")
            continue
        free = free_bytes(Path(url))
        verdict: Verdict = "ok" if free > 2 * _GIB else "warn"
        yield Check(
            verdict, subject, f"{url}, {free / _GIB:.1f} GiB free", "" if verdict == "ok" else f"free some, or set {variable}"
        )


def check_memory() -> Iterator[Check]:
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return
    verdict: Verdict = "ok" if total >= 4 * _GIB else "warn"
    yield Check(
        verdict,
        "memory",
        f"{total / _GIB:.1f} GiB, {free / _GIB:.1f} GiB available",
        "" if verdict == "ok" else "a small model and --batch-size 1",
    )


def check_prefect() -> Check:
    """The server that answers, or the database of the temporary ones, read whole."""
    from flows.local_server.database import default_path, examined
    from flows.local_server.server import check_api, find_api, shown
    from stenoflow.errors import ApiUnreachable

    url = find_api()
    home = Path(os.environ.get("PREFECT_HOME") or "~/.prefect").expanduser()
    if url is None:
        path = default_path()
        trouble = examined(path) if path is not None else None
        if trouble is not None:
            return Check("missing", "prefect", trouble.message, "see “Prefect's database” in the operations guide")
        return Check("ok", "prefect", f"{installed('prefect')}, a temporary server per command; runs are stored in {home}")
    try:
        check_api(url)
    except ApiUnreachable as error:
        return Check("missing", "prefect", error.message, "prefect server start, or unset PREFECT_API_URL")
    return Check("ok", "prefect", f"{installed('prefect')}, {shown(url)} answers")


def check_hub(settings: StenoSettings) -> Check:
    """Whether there is a token, never which, and whether it opens the gated diarization model."""
    from speech.hub import hub_token

    if settings.offline:
        return Check("ok", "hub", "not checked: STENO_OFFLINE is set")
    if hub_token() is None:
        return Check("ok", "hub", "no token: public models only (one with access to community-1 adds it)")
    from speech.hub import access
    from speech.registry import on_hub

    model = on_hub("community-1")
    found = access(model, settings.models_path)
    if found == "granted":
        return Check("ok", "hub", f"the token has access to {model.location}")
    if found == "denied":
        page = f"https://huggingface.co/{model.location}"
        return Check(
            "warn", "hub", f"the token has no access to {model.location}", f"accept its licence at {page}, and check HF_TOKEN"
        )
    return Check("warn", "hub", "a token is set, but the hub is unreachable", "set STENO_OFFLINE=1 to work without the hub")


def installed(package: str) -> str | None:
    """The version of an installed package, without importing it."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return None


def free_bytes(folder: Path) -> int:
    """Space left where the folder is, or will be."""
    import shutil

    nearest = folder.absolute()
    while not nearest.exists():
        nearest = nearest.parent
    return shutil.disk_usage(nearest).free
