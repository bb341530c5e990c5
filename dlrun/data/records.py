"""Files and streams of texts or of rows of numbers, read record by record: what is wrong with one stops no other."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from dlrun.data.listing import STDIN, Sample, Unreadable, shown, stdin
from dlrun.errors import choices, shortened
from dlrun.spec import Modality

TABLES = {".csv": ",", ".tsv": "\t"}
OBJECTS = {".jsonl", ".ndjson"}
KINDS = {"text": "texts", "tabular": "rows of numbers"}
SUFFIXES: dict[Modality, set[str]] = {"text": {".txt", *TABLES, *OBJECTS}, "tabular": {*TABLES, *OBJECTS}}

Record = Sample | Unreadable


class Wrong(Exception):
    """What is wrong with one record."""


@dataclass(frozen=True)
class Columns:
    """Which columns of a file are meant: the one with the text, or all but those in `dropped`, `features` in number."""

    text: str = "text"
    dropped: Sequence[str] = ()  # by name, or by place, from 1
    features: int = 0


def records(file: Path | None, modality: Modality, columns: Columns) -> Iterator[Record]:
    """All of a file, or of stdin: lines of text, rows of numbers. Nothing is kept, so it may be of any length."""
    suffix = (".txt" if modality == "text" else ".csv") if file is None else file.suffix.lower()
    name = STDIN if file is None else shown(file)
    if suffix not in SUFFIXES[modality]:
        known = ", ".join(sorted(SUFFIXES[modality]))
        yield Unreadable(name, f"the run was trained on {KINDS[modality]}; expected a file of them ({known})")
        return
    found = False
    try:
        with nullcontext(stdin()) if file is None else file.open("rb") as stream:
            for record in _read(stream, suffix, name, modality, columns):
                found = True
                yield record
    except OSError as error:
        yield Unreadable(name, f"can't be read ({error.strerror or error})")
        return
    if not found:
        yield Unreadable(name, "has nothing in it")


def _read(stream: BinaryIO, suffix: str, name: str, modality: Modality, columns: Columns) -> Iterator[Record]:
    # What isn't UTF-8 comes through as surrogates, and is found in its own record.
    newline = "" if suffix in TABLES else None
    lines = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline=newline)
    try:
        if suffix in TABLES:
            yield from _table(lines, TABLES[suffix], name, modality, columns)
            return
        take: Callable[[str], Any] = str
        if suffix in OBJECTS:
            take = _TextOfObject(columns.text) if modality == "text" else _Numbers(columns).of_object
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield _record(f"{name}:{number}", take, line.rstrip("\n"))
    finally:
        lines.detach()  # stdin isn't ours to close


def _table(lines: io.TextIOBase, delimiter: str, name: str, modality: Modality, columns: Columns) -> Iterator[Record]:
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    try:
        first = next((row for row in reader if row), None)
        if first is None:
            return
        begin = reader.line_num
        header = modality == "text" or _is_header(first)
        take = _TextOfRow(first, columns.text) if modality == "text" else _Numbers(columns, first if header else None)
        if not header:
            yield _record(f"{name}:{begin}", take, first)
        end = reader.line_num
        for row in reader:
            begin, end = end + 1, reader.line_num
            if row:  # not an empty line
                yield _record(f"{name}:{begin}", take, row)
    except Wrong as error:
        yield Unreadable(name, str(error))
    except csv.Error as error:
        yield Unreadable(f"{name}:{reader.line_num}", f"{error}; nothing behind it was read")


def _record(name: str, take: Callable[[Any], Any], given: Any) -> Record:
    try:
        return Sample(name, take(given))
    except Wrong as error:
        return Unreadable(name, str(error))


def _is_header(row: Sequence[str]) -> bool:
    """No number in it; or those that pandas numbers nameless columns with."""
    return not any(_is_number(value) for value in row) or list(row) == [str(place) for place in range(len(row))]


class _TextOfRow:
    """Raises Wrong at once if the header doesn't have the column."""

    def __init__(self, header: Sequence[str], column: str):
        if column not in header:
            if any("\0" in name or any("\udc80" <= c <= "\udcff" for c in name) for name in header):
                raise Wrong("isn't UTF-8 text")  # UTF-16, say, or no text at all
            raise Wrong(f"no column '{column}'{choices(column, header)}")
        self.width = len(header)
        self.place = max(place for place, name in enumerate(header) if name == column)  # as in training

    def __call__(self, row: Sequence[str]) -> str:
        if len(row) != self.width:
            raise Wrong(f"{_values(row)} for {self.width} columns; quote what has commas")
        return row[self.place]


@dataclass(frozen=True)
class _TextOfObject:
    column: str

    def __call__(self, line: str) -> str:
        value = _json(line)
        if isinstance(value, str):
            return value
        known = list(value) if isinstance(value, dict) else []
        if self.column not in known:
            raise Wrong(f"no column '{self.column}'{choices(self.column, known)}")
        if value[self.column] is None:
            raise Wrong(f"no value in column '{self.column}'")
        return str(value[self.column])  # as in training


@dataclass
class _Numbers:
    """Rows of numbers, in the order of the header if there is one."""

    columns: Columns
    header: Sequence[str] | None = None
    kept: list[int] | None = field(default=None, init=False)  # places of the columns that aren't dropped

    def __call__(self, row: Sequence[Any]) -> list[float]:
        width = len(row if self.header is None else self.header)
        if self.kept is None:
            self.kept = self._places(width)
        features, dropped = self.columns.features, len(self.columns.dropped)
        if len(row) != width or len(self.kept) != features or width != features + dropped:
            without = f", {dropped} of them dropped" if dropped else ""
            hint = "; drop_columns=… leaves out what is none" if width > features + dropped else ""
            raise Wrong(f"{_values(row)}{without}, where the run was trained on {features} features{hint}")
        return [self._number(row[place], place) for place in self.kept]

    def of_object(self, line: str) -> list[float]:
        value = _json(line)
        if isinstance(value, list):
            return self(value)
        if not isinstance(value, dict):
            raise Wrong(f"expected a list of numbers, or an object of them, got {shortened(line.strip(), 40)}")
        self.header = self.header or list(value)
        if value.keys() != set(self.header):
            odd = sorted(value.keys() ^ set(self.header))[0]
            raise Wrong(f"has other keys than the first: '{odd}'")
        return self([value[key] for key in self.header])

    def _places(self, width: int) -> list[int]:
        dropped = set()
        for column in self.columns.dropped:
            if self.header is not None and column in self.header:
                dropped.add(self.header.index(column))
            elif column.isdecimal() and 1 <= int(column) <= width:
                dropped.add(int(column) - 1)
            else:
                raise Wrong(f"drop_columns: no column '{column}'{choices(column, self.header or [])}")
        return [place for place in range(width) if place not in dropped]

    def _number(self, value: Any, place: int) -> float:
        column = f"column {place + 1}" if self.header is None else f"column '{self.header[place]}'"
        if isinstance(value, str) and _is_number(value):
            return float(value)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return value
        got = "nothing" if value in ("", None) else shortened(repr(value), 40)
        raise Wrong(f"{column}: expected a number, got {got}")


def _json(line: str) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise Wrong(f"{error.msg} at column {error.colno}") from error
    except (ValueError, RecursionError) as error:  # a number of 5,000 digits; brackets without end
        raise Wrong(str(error)) from error


def _values(row: Sequence[Any]) -> str:
    return f"{len(row)} value{'' if len(row) == 1 else 's'}"


def _is_number(value: str) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return "_" not in value
