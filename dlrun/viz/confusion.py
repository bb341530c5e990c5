"""Who is taken for whom: the confusion matrix, with numbers where there is room, and by name where there isn't."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dlrun.viz.pictures import LeftOut
from dlrun.viz.style import COLOUR_MAP, COLOURS, label, named, new, plain, size, told_apart

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NUMBERED = 24  # classes whose cells have room for a number
NAMED = 120  # classes whose names fit along an axis
BLOCKS = 240  # cells along an axis that can be told apart
PAIRS = 20  # that are confused most, by name
NAME = 18  # characters of a class, along an axis


def figure(found: Mapping[str, Any]) -> Figure:
    """Of confusion.json. Colours are shares of a class's samples, on a square root's scale: few must be seen, too.

    Of more than 24 classes, a second axis names the pairs that are confused most; of more than 240, a cell is the
    largest share in a block of several.
    """
    names, cells = found["class_names"], found["cells"]
    if not cells:
        raise LeftOut("there are no samples")
    count, numbered = len(names), len(names) <= NUMBERED
    matrix = _matrix(cells, count)
    drawn = new(*((0.42 * count + 3.2, 0.36 * count + 2.6) if numbered else (15.5, 9.4)))
    if numbered:
        axis = drawn.subplots()
    else:
        axis, beside = drawn.subplots(1, 2, width_ratios=(2.1, 1))
        _name_pairs(beside, cells, names)
    _draw(axis, matrix, names)
    if numbered:
        _write_numbers(axis, matrix)
    right = sum(n for truth, guess, n in cells if truth == guess)
    total = sum(n for _, _, n in cells)
    of = f"{found['split']}, {total:,} samples, epoch {found['epoch']}: {right / total:.2%} right".replace("%", " %")
    drawn.suptitle(f"confusion on {of}", fontsize="medium")
    return drawn


def confused(cells: Sequence[tuple[int, int, int]], most: int) -> list[tuple[int, int, int]]:
    """(truth, guess, samples) of what is taken for something else, the most frequent first."""
    wrong = [(truth, guess, n) for truth, guess, n in cells if truth != guess]
    return sorted(wrong, key=lambda cell: (-cell[2], cell[0], cell[1]))[:most]


def _matrix(cells: Sequence[tuple[int, int, int]], count: int) -> np.ndarray:
    """Samples by (truth, guess) as floats."""
    import numpy as np

    matrix = np.zeros((count, count))
    truths, guesses, numbers = np.array(cells).T
    matrix[truths, guesses] = numbers
    return matrix


def _draw(axis: Axes, matrix: np.ndarray, names: Sequence[str]) -> None:
    import numpy as np
    from matplotlib import colormaps
    from matplotlib.colors import PowerNorm

    count = len(names)
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    block = -(-count // BLOCKS)
    if block > 1:
        padded = np.pad(shares, (0, -count % block))
        shares = padded.reshape(len(padded) // block, block, -1, block).max(axis=(1, 3))
    colours = colormaps[COLOUR_MAP].with_extremes(bad="#f6f6f6")
    low, high = -0.5, len(shares) * block - 0.5
    shown = axis.imshow(
        np.ma.masked_equal(shares, 0), cmap=colours, norm=PowerNorm(0.5, 0, 1), interpolation="nearest",
        extent=(low, high, high, low), aspect="auto" if count <= NUMBERED else "equal",
    )  # fmt: skip
    axis.figure.colorbar(shown, ax=axis, label="share of the class's samples", fraction=0.035, pad=0.02)
    axis.set_xlabel("answer" if count <= NAMED else f"answer (number of the class, of {count:,})")
    axis.set_ylabel("truth" if count <= NAMED else f"truth (number of the class, of {count:,})")
    if count <= NAMED:
        short = told_apart([label(name, NAME) for name in names])
        points = size(count, 9)
        straight = count <= NUMBERED and max(map(len, short)) <= 3
        axis.set_xticks(range(count), short, rotation=0 if straight else 90, fontsize=points)
        axis.set_yticks(range(count), short, fontsize=points)
    if block > 1:
        axis.set_title(f"a point is the largest share among {block} × {block} classes", fontsize="small")


def _write_numbers(axis: Axes, matrix: np.ndarray) -> None:
    import numpy as np

    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    longest = len(f"{int(matrix.max()):,}")
    points = max(5.0, min(9.0, 33 / max(longest, 3)))
    for truth, guess in zip(*matrix.nonzero(), strict=True):
        axis.text(
            guess, truth, f"{int(matrix[truth, guess]):,}", ha="center", va="center", fontsize=points,
            color="black" if shares[truth, guess] > 0.3 else "white",
        )  # fmt: skip


def _name_pairs(axis: Axes, cells: Sequence[tuple[int, int, int]], names: Sequence[str]) -> None:
    pairs = confused(cells, PAIRS)
    axis.set_title("confused most" if pairs else "nothing is confused", fontsize="medium")
    if not pairs:
        axis.set_axis_off()
        return
    rows = range(len(pairs))
    axis.barh(rows, [n for _, _, n in pairs], color=COLOURS[0], height=0.35)
    axis.set_yticks([])
    for row, (truth, guess, n) in zip(rows, pairs, strict=True):
        words = f"{named(names[truth], 26)}  taken for  {named(names[guess], 26)}: {n:,}"
        axis.text(0, row - 0.28, words, va="bottom", ha="left", fontsize=8)
    axis.set_ylim(PAIRS - 0.4, -0.9)
    axis.set_xlabel("samples")
    axis.locator_params(axis="x", integer=True, nbins=5)
    plain(axis, "x")
    axis.spines["left"].set_visible(False)
