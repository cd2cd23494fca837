"""The OpenAPI document, as what generates a client reads it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from api.app import create_app


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return create_app().openapi()


def operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield f"{method} {path}", operation


def test_every_operation_has_a_name_of_its_own_that_says_what_it_does(document: dict[str, Any]) -> None:
    names = {where: operation["operationId"] for where, operation in operations(document)}
    assert len(set(names.values())) == len(names)
    for name in names.values():
        assert re.fullmatch(r"(get|list|submit|create|edit|compare|delete|retry|redeliver|stream)(_[a-z]+)+", name), name
    assert names["post /transcribes"] == "submit_job" and names["get /transcribes/{job_id}"] == "get_job"


def test_segments_and_words_have_types(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    for name in ("Job", "ChunkResult", "TranscriptFile"):
        for member, kind in (("segments", "Segment"), ("word_segments", "Word")):
            field = schemas[name]["properties"][member]
            listed = next(one for one in field.get("anyOf", [field]) if one.get("type") == "array")
            assert listed["items"] == {"$ref": f"#/components/schemas/{kind}"}, (name, member)
    assert schemas["Segment"]["properties"]["words"]["items"] == {"$ref": "#/components/schemas/Word"}
    assert {"start", "end", "text"} <= set(schemas["Segment"]["required"])
    assert {"word", "start", "end", "score"} <= set(schemas["Word"]["required"])
    assert set(schemas["Problem"]["properties"]["errors"]["anyOf"][0]["items"]) == {"$ref"}


def test_no_answer_is_left_without_a_type(document: dict[str, Any]) -> None:
    for where, operation in operations(document):
        for status, answer in operation["responses"].items():
            for kind, content in answer.get("content", {}).items():
                assert content["schema"], (where, status, kind)
