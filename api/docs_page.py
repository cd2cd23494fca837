"""`/docs`: the OpenAPI document as a page of this service's own. It runs no script and loads nothing, whatever it shows."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Iterator
from html import escape
from typing import Any

from fastapi import FastAPI
from fastapi.responses import HTMLResponse

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color-scheme: light dark }
h1 small { font-weight: normal; opacity: .6 } h2 { margin-top: 2.5rem } summary { cursor: pointer; padding: .3rem 0 }
code { font: .9em ui-monospace, monospace } summary b { display: inline-block; min-width: 4.5rem } del { opacity: .6 }
table { border-collapse: collapse; width: 100%; margin: .5rem 0 1rem } details > div { padding-left: 1.2rem }
td, th { border-top: 1px solid #8884; padding: .3rem .8rem .3rem 0; text-align: left; vertical-align: top }
"""
_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
POLICY = f"default-src 'none'; style-src 'sha256-{_HASH}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
_REFERENCE = "#/components/schemas/"


def install(app: FastAPI) -> None:
    """Have the application answer `/docs`."""
    made: list[str] = []

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        if not made:
            made.append(page(app.openapi()))
        return HTMLResponse(made[0], headers={"Content-Security-Policy": POLICY, "Referrer-Policy": "no-referrer"})


def page(document: dict[str, Any]) -> str:
    """The whole document as HTML."""
    info = document["info"]
    title = f"{escape(info['title'])} <small>{escape(info['version'])}</small>"
    by_tag: dict[str, list[str]] = {}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            by_tag.setdefault((operation.get("tags") or ["other"])[0], []).append(_operation(method, path, operation))
    parts = [f"<h1>{title}</h1><p>{escape(info.get('description', ''))}</p>", _KEYS]
    parts += [f"<h2>{escape(tag)}</h2>{''.join(shown)}" for tag, shown in by_tag.items()]
    parts.append("<h2>Schemas</h2>")
    parts += [_schema(name, schema) for name, schema in sorted(document["components"]["schemas"].items())]
    return (
        f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{escape(info["title"])}</title>'
        f"<style>{_STYLE}</style></head><body>{''.join(parts)}</body></html>"
    )


_KEYS = (
    "<p>A key goes into the header <code>Authorization: Bearer KEY</code>. "
    'The same as a document: <a href="/openapi.json">/openapi.json</a>.</p>'
)


def _operation(method: str, path: str, operation: dict[str, Any]) -> str:
    name = f"<b>{escape(method.upper())}</b> <code>{escape(path)}</code>"
    name = f"<del>{name}</del>" if operation.get("deprecated") else name
    rows = [
        (f"{one['name']} ({one['in']})", _type(one.get("schema", {})), one.get("description", ""))
        for one in operation.get("parameters", ())
    ]
    rows += [
        ("body", _type(content.get("schema", {})), kind)
        for kind, content in operation.get("requestBody", {}).get("content", {}).items()
    ]
    answers = [
        (
            status,
            ", ".join(_type(content.get("schema", {})) for content in answer.get("content", {}).values()),
            answer["description"],
        )
        for status, answer in operation.get("responses", {}).items()
    ]
    text = escape(operation.get("description", ""))
    return f"<details><summary>{name} {escape(operation.get('summary', ''))}</summary><div><p>{text}</p>{_table(rows)}{_table(answers)}</div></details>"


def _schema(name: str, schema: dict[str, Any]) -> str:
    required = schema.get("required", ())
    rows = [
        (f"{field}{' *' if field in required else ''}", _type(one), one.get("description", ""))
        for field, one in schema.get("properties", {}).items()
    ]
    text = escape(schema.get("description", ""))
    return (
        f'<details id="{escape(name)}"><summary><code>{escape(name)}</code> {text}</summary><div>{_table(rows)}</div></details>'
    )


def _table(rows: Iterable[tuple[str, str, str]]) -> str:
    """Names and descriptions are text, types are HTML."""
    shown = "".join(f"<tr><td><code>{escape(name)}</code><td>{kind}<td>{escape(said)}" for name, kind, said in rows)
    return f"<table>{shown}</table>" if shown else ""


def _type(schema: dict[str, Any]) -> str:
    """What a value may be, as HTML."""
    return " | ".join(_kinds(schema))


def _kinds(schema: dict[str, Any]) -> Iterator[str]:
    if reference := schema.get("$ref", "").removeprefix(_REFERENCE):
        yield f'<a href="#{escape(reference)}">{escape(reference)}</a>'
    for option in (*schema.get("anyOf", ()), *schema.get("oneOf", ()), *schema.get("allOf", ())):
        yield from _kinds(option)
    if values := schema.get("enum") or ([schema["const"]] if "const" in schema else ()):
        yield " | ".join(f"<code>{escape(str(value))}</code>" for value in values)
    elif schema.get("type") == "array":
        yield f"list of {_type(schema.get('items', {})) or 'anything'}"
    elif "type" in schema:
        yield escape(str(schema["type"]))
