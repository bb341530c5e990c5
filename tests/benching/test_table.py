"""The report's tables: what they say, and that they fit."""

from __future__ import annotations

import pytest
from bench_reports import NAMES, made_up

from dlrun.benching.table import NAME_WIDTH, binary, count, digits, markdown, shortened, terminal


def test_the_terminals_table_fits_whatever_the_names() -> None:
    report = made_up(NAMES, batch_sizes=(1, 8, 64, 1024))
    lines = terminal(report["rows"], report["batch_sizes"]).splitlines()
    assert max(map(len, lines)) <= 110
    assert sum(line.startswith("pytorch ") for line in lines) == 3, "facts, three batch sizes, the fourth"
    assert any("batch 1024" in line for line in lines)


def test_markdown_has_a_row_for_each_artifact_and_all_its_figures() -> None:
    report = made_up(NAMES)
    lines = markdown(report).splitlines()
    table = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines if line.startswith("|")]
    assert len(table) == 2 + len(NAMES) == 17
    assert {len(row) for row in table} == {8 + 2 * 3}
    [header, _, first, second, *_] = table
    said, compared = dict(zip(header, first, strict=True)), dict(zip(header, second, strict=True))
    assert said["accuracy"] == "99.10 %"
    assert compared["change"] == "-0.20"
    assert said["size"] == "651 KiB"
    assert said["batch 8: p50/p99 ms"] == "8.00/16.0"


def test_what_was_left_out_is_listed_with_its_reason() -> None:
    report = made_up(NAMES[:2])
    report["rows"].append({**report["rows"][1], "name": "aoti", "status": "left out", "reason": "machine | code"})
    assert "aoti: left out: machine | code" in terminal(report["rows"], report["batch_sizes"])
    assert "- `aoti`: left out: machine \\| code" in markdown(report)


def test_without_accuracy_or_with_a_batch_that_failed_there_are_dashes() -> None:
    report = made_up(NAMES[:2], accuracy=False)
    report["rows"][1]["latency"]["64"] = {"error": "out of memory"}
    [_, row] = [line for line in terminal(report["rows"], [64]).splitlines() if line.startswith("onnx")]
    assert row.split() == ["onnx", "–", "–"]


def test_a_column_that_nothing_is_known_of_is_left_out() -> None:
    report = made_up(NAMES[:2])
    rows = [{**row, "memory_bytes": None} for row in report["rows"]]
    head = terminal(rows, [64]).splitlines()[0].split()
    assert head == ["artifact", "accuracy", "change", "size", "parameters", "FLOPs"]


def test_a_sparse_net_says_how_many_of_its_parameters_count() -> None:
    [row] = made_up(["pytorch"])["rows"]
    assert "16.4 k of 164 k" in terminal([{**row, "nonzero_parameters": 16_430}], [])


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.01234, "0.0123"), (0.1234, "0.123"), (1.234, "1.23"), (12.34, "12.3"), (123.4, "123"), (1234.5, "1,234")],
)
def test_three_digits_that_count(value: float, text: str) -> None:
    assert digits(value) == text


def test_units() -> None:
    assert [count(n) for n in (999, 1234, 164_298, 1_360_000)] == ["999", "1.23 k", "164 k", "1.36 M"]
    assert [binary(n) for n in (10, 1536, 2**20, 27 * 2**20)] == ["10 B", "1.5 KiB", "1 MiB", "27 MiB"]
    assert count(None) == binary(None) == "–"


def test_long_names_lose_their_middle() -> None:
    name = "prune_structured-0.5/quantize_static-abcdefgh/onnx-half"
    short = shortened(name)
    assert len(short) == NAME_WIDTH
    assert name.startswith(short.partition("…")[0])
    assert name.endswith(short.partition("…")[2])
    assert shortened("onnx") == "onnx"
