"""`steno`: the command line's entry point."""

from __future__ import annotations

import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import click

from stenoflow import isolated

COMMANDS: dict[str, tuple[str, str]] = {
    "transcribe": ("stenoflow.cli.transcribe:command", "Turn recordings into transcripts with speakers and word times."),
    "batch": ("stenoflow.cli.batch:command", "Transcribe new recordings in a folder, bucket, manifest or feed."),
    "evaluate": ("stenoflow.cli.evaluate:command", "Score models on recordings with reference transcripts."),
    "retry": ("stenoflow.cli.retry:command", "Retry a run's failed stages, or run it with other options."),
    "up": ("stenoflow.cli.up:up", "Start Prefect's server and UI, a worker and all deployments on this machine."),
    "api": ("stenoflow.cli.api:command", "Serve the REST API."),
    "submit": ("stenoflow.cli.submit:command", "Transcribe recordings on another machine, through its REST API."),
    "keys": ("stenoflow.cli.keys:command", "Create, list, rotate and revoke API keys."),
    "glossary": ("stenoflow.cli.glossary:command", "Keep terms and spellings under a name, for --glossary."),
    "voices": ("stenoflow.cli.voices:command", "Enrol voices, so that transcripts name their speakers."),
    "deploy": ("stenoflow.cli.up:deploy", "Register deployments and automations with a Prefect API."),
    "modal": ("stenoflow.cli.modal:command", "Run the models on Modal's GPUs: deploy, check, warm, status."),
    "gc": ("stenoflow.cli.gc:command", "Delete expired runs and artifacts, by age and size."),
    "doctor": ("stenoflow.cli.doctor:command", "Check that everything a run needs is installed and working."),
    "models": ("stenoflow.cli.models:command", "List models with size, languages, licence and source."),
    "version": ("stenoflow.cli.main:version_command", "Print the versions of Stenoflow and its dependencies."),
}
"""Name → where the command is, and its line in `steno --help`, so that help imports none of them."""


class LazyGroup(click.Group):
    """Imports a command when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, name = COMMANDS[cmd_name][0].split(":")
        command: click.Command = getattr(import_module(module), name)
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and _looks_like_source(args[0]):
            ctx.fail(f"No such command {args[0]!r}. Did you mean `steno transcribe {args[0]}`?")
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            from difflib import get_close_matches

            close = get_close_matches(args[0], COMMANDS, n=1)
            ctx.fail(f"No such command {args[0]!r}.{f' Did you mean `steno {close[0]}`?' if close else ''}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


def _looks_like_source(word: str) -> bool:
    return "://" in word or "/" in word or "." in word or Path(word).exists()


def _print_version(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        click.echo(f"steno {_version('stenoflow')}")
        ctx.exit()


def _version(package: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return None


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version, help="Print the version.")
def cli() -> None:
    """Recordings in, speaker-attributed, word-timed transcripts out.

    \b
    steno transcribe talk.mp3                         talk.json here
    steno transcribe *.wav -f srt,vtt -o subtitles    a folder of subtitles
    """


@click.command("version", help=COMMANDS["version"][1])
def version_command() -> None:
    click.echo(f"steno {_version('stenoflow')} (Python {sys.version.split()[0]})")
    for package in ("prefect", "faster-whisper", "ctranslate2", "onnxruntime", "torch", "whisperx", "pyannote.audio"):
        click.echo(f"{package:<16}{_version(package) or 'not installed'}")


def main(args: list[str] | None = None) -> None:
    """Run the command line and exit with its code; the only place that turns an error into one."""
    isolated.take_precedence()
    sys.exit(run(sys.argv[1:] if args is None else args))


def run(args: list[str]) -> int:
    """The exit code of `steno ARGS…`."""
    from stenoflow.cli.pipe import CLOSED, watched

    with watched() as output:
        code = CLOSED
        try:
            code = _invoke(args)
            output.flush()
        except BrokenPipeError:
            pass
        except SystemExit:  # click's own answer to a broken pipe, with 1
            if not output.closed_by_reader:
                raise
        return CLOSED if output.closed_by_reader else code


def _invoke(args: list[str]) -> int:
    from stenoflow.cli.pipe import CLOSED, reader_left

    try:
        from stenoflow.cli.errors import describe, report

        result: Any = cli.main(args=args, prog_name="steno", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.ctx.get_help() if error.ctx else "", err=True)
        return 2
    except ModuleNotFoundError as error:
        if error.name is None or _version("prefect"):
            raise
        return _not_installed(error.name, as_json="--json" in args)
    except click.UsageError as error:
        problem = describe(error)
        if "--json" not in args and error.ctx:
            problem = problem._replace(message=f"{problem.message} See `{error.ctx.command_path} --help`.")
        return report(problem, as_json="--json" in args)
    except (Exception, KeyboardInterrupt) as error:
        if reader_left():
            return CLOSED
        if "--debug" in args:
            import traceback

            traceback.print_exception(error)
        return report(describe(error), as_json="--json" in args)
    return result if isinstance(result, int) else 0


def _not_installed(module: str, *, as_json: bool) -> int:
    """Where only what the client needs is installed: say so, and the exit code."""
    message = f'{module} is not installed here; `pip install "stenoflow[cpu]"`, or "stenoflow[run]" where no models run.'
    line = {"type": "error", "code": "engine_missing", "message": message, "exit_code": 4}
    click.echo(json.dumps(line) if as_json else f"steno: error: {message}", err=not as_json)
    return 4


if __name__ == "__main__":
    main()
