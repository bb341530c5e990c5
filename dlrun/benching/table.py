"""Rows of figures as a person reads them: short on the terminal, whole in Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]
NAME_WIDTH = 34
SIZES_ABREAST = 3  # batch sizes in one block of the terminal's table


def terminal(rows: Sequence[Row], batch_sizes: Sequence[int]) -> str:
    """At most 110 columns: what each artifact is, then how fast, then what wasn't measured and why."""
    measured = [row for row in rows if row["status"] == "measured"]
    facts = [("artifact", *FACTS), *((shortened(row["name"]), *_facts(row)) for row in measured)]
    known = [column for column in zip(*facts, strict=True) if any(cell != "–" for cell in column[1:])]
    blocks = [aligned(list(zip(*known, strict=True)))] if measured else []
    for start in range(0, len(batch_sizes), SIZES_ABREAST):
        sizes = batch_sizes[start : start + SIZES_ABREAST]
        over = ["", *(cell for size in sizes for cell in (f"batch {size}", ""))]
        head = ["artifact", *(cell for _ in sizes for cell in ("p50/p99 ms", "samples/s"))]
        lines = [[shortened(row["name"]), *(cell for size in sizes for cell in _speed(row, size))] for row in measured]
        blocks.append(aligned([over, head, *lines]))
    if left_out := [row for row in rows if row["status"] != "measured"]:
        blocks.append("\n".join(f"{row['name']}: {row['status']}: {row['reason']}" for row in left_out))
    return "\n\n".join(blocks)


FACTS = ("accuracy", "change", "size", "parameters", "FLOPs", "memory")


def markdown(report: Mapping[str, Any]) -> str:
    """The whole report, one row per artifact."""
    rows, sizes = report["rows"], report["batch_sizes"]
    head = ["artifact", "runs in", *FACTS]
    for size in sizes:
        head += [f"batch {size}: p50/p99 ms", "samples/s"]
    lines = []
    for row in rows:
        if row["status"] == "measured":
            cells = [row["name"], row["runtime"], *_facts(row)]
            lines.append(cells + [cell for size in sizes for cell in _speed(row, size)])
    text = [f"# {_escaped(report['title'])}", "", *_grid([head, *lines], numbers_from=2), ""]
    if left_out := [row for row in rows if row["status"] != "measured"]:
        text += ["Without figures:", ""]
        text += [f"- `{row['name']}`: {row['status']}: {_escaped(row['reason'])}" for row in left_out] + [""]
    text += [f"- {_escaped(note)}" for note in report["notes"]]
    text += ["", f"Taken {report['time']} on {_escaped(machine_line(report['machine'], report['threads']))}.", ""]
    return "\n".join(text)


def machine_line(machine: Mapping[str, Any], threads: int) -> str:
    """The machine in a line."""
    cores = machine["physical_cores"] or machine["logical_cores"]
    parts = [f"{machine['cpu']}, {cores} cores, {threads} thread{'s' * (threads != 1)}"]
    wide = [flag for flag in machine["flags"] if flag.startswith(("avx", "amx", "sve", "i8mm"))]
    parts += [" ".join(wide)] if wide else []
    if machine["gpu"]:
        parts.append(machine["gpu"]["name"])
    versions = machine["versions"]
    parts += [f"{name} {versions[name]}" for name in ("torch", "onnxruntime") if name in versions]
    if machine["load_average"]:
        parts.append(f"load {machine['load_average'][0]} at the start")
    return "; ".join(parts)


def aligned(lines: Sequence[Sequence[str]]) -> str:
    """The first column to the left, numbers to the right."""
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True))]).rstrip()
        for line in lines
    )


def _grid(lines: Sequence[Sequence[str]], numbers_from: int) -> list[str]:
    """A table in Markdown."""
    bar = ["---" if i < numbers_from else "---:" for i in range(len(lines[0]))]
    escaped = [[_escaped(cell) for cell in line] for line in lines]
    return [f"| {' | '.join(line)} |" for line in (escaped[0], bar, *escaped[1:])]


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _facts(row: Row) -> list[str]:
    change = row["accuracy_change"]
    parameters = count(row["parameters"])
    if row["parameters"] and row["nonzero_parameters"] < 0.99 * row["parameters"]:
        parameters = f"{count(row['nonzero_parameters'])} of {parameters}"
    return [
        "–" if row["accuracy"] is None else f"{100 * row['accuracy']:.2f} %",
        "–" if change is None else f"{100 * change:+.2f}" if round(100 * change, 2) else "0",
        binary(row["bytes"]),
        parameters,
        count(row["flops_per_sample"]),
        binary(row["memory_bytes"]),
    ]


def _speed(row: Row, batch_size: int) -> list[str]:
    figures = row["latency"].get(str(batch_size))
    if figures is None or "error" in figures:
        return ["–", "–"]
    return [f"{digits(figures['p50_ms'])}/{digits(figures['p99_ms'])}", f"{figures['samples_per_second']:,.0f}"]


def digits(value: float) -> str:
    """Three digits that count: 0.0123, 1.23, 12.3, 1,235."""
    for limit, places in ((0.1, 4), (1, 3), (10, 2), (100, 1)):
        if abs(value) < limit:
            return f"{value:.{places}f}"
    return f"{value:,.0f}"


def count(value: int | None) -> str:
    """1.23 M."""
    return "–" if value is None else _scaled(value, 1000, ("", " k", " M", " G", " T"))


def binary(value: int | None) -> str:
    """1.23 MiB."""
    return "–" if value is None else _scaled(value, 1024, (" B", " KiB", " MiB", " GiB", " TiB"))


def _scaled(value: float, base: int, units: Sequence[str]) -> str:
    power = 0
    while abs(value) >= base and power + 1 < len(units):
        value, power = value / base, power + 1
    return f"{value:,.0f}{units[power]}" if not power or abs(value) >= 100 else f"{value:.3g}{units[power]}"


def shortened(name: str, width: int = NAME_WIDTH) -> str:
    """A long name loses its middle."""
    if len(name) <= width:
        return name
    left = (width - 1) // 2
    return f"{name[:left]}…{name[left + 1 - width :]}"
