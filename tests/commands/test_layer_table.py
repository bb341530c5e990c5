"""The tree of layers as text: what it says, folds and fits into."""

from __future__ import annotations

import io

import torch
from rich.console import Console
from torch import nn

from dlrun.commands.layer_table import ROOM, levels, readable_depth, rows, table
from dlrun.layers import Layer, count


def block(width: int) -> nn.Module:
    return nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Sequential(nn.Linear(width, width, bias=False)))


def tower(blocks: int, width: int = 6) -> Layer:
    net = nn.Sequential(nn.Linear(3, width), nn.Sequential(*(block(width) for _ in range(blocks))), nn.Linear(width, 2))
    return count(net, torch.ones(1, 3))


def printed(root: Layer, depth: int, width: int | None, columns: int = 300) -> list[str]:
    console = Console(file=io.StringIO(), width=width or columns)
    console.print(table(rows(root, depth), width))
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined]


def test_blocks_that_repeat_are_one_line_and_the_lines_still_sum_to_the_whole() -> None:
    root = tower(12)
    lines = rows(root, levels(root))
    assert [(row.name, row.kind) for row in lines] == [
        *[("Sequential", ""), ("0", "Linear"), ("1", "Sequential"), ("0", "Sequential"), ("0", "Linear")],
        *[("1", "ReLU"), ("2", "Sequential"), ("0", "Linear"), ("1 … 11", "11 more Sequential"), ("2", "Linear")],
    ]
    leaves = [row for row in lines if row.kind not in ("", "Sequential")]
    assert sum(row.cost.parameters for row in leaves) == root.total.parameters == 12 * (42 + 36) + 24 + 14
    assert sum(row.cost.flops for row in leaves) == root.total.flops == 2 * (18 + 12 * 72 + 12)
    assert sum(row.cost.activation_bytes for row in leaves) == root.total.activation_bytes


def test_blocks_that_differ_are_not_folded() -> None:
    net = nn.Sequential(
        block(4), block(4), block(4).to(torch.float64).to(torch.float32), nn.Sequential(nn.Linear(4, 4))
    )
    net[2][0].weight.requires_grad_(False)
    names = [(row.name, row.kind) for row in rows(count(net, torch.ones(1, 4)), 1)]
    assert names[1:] == [("0", "Sequential"), ("1", "1 more Sequential"), ("2", "Sequential"), ("3", "Sequential")]


def test_depth_is_what_fits_on_a_screen_if_nobody_says_it() -> None:
    net = nn.Sequential(*(nn.Sequential(*(nn.Linear(5, 5, bias=bool(i % 2)) for i in range(j + 1))) for j in range(20)))
    root = count(net, torch.ones(1, 5))
    assert levels(root) == 2
    assert len(rows(root, 2)) == 1 + 20 + 210
    assert readable_depth(root) == 1
    assert len(rows(root, 1)) == 21 <= ROOM
    assert readable_depth(tower(3)) == levels(tower(3)) == 4


def test_the_table_is_as_wide_as_the_terminal_and_no_number_is_cut() -> None:
    root = tower(12)
    parameters = {f"{layer.total.parameters:,}" for layer in root.children}
    for width in (40, 60, 80, 100, 200):
        lines = printed(root, 4, width)
        assert max(map(len, lines)) <= width
        assert all(number in " ".join(lines) for number in parameters)
    assert "output of one sample" not in printed(root, 4, 40)[0]
    wide = printed(root, 4, None)
    head = "layer kind output of one sample parameters % weights FLOPs % activations"
    assert " ".join(wide[0].split()) == head
    assert wide[-1].split() == ["└─", "2", "Linear", "2", "14", "1.4", "56", "B", "24", "1.3", "8", "B"]
