"""A tree of layers as a person reads it: repeated blocks folded, as deep and as wide as there is room for."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from rich.table import Table
from rich.text import Text

from dlrun.benching.table import binary, count
from dlrun.layers import Cost, Layer

ROOM = 60  # lines that a tree may have whose depth nobody said
NARROWEST = 24  # columns that the names keep before other columns go
LONGEST_KIND = 28


@dataclass(frozen=True)
class Row:
    branch: str  # the lines that lead to it
    name: str
    kind: str
    shape: list[int]
    cost: Cost
    inside: bool = False  # whether its numbers are part of a row's above


def readable_depth(root: Layer) -> int:
    """The levels of layers within layers that fit into ROOM lines, at least one."""
    return next((depth for depth in range(levels(root), 1, -1) if len(rows(root, depth)) <= ROOM), 1)


def levels(layer: Layer) -> int:
    """Of layers within layers; none in a model that is one layer."""
    return 1 + max(map(levels, layer.children)) if layer.children else 0


def rows(root: Layer, depth: int) -> list[Row]:
    """A line for the whole, and one for each layer down to `depth` levels inside it."""
    return list(_lines(root, depth))


def _lines(root: Layer, depth: int) -> Iterator[Row]:
    yield Row("", root.kind, "", root.output_shape, root.total)
    yield from _inside(root, "", depth)


def _inside(layer: Layer, branch: str, depth: int) -> Iterator[Row]:
    """What is in `layer`. The work that it does itself, beside what it has others do, is a line of its own."""
    if depth == 0 or not layer.children:
        return
    lines = list(_groups(layer.children))
    if layer.own != Cost():
        yield Row(branch + ("├─ " if lines else "└─ "), "(itself)", "", [], layer.own, True)
    for place, (first, repeats) in enumerate(lines):
        corner, below = ("└─ ", "   ") if place == len(lines) - 1 else ("├─ ", "│  ")
        total = sum((one.total for one in repeats), start=Cost())
        if repeats:
            number = re.search(r"[0-9]+$", repeats[-1].name)
            last = number[0] if number else repeats[-1].name
            name = repeats[0].name if len(repeats) == 1 else f"{repeats[0].name} … {last}"
            yield Row(branch + corner, name, f"{len(repeats)} more {first.kind}", first.output_shape, total, True)
        else:
            yield Row(branch + corner, first.name, first.kind, first.output_shape, first.total, True)
            yield from _inside(first, branch + below, depth - 1)


def _groups(layers: list[Layer]) -> Iterator[tuple[Layer, list[Layer]]]:
    """One by one, with nothing; but of blocks that are the same as the one before them, that one with all of them."""
    before: Layer | None = None
    repeats: list[Layer] = []
    for layer in layers:
        if before is not None and layer.children and _same(before, layer):
            repeats.append(layer)
            continue
        if before is not None and repeats:
            yield before, repeats
        yield layer, []
        before, repeats = layer, []
    if before is not None and repeats:
        yield before, repeats


def _same(one: Layer, other: Layer) -> bool:
    """The same in all but their names."""
    if (one.kind, one.output_shape, one.total) != (other.kind, other.output_shape, other.total):
        return False
    return len(one.children) == len(other.children) and all(
        a.name == b.name and _same(a, b) for a, b in zip(one.children, other.children, strict=True)
    )


Column = tuple[str, Callable[[Row], str]]


def table(lines: list[Row], width: int | None) -> Table:
    """At most `width` columns, whose least important go first; None is as wide as it gets."""
    whole = lines[0].cost
    chosen: list[Column] = [
        ("kind", lambda row: row.kind),
        ("output of one sample", lambda row: "×".join(map(str, row.shape)) or ("–" if row.kind else "")),
        ("parameters", lambda row: f"{row.cost.parameters:,}" if row.cost.parameters else "–"),
        ("%", lambda row: _share(row.cost.parameters, whole.parameters)),
        ("weights", lambda row: binary(row.cost.parameter_bytes or None)),
        ("FLOPs", lambda row: count(row.cost.flops or None)),
        ("% ", lambda row: _share(row.cost.flops, whole.flops)),
        ("activations", lambda row: binary(row.cost.activation_bytes or None)),
    ]
    names = max(len(row.branch + row.name) for row in lines)
    for unimportant in ("weights", "%", "% ", "activations", "kind", "output of one sample", "FLOPs"):
        needed = sum(2 + _width(column, lines) for column in chosen)
        if width is None or min(names, NARROWEST) + needed <= width:
            break
        chosen = [column for column in chosen if column[0] != unimportant]
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    longest = None if width is None else max(width - needed, NARROWEST // 2)  # only names get shorter
    made.add_column("layer", no_wrap=True, overflow="ellipsis", max_width=longest)
    for column in chosen:
        side: Literal["left", "right"] = "left" if column[0] in ("kind", "output of one sample") else "right"
        made.add_column(column[0].strip(), no_wrap=True, overflow="ellipsis", justify=side, width=_width(column, lines))
    for row in lines:
        name = Text.assemble((row.branch, "dim"), (row.name, "" if row.inside else "bold"))
        made.add_row(name, *(Text(cell(row)) for _, cell in chosen))
    return made


def _width(column: Column, lines: list[Row]) -> int:
    """A class name can be of any length."""
    return min(LONGEST_KIND, max(len(column[0].strip()), *(len(column[1](row)) for row in lines)))


def _share(part: int, whole: int) -> str:
    """Per cent, with a place after the point where there is no other digit."""
    if not part:
        return "–"
    share = 100 * part / whole
    return f"{share:.0f}" if share >= 9.95 else f"{share:.1f}" if share >= 0.05 else "<0.1"
