"""The options of `steno transcribe`, made from the request's fields: a field's description is its help."""

from __future__ import annotations

import re
import types
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin

import click

if TYPE_CHECKING:
    from pydantic import BaseModel
    from pydantic.fields import FieldInfo

SECTIONS: dict[str, tuple[str, ...]] = {
    "Text": (
        "language",
        "track",
        "model",
        "task",
        "initial_prompt",
        "hotwords",
        "batch_size",
        "allow_truncated",
        "max_duration",
    ),
    "Word times": ("align", "align_model"),
    "Speakers": ("diarize", "num_speakers", "min_speakers", "max_speakers", "on_diarization_failure"),
    "Output": (
        "formats",
        "output_dir",
        "output_file",
        "name",
        "overwrite",
        "highlight_words",
        "max_line_width",
        "max_line_count",
    ),
    "Stages": ("redo_from", "retention_days"),
    "Machine": ("compute", "device", "compute_type", "threads", "hf_token"),
    "Display": ("as_json", "quiet", "verbose", "debug", "_click_default_help"),
}
"""How `--help` groups the options; a field that is named nowhere comes under "More"."""

SHORT = {"language": "-l", "model": "-m", "formats": "-f", "output_dir": "-o"}
RENAMED = {"formats": ("--format", "--output-format")}
MACHINE = {
    "device": "STENO_COMPUTE__DEVICE",
    "compute_type": "STENO_COMPUTE__COMPUTE_TYPE",
    "threads": "STENO_COMPUTE__THREADS",
}
"""Options that stand for a setting, and the variable that carries it."""
DEVICES = ("auto", "cpu", "cuda")


def option_name(field: str) -> str:
    """The option a user types for a field of the request: `min_speakers` → `--min-speakers`."""
    return RENAMED.get(field, (f"--{field.replace('_', '-')}",))[0]


def with_option_names(text: str) -> str:
    """`min_speakers` → `--min-speakers` wherever it stands in `text`; only names with an underscore, the others are words."""
    from flows.request import TranscribeRequest

    fields = TranscribeRequest.model_fields
    return re.sub(r"\b[a-z]+(?:_[a-z]+)+\b", lambda found: option_name(found[0]) if found[0] in fields else found[0], text)


def same_dashes(token: str) -> str:
    """WhisperX writes `--output_dir`; so may its users."""
    return token.replace("_", "-")


class FormatList(click.ParamType[tuple[str, ...]]):
    """`srt`, `srt,vtt` or `all`."""

    name = "format"

    def __init__(self, known: tuple[str, ...]) -> None:
        self.known = known

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        if isinstance(value, tuple):
            return value
        names = tuple(name.strip().lower() for name in str(value).split(",") if name.strip())
        unknown = [name for name in names if name not in (*self.known, "all")]
        if unknown or not names:
            self.fail(f"{(unknown or [value])[0]!r} is not one of {', '.join(self.known)} or all.", param, ctx)
        return self.known if "all" in names else names

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        return f"[{'|'.join((*self.known, 'all'))}]"


def request_parameters() -> list[click.Parameter]:
    """The sources as arguments, and an option per field of TranscribeRequest."""
    return [
        click.Argument(["sources"], nargs=-1, required=True, metavar="SOURCE..."),
        *request_options(without=("source",)),
    ]


def request_options(without: tuple[str, ...]) -> list[click.Parameter]:
    """An option per field of TranscribeRequest, in its order."""
    from flows.request import TranscribeRequest

    return field_options(TranscribeRequest, without)


def field_options(model: type[BaseModel], without: tuple[str, ...] = ()) -> list[click.Parameter]:
    """An option per field of a model, in its order."""
    return [_option(name, field) for name, field in model.model_fields.items() if name not in without]


def given_options(options: dict[str, Any]) -> dict[str, Any]:
    """The fields of the request that were given on the command line."""
    given = {name: value for name, value in options.items() if value is not None and value != ()}
    if "formats" in given:
        given["formats"] = tuple(name for group in given["formats"] for name in group)
    return given


def machine_parameters() -> list[click.Parameter]:
    return [
        click.Option(
            ["--device"], type=click.Choice(DEVICES), help="Where the models run; auto takes a GPU when there is one."
        ),
        click.Option(
            ["--compute-type"], metavar="TYPE", help="CTranslate2's: int8, float16, int8_float16, float32; auto by device."
        ),
        click.Option(
            ["--threads"], type=click.IntRange(min=0), metavar="N", help="CPU threads of one stage; 0 decides from the cores."
        ),
        click.Option(
            ["--hf-token"], metavar="TOKEN", hidden=True, help="Hub token; HF_TOKEN keeps it out of the process list."
        ),
    ]


