"""The rows of a manifest's text: CSV as spreadsheets of any country write it, and JSON lines."""

from __future__ import annotations

import codecs
import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from stenoflow.errors import UnreadableList

Row = tuple[int, dict[str, Any] | str]
"""Line, and the row or why it is none."""
_BLOCK = 1 << 16
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_SEPARATOR = re.compile(r"\"?sep=(.?)\"?", re.IGNORECASE)
_BLANK = ' \r\n\t\ufeff,;|"'
"""What a line without a cell may hold."""
_QUOTED = re.compile(r"\"[^\"]*\"")


def encoding_of(path: Path) -> str:
    """The text's encoding: what its mark says, UTF-16 where every other byte is zero, UTF-8 where that fits, else Windows'."""
    with path.open("rb") as file:
        head = file.read(4)
        rest = codecs.getincrementaldecoder("utf-8")()
        for mark, encoding in _MARKS:
            if head.startswith(mark):
                return encoding
        if len(head) == 4 and 0 in head:
            return "utf-16-le" if head[1] == 0 else "utf-16-be"
        file.seek(0)
        try:
            while block := file.read(_BLOCK):
                rest.decode(block)
            rest.decode(b"", final=True)
        except UnicodeDecodeError:
            return "cp1252"
    return "utf-8"


def _preamble(file: TextIO) -> tuple[int, str]:
    """Lines above the header, which are read, and the delimiter: what Excel's `sep=` says, else the header's most frequent one."""
    above, start, first = 0, 0, file.readline()
    while first and not first.strip(_BLANK):
        above, start, first = above + 1, file.tell(), file.readline()
    if match := _SEPARATOR.fullmatch(first.strip("\ufeff \r\n")):
        return above + 1, match[1] or "\t"
    file.seek(start)
    plain = _QUOTED.sub("", first)
    return above, max(",;\t|", key=plain.count)


def csv_rows(path: Path, name: str) -> Iterator[Row]:
    """The rows of a CSV, each with its line. Raises UnreadableList when it has no header with a `source`."""
    with path.open(encoding=encoding_of(path), errors="replace", newline="") as file:
        above, delimiter = _preamble(file)
        reader = csv.reader(file, delimiter=delimiter, strict=True)
        try:
            header = [column.strip().strip("\ufeff").lower() for column in next(reader, [])]
        except csv.Error:
            header = []
        if "source" not in header:
            raise UnreadableList(
                f"{name} has no column named source in its first line; add one with a path or address per row."
            )
        if len(set(header)) != len(header):
            raise UnreadableList(f"{name} has two columns with the same name in its first line; give each a name of its own.")
        while True:
            line = above + reader.line_num + 1
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield line, f"The row is not valid CSV ({error})."
                continue
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) > len(header):
                yield line, f"The row has {len(cells)} cells, the header {len(header)}; quote cells that contain {delimiter!r}."
                continue
            yield line, dict(zip(header, cells, strict=False))


def json_rows(path: Path, name: str) -> Iterator[Row]:
    """The lines of a JSONL file, each with its number."""
    with path.open(encoding=encoding_of(path), errors="replace") as file:
        for line, text in enumerate(file, start=1):
            if not text.strip():
                continue
            try:
                row = json.loads(text)
            except (ValueError, RecursionError):
                yield line, "The line is not valid JSON; each line is one object."
                continue
            yield line, row if isinstance(row, dict) else "The line is not a JSON object with a source."
