"""Files with a text and a label per row: CSV, TSV and JSON lines."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from dlrun.errors import OptionError, choices


class Unreadable(Exception):
    """Where and why a file can't be read: "line 3: …"."""


def _objects(file: TextIO) -> Iterator[tuple[int, Any]]:
    """(line number, value) of a file with JSON on each line; empty lines are skipped."""
    for number, line in enumerate(file, 1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except json.JSONDecodeError as error:
                raise Unreadable(f"line {number}: {error.msg} at column {error.colno}") from error


def _records(reader: csv.DictReader[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """(number of its last line, row) of a table."""
    try:
        for row in reader:
            if None in row:
                fields, columns = len(row) - 1 + len(row[None]), len(row) - 1
                raise Unreadable(
                    f"line {reader.line_num}: {fields} values for {columns} columns; quote what has commas"
                )
            yield reader.line_num, row
    except csv.Error as error:
        raise Unreadable(f"line {reader.reader.line_num}: {error}") from error  # DictReader's own is a row behind


def read_columns(path: Path, text_column: str, label_column: str) -> tuple[list[str], list[str]]:
    """The two columns of a file with a header line (.csv, .tsv) or of one with an object per line (.jsonl)."""
    columns = {"text_column": text_column, "label_column": label_column}
    texts, labels = [], []
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            suffix = path.suffix.lower()
            if suffix == ".jsonl":
                rows = _objects(file)
            elif suffix in (".csv", ".tsv"):
                rows = _records(csv.DictReader(file, delimiter="\t" if suffix == ".tsv" else ",", strict=True))
            else:
                raise OptionError("file", f"expected a .csv, .tsv or .jsonl file, got {path}")
            for line, row in rows:
                for option, column in columns.items():
                    if not isinstance(row, dict) or column not in row:
                        known = [str(key) for key in row] if isinstance(row, dict) else []
                        raise OptionError(option, f"{path}, line {line}: no column '{column}'{choices(column, known)}")
                    if row[column] is None or (option == "label_column" and row[column] == ""):
                        raise OptionError(option, f"{path}, line {line}: no value in column '{column}'")
                texts.append(str(row[text_column]))
                labels.append(str(row[label_column]))
    except OSError as error:
        raise OptionError("file", f"can't read {path} ({error.strerror})") from error
    except Unreadable as error:
        raise OptionError("file", f"{path}, {error}") from error
    except UnicodeDecodeError as error:
        raise OptionError("file", f"{path} isn't UTF-8: {error}") from error
    if not texts:
        raise OptionError("file", f"{path} has no rows")
    return texts, labels