def display_parameters() -> list[click.Parameter]:
    return [
        click.Option(["--json", "as_json"], is_flag=True, help="Events, results and errors as JSON lines on standard output."),
        click.Option(["--quiet", "-q"], is_flag=True, help="Print nothing but errors."),
        click.Option(["--verbose", "-v"], is_flag=True, help="Show Prefect's log and the libraries' warnings."),
        click.Option(["--debug"], is_flag=True, help="Show where an error arose."),
    ]


def _option(name: str, field: FieldInfo) -> click.Option:
    """One option for one field. Left out, it is None, and the request's own default holds."""
    long = RENAMED.get(name, (option_name(name),))
    flags = [name, *([SHORT[name]] if name in SHORT else []), *long]
    help_text = f"{with_option_names(field.description or '')}{_default(field)}"
    if name == "formats":
        from flows.request import FORMATS

        return click.Option(
            flags, type=FormatList(FORMATS), multiple=True, help=f"{help_text} Repeat it, or give a list: srt,vtt."
        )
    kind = _plain(field.annotation)
    if kind is bool:
        return click.Option([name, f"{long[0]}/--no-{long[0][2:]}"], default=None, help=help_text)
    return click.Option(flags, type=_type(kind, field.metadata), metavar=_metavar(name, kind), help=help_text)


def _plain(annotation: Any) -> Any:
    """`int` for `int | None`."""
    if get_origin(annotation) in (Union, types.UnionType):
        return next(part for part in get_args(annotation) if part is not type(None))
    return annotation


def _type(kind: Any, metadata: Iterable[Any]) -> click.ParamType[Any]:
    if get_origin(kind) is Literal:
        return click.Choice(get_args(kind))
    if kind is float:
        return click.FLOAT
    if kind is int:
        low = next((item.ge for item in metadata if hasattr(item, "ge")), None)
        high = next((item.le for item in metadata if hasattr(item, "le")), None)
        return click.IntRange(low, high)
    return click.STRING


def _metavar(name: str, kind: Any) -> str | None:
    if kind in (int, float):
        return "N"
    if kind is not str:
        return None
    return {"language": "LANGUAGE", "track": "TRACK", "output_dir": "FOLDER", "output_file": "FILE"}.get(
        name, "MODEL" if "model" in name else "TEXT"
    )


def _default(field: FieldInfo) -> str:
    value = field.default
    if value is None or isinstance(value, bool):
        return ""
    return f" [default: {', '.join(value) if isinstance(value, tuple) else value}]"


class TranscribeCommand(click.Command):
    """Builds its options when it is first used, so that other commands do not pay for pydantic."""

    sections = SECTIONS

    def __init__(self, name: str, callback: Callable[..., Any], **settings: Any) -> None:
        super().__init__(
            name,
            callback=callback,
            context_settings={"token_normalize_func": same_dashes, "max_content_width": 110},
            **settings,
        )
        self._built = False

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        if not self._built:
            self.params = self.parameters()
            self._built = True
        return super().get_params(ctx)

    def parameters(self) -> list[click.Parameter]:
        return [*request_parameters(), *machine_parameters(), *display_parameters()]

    def make_parser(self, ctx: click.Context) -> Any:
        self.get_params(ctx)
        return super().make_parser(ctx)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, _without_booleans(args))

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        options = [option for option in self.get_params(ctx) if isinstance(option, click.Option)]
        rows = {str(option.name): row for option in options if (row := option.get_help_record(ctx))}
        for title, names in self.sections.items():
            known = [rows.pop(name) for name in names if name in rows]
            if known:
                with formatter.section(title):
                    formatter.write_dl(known)
        if rows:
            with formatter.section("More"):
                formatter.write_dl(list(rows.values()))


def _without_booleans(args: list[str]) -> list[str]:
    """WhisperX's `--highlight_words True` as the flag it means."""
    result: list[str] = []
    for position, arg in enumerate(args):
        if same_dashes(result[-1] if result else "") == "--highlight-words" and arg in ("True", "False"):
            result[-1] = "--highlight-words" if arg == "True" else "--no-highlight-words"
        elif arg == "--":
            return [*result, *args[position:]]
        else:
            result.append(arg)
    return result
