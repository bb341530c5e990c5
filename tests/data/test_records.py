from __future__ import annotations

import csv
import io
import sys
from pathlib import Path
from typing import Any

import pytest

from dlrun.data.columns import read_columns
from dlrun.data.listing import Sample
from dlrun.data.records import Columns, records
from dlrun.spec import Modality


def read(
    path: Path, content: str | bytes, modality: Modality = "text", **columns: Any
) -> tuple[dict[int | None, Any], dict[int | None, str]]:
    """What each line gives, and what is wrong with the others."""
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return taken(path, list(records(path, modality, Columns(**columns))))


def taken(path: Path, found: list[Any]) -> tuple[dict[int | None, Any], dict[int | None, str]]:
    def line(name: str) -> int | None:
        rest = name.removeprefix(str(path))
        return int(rest.removeprefix(":")) if rest else None

    good = {line(item.name): item.value for item in found if isinstance(item, Sample)}
    return good, {line(item.name): item.reason for item in found if not isinstance(item, Sample)}


def test_texts_of_a_table_are_those_that_training_reads(tmp_path: Path) -> None:
    texts = ["plain", "with, comma", 'with "quotes"', "two\nlines", "ünï", "", " spaces "]
    for suffix, delimiter in ((".csv", ","), (".tsv", "\t")):
        path = tmp_path / f"x{suffix}"
        with path.open("w", newline="", encoding="utf-8-sig") as file:
            writer = csv.writer(file, delimiter=delimiter)
            writer.writerows([["label", "text"], *([str(i), text] for i, text in enumerate(texts))])
        found = list(records(path, "text", Columns()))
        assert [item.value for item in found if isinstance(item, Sample)] == texts
        assert read_columns(path, "text", "label")[0] == texts
        assert [item.name.rpartition(":")[2] for item in found] == ["2", "3", "4", "5", "7", "8", "9"]


def test_lines_and_objects(tmp_path: Path) -> None:
    assert read(tmp_path / "x.txt", "\ufeffone\r\n\n  two \nthree") == ({1: "one", 3: "  two ", 4: "three"}, {})
    objects = (
        '{"text": "one", "n": 1}\n"two"\n\n{"text": 3}\n{"txt": ""}\n{"text": null}\n[1]\n{"text": \n' + "[" * 10**5
    )
    good, bad = read(tmp_path / "x.jsonl", objects)
    assert good == {1: "one", 2: "two", 4: "3"}
    assert bad.pop(9)  # brackets without end: what Python says of that varies
    assert bad == {
        5: "no column 'text'; did you mean 'txt'? (choose from txt)",
        6: "no value in column 'text'",
        7: "no column 'text'",
        8: "Expecting value at column 10",
    }


def test_one_bad_row_of_a_table_stops_no_other(tmp_path: Path) -> None:
    good, bad = read(tmp_path / "x.csv", 'text,label\none,a\ntwo,b,c\nthree\n\nfour,d\n"five,e\n')
    assert good == {2: "one", 6: "four"}
    assert bad[3] == "3 values for 2 columns; quote what has commas"
    assert bad[4] == "1 value for 2 columns; quote what has commas"
    assert "nothing behind it was read" in bad[7]


def test_what_can_not_be_read_at_all(tmp_path: Path) -> None:
    known = "(.csv, .jsonl, .ndjson, .tsv, .txt)"
    assert read(tmp_path / "x.png", "x")[1] == {None: f"the run was trained on texts; expected a file of them {known}"}
    for suffix in (".txt", ".csv", ".jsonl"):
        assert read(tmp_path / f"x{suffix}", "")[1] == {None: "has nothing in it"}
        assert read(tmp_path / f"x{suffix}", "\n\n")[1] == {None: "has nothing in it"}
    assert read(tmp_path / "h.csv", "text,label\n")[1] == {None: "has nothing in it"}
    unknown = {None: "no column 'text'; did you mean 'texts'? (choose from label, texts)"}
    assert read(tmp_path / "y.csv", "texts,label\na,b\n")[1] == unknown
    assert read(tmp_path / "z.csv", "texts,label\na,b\n", text="texts") == ({2: "a"}, {})
    (tmp_path / "utf16.csv").write_bytes("text,label\na,b\n".encode("utf-16"))
    assert [(r.name.rpartition("/")[2], r.reason) for r in records(tmp_path / "utf16.csv", "text", Columns())] == [  # type: ignore[union-attr]
        ("utf16.csv", "isn't UTF-8 text")
    ]
    assert next(records(tmp_path / "nowhere.txt", "text", Columns())).reason == (  # type: ignore[union-attr]
        "can't be read (No such file or directory)"
    )


@pytest.mark.parametrize("header", ["", "a,b,c\n", "0,1,2\n"])
def test_rows_of_numbers(tmp_path: Path, header: str) -> None:
    good, bad = read(tmp_path / "x.csv", header + "1,2.5,-3e2\n\n 4 ,5,6\n", "tabular", features=3)
    assert (list(good.values()), bad) == ([[1, 2.5, -300], [4, 5, 6]], {})


def test_columns_that_are_no_features(tmp_path: Path) -> None:
    table, path = "id,a,b,label\n7,1,2,yes\n8,3,4,no\n", tmp_path / "x.csv"
    assert read(path, table, "tabular", features=2, dropped=["label", "id"])[0] == {2: [1, 2], 3: [3, 4]}
    assert read(path, table, "tabular", features=2, dropped=["1", "4"])[0] == {2: [1, 2], 3: [3, 4]}
    hint = "4 values, where the run was trained on 2 features; drop_columns=… leaves out what is none"
    assert read(path, table, "tabular", features=2)[1] == {2: hint, 3: hint}
    wrong = "drop_columns: no column 'labl'; did you mean 'label'? (choose from a, b, id, label)"
    assert read(path, table, "tabular", features=3, dropped=["labl"])[1][2] == wrong
    few = "4 values, 3 of them dropped, where the run was trained on 2 features"
    assert read(path, table, "tabular", features=2, dropped=["1", "2", "3"])[1][2] == few


def test_what_is_no_number(tmp_path: Path) -> None:
    good, bad = read(tmp_path / "x.csv", "a,b\n1,x\n,2\n1_0,2\n3\n4,5\n", "tabular", features=2)
    assert good == {6: [4, 5]}
    assert bad == {
        2: "column 'b': expected a number, got 'x'",
        3: "column 'a': expected a number, got nothing",
        4: "column 'a': expected a number, got '1_0'",
        5: "1 value, where the run was trained on 2 features",
    }
    objects = '{"a": 1, "b": 2}\n{"b": 4, "a": 3}\n{"a": 1}\n{"a": true, "b": 1}\n{"a": null, "b": 1}\n5\n'
    good, bad = read(tmp_path / "x.jsonl", objects, "tabular", features=2)
    assert good == {1: [1, 2], 2: [3, 4]}  # by their keys
    assert bad == {
        3: "has other keys than the first: 'b'",
        4: "column 'a': expected a number, got True",
        5: "column 'a': expected a number, got nothing",
        6: "expected a list of numbers, or an object of them, got 5",
    }
    assert read(tmp_path / "y.jsonl", "[1, 2]\n[3, 4]\n", "tabular", features=2)[0] == {1: [1, 2], 2: [3, 4]}


def test_stdin_stays_open(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.TextIOWrapper(io.BytesIO(b"one\ntwo\n"))
    monkeypatch.setattr(sys, "stdin", stream)
    assert [item.name for item in records(None, "text", Columns())] == ["-:1", "-:2"]
    assert not stream.buffer.closed
