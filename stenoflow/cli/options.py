"""The options of `steno transcribe` and its kin, derived from their declaration in `flows.options`."""

from __future__ import annotations

import re
import types
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin

import click
from click.shell_completion import CompletionItem

if TYPE_CHECKING:
    from pydantic import BaseModel
    from pydantic.fields import FieldInfo

    from flows.doors import Door, Option

MACHINE = ("device", "compute_type", "threads")
"""Options that stand for a setting of `compute`."""
DEVICES = ("auto", "cpu", "cuda")


class GroupedOption(click.Option):
    """An option that `--help` shows under a heading."""

    def __init__(self, *arguments: Any, group: str, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.group = group


def option_name(field: str) -> str:
    """The option a user types for a field of the request: `min_speakers` → `--min-speakers`."""
    from flows.doors import options_of
    from flows.request import TranscribeRequest

    return _names(field, options_of(TranscribeRequest).get(field))[0]


def _names(field: str, declared: Option | None) -> tuple[str, ...]:
    """`("--min-speakers",)`"""
    long = tuple(flag for flag in declared.flags if flag.startswith("--")) if declared else ()
    return long or (f"--{field.replace('_', '-')}",)


def with_option_names(text: str) -> str:
    """`min_speakers` → `--min-speakers` wherever it stands in `text`; only names with an underscore, the others are words."""
    from flows.request import TranscribeRequest

    fields = TranscribeRequest.model_fields
    return re.sub(r"\b[a-z]+(?:_[a-z]+)+\b", lambda found: option_name(found[0]) if found[0] in fields else found[0], text)


def same_dashes(token: str) -> str:
    """WhisperX writes `--output_dir`; so may its users."""
    return token.replace("_", "-")


class ChoiceList(click.ParamType):  # type: ignore[type-arg,unused-ignore]  # of which Click 8.1 has no subscript
    """`srt`, `srt,vtt` or `all`."""

    name = "format"

    def __init__(self, offered: tuple[str, ...]) -> None:
        self.known = tuple(name for name in offered if name != "all")

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

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        before, comma, last = incomplete.rpartition(",")
        taken = before.split(",")
        return [CompletionItem(f"{before}{comma}{name}") for name in self.known if name.startswith(last) and name not in taken]


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


def field_options(
    model: type[BaseModel], without: tuple[str, ...] = (), group: str = "", door: Door | None = None
) -> list[click.Parameter]:
    """An option per field of a model, in its order; under `group` where it declares none, explained as at the `door`."""
    from flows.doors import Door, about, help_at

    fields = {name: (field, about(field)) for name, field in model.model_fields.items() if name not in without}
    return [
        _option(name, field, declared, group, help_at(field, door or Door.COMMAND))
        for name, (field, declared) in fields.items()
        if declared is None or Door.COMMAND in declared.doors
    ]


def given_options(options: dict[str, Any]) -> dict[str, Any]:
    """The fields of the request that were given on the command line."""
    given = {name: value for name, value in options.items() if value is not None and value != ()}
    if "formats" in given:
        given["formats"] = tuple(name for group in given["formats"] for name in group)
    return given


def machine_parameters() -> list[click.Parameter]:
    return [
        GroupedOption(
            ["--device"],
            group="Computing",
            type=click.Choice(DEVICES),
            help="Device for the models; auto uses a GPU if there is one.",
        ),
        GroupedOption(
            ["--compute-type"],
            group="Computing",
            metavar="TYPE",
            help="Precision of CTranslate2: int8, float16, int8_float16 or float32; auto chooses by device.",
        ),
        GroupedOption(
            ["--threads"],
            group="Computing",
            type=click.IntRange(min=0),
            metavar="N",
            help="CPU threads per stage; 0 chooses by the number of cores.",
        ),
        GroupedOption(
            ["--hf-token"],
            group="Computing",
            metavar="TOKEN",
            hidden=True,
            help="Hub token; HF_TOKEN keeps it out of the process list.",
        ),
    ]


def display_parameters() -> list[click.Parameter]:
    flags = {
        ("--json", "as_json"): "Print events, results and errors as JSON lines.",
        ("--quiet", "-q"): "Print errors only.",
        ("--verbose", "-v"): "Show the logs of Prefect and the libraries.",
        ("--debug",): "Show tracebacks.",
    }
    return [GroupedOption([*names], group="Display", is_flag=True, help=text) for names, text in flags.items()]


def _option(name: str, field: FieldInfo, declared: Option | None, group: str, help_text: str) -> click.Option:
    """One option for one field. Left out, it is None, and the request's own default holds."""
    flags, long = declared.flags if declared else (), _names(name, declared)
    settings: dict[str, Any] = {
        "group": declared.group if declared else group,
        "help": f"{with_option_names(help_text)}{_default(field)}",
    }
    kind = _plain(field.annotation)
    if kind is bool:
        return GroupedOption([name, f"{long[0]}/--no-{long[0][2:]}"], default=None, **settings)
    names = [name, *(flag for flag in flags if not flag.startswith("--")), *long]
    if get_origin(kind) is tuple and declared and declared.offered:
        settings["help"] += " Repeatable, or a list: srt,vtt."
        return GroupedOption(names, type=ChoiceList(declared.offered), multiple=True, **settings)
    metavar = "N" if kind in (int, float) else (declared and declared.metavar) or "TEXT" if kind is str else None
    return GroupedOption(names, type=_type(kind, field.metadata), metavar=metavar, **settings)


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


def _default(field: FieldInfo) -> str:
    value = field.default
    if value is None or isinstance(value, bool):
        return ""
    return f" [default: {', '.join(value) if isinstance(value, tuple) else value}]"


class TranscribeCommand(click.Command):
    """Builds its options when it is first used, so that other commands do not pay for pydantic."""

    heading = ""
    """Of the options that are the command's own."""

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
        from flows.doors import GROUPS

        sections: dict[str, list[tuple[str, str]]] = {heading: [] for heading in (self.heading, *GROUPS)}
        for option in self.get_params(ctx):
            if isinstance(option, click.Option) and (row := option.get_help_record(ctx)):
                sections[self._section(option)].append(row)
        for title, rows in sections.items():
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)

    def _section(self, option: click.Option) -> str:
        if isinstance(option, GroupedOption):
            return option.group
        return "Display" if option.is_eager else self.heading


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
