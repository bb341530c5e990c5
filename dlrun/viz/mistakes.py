"""The worst mistakes: pictures as pictures, texts with what spoke for the answer marked, rows of a table as rows."""

from __future__ import annotations

import base64
import io
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dlrun.viz.pictures import LeftOut
from dlrun.viz.style import COLOURS, FAINT, label, named, new

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Entry = Mapping[str, Any]

ACROSS = 4  # pictures in a row
TEXTS, LINES, COLUMNS = 10, 4, 108  # at most: texts, lines of each, characters of a line
FEATURES = 10  # of a row
FOR, AGAINST = COLOURS[1], COLOURS[4]
WIDTH = 0.6021  # of a character of DejaVu Sans Mono, in its own size
POINTS = 8.3  # 15 pixels, of which a character is 9 wide: of other sizes hinting makes it up to 8 % narrower or wider


def figure(found: Mapping[str, Any]) -> Figure:
    """Of mistakes.json, the worst first. Raises LeftOut where there is none."""
    entries = found["mistakes"]
    if not entries:
        raise LeftOut("there is no mistake")
    draw = {"image": _pictures, "text": _texts}.get(entries[0]["kind"], _rows)
    drawn = draw(entries)
    wrong = f"{found['wrong']:,} of {found['samples']:,} samples are wrong ({found['split']}, epoch {found['epoch']})"
    drawn.suptitle(f"the worst mistakes, largest loss first: {wrong}", fontsize="medium")
    return drawn


def _said(entry: Entry, longest: int) -> tuple[str, str]:
    """Truth, and the wrong answer with its probability."""
    probability = entry["probability"]
    sure = "" if probability is None else f" ({100 * probability:.0f} %)"
    return named(entry["truth"], longest), f"{named(entry['guess'], longest)}{sure}"


def _pictures(entries: Sequence[Entry]) -> Figure:
    from matplotlib.image import imread

    across = min(ACROSS, len(entries))
    rows = -(-len(entries) // across)
    drawn = new(max(2.6 * across, 6.0), 2.9 * rows + 0.5)
    for axis in (axes := drawn.subplots(rows, across, squeeze=False)).flat:
        axis.set_axis_off()
    for axis, entry in zip(axes.flat, entries, strict=False):
        truth, guess = _said(entry, 24)
        axis.set_title(f"truth: {truth}\nanswer: {guess}", fontsize=8)
        data = entry.get("picture")
        if data is None:
            axis.text(0.5, 0.5, f"sample {entry['index']:,}\n(no picture)", ha="center", va="center", color=FAINT)
            continue
        pixels = imread(io.BytesIO(base64.b64decode(data.partition(",")[2])), format="png")
        grey = {"cmap": "gray", "vmin": 0, "vmax": 1} if pixels.ndim == 2 else {}
        axis.imshow(pixels, interpolation="nearest", **grey)
    return drawn


def _texts(entries: Sequence[Entry]) -> Figure:
    """Lines of a fixed width, a colour behind each word: for the wrong answer, or against it."""
    shown = entries[:TEXTS]
    blocks = [list(_lines(entry)) for entry in shown]
    height = sum(len(lines) + 2.1 for lines in blocks) + 1.5  # lines
    points, spacing = POINTS, 1.45
    width = (COLUMNS + 2) * WIDTH * points / 72
    drawn = new(width + 0.09, height * points * spacing / 72 + 0.5)
    axis = drawn.subplots()
    axis.set(xlim=(0, COLUMNS + 2), ylim=(height, 0))
    axis.set_axis_off()
    _legend(axis, len(entries) - len(shown))
    y = 2.0
    for entry, lines in zip(shown, blocks, strict=True):
        truth, guess = _said(entry, 34)
        axis.text(0, y, f"truth: {truth}   answer: {guess}", fontsize=points, va="center", weight="bold")
        for words in lines:
            y += 1
            for column, word, weight in words:
                _word(axis, column, y, word, weight, points)
        y += 2.1
    return drawn


def _legend(axis: Axes, left: int) -> None:
    for x, colour, words in ((0, FOR, "speaks for the wrong answer"), (32, AGAINST, "speaks against it")):
        axis.axhspan(0.15, 0.85, x / (COLUMNS + 2), (x + 2) / (COLUMNS + 2), color=colour, alpha=0.85, linewidth=0)
        axis.text(x + 2.6, 0.5, words, fontsize=7.5, va="center")
    rest = f"; {left} more in mistakes.json" if left > 0 else ""
    axis.text(COLUMNS + 2, 0.5, f"gradient × input of the word vectors{rest}", fontsize=7.5, va="center", ha="right")


def _word(axis: Axes, column: int, y: float, word: str, weight: float, points: float) -> None:
    from matplotlib import rcParams
    from matplotlib.patches import Rectangle

    if weight:
        colour = FOR if weight > 0 else AGAINST
        box = Rectangle(
            (column, y - 0.46), _cells(word), 0.92, color=colour, alpha=min(abs(weight), 1) * 0.85, linewidth=0
        )
        axis.add_patch(box)
    families = ["DejaVu Sans Mono", *rcParams["font.family"]]
    axis.text(column, y, word, fontsize=points, va="center", family=families)


def _lines(entry: Entry) -> Iterator[list[tuple[int, str, float]]]:
    """The text in at most LINES lines of (column, word, weight); a word that is too long is broken."""
    text, marks = str(entry["text"]), {(start, end): weight for start, end, weight in entry.get("marks") or []}
    line: list[tuple[int, str, float]] = []
    column, lines = 0, 0
    for start, end in _words(text):
        word, weight = text[start:end], float(marks.get((start, end), 0.0))
        while word:
            if column and column + _cells(word) > COLUMNS:
                if lines == LINES - 1:
                    yield [*line, (column, "…", 0.0)]
                    return
                yield line
                line, column, lines = [], 0, lines + 1
            piece = _beginning(word)
            line.append((column, piece, weight))
            column += _cells(piece) + 1
            word = word[len(piece) :]
    yield line


def _words(text: str) -> Iterator[tuple[int, int]]:
    start = 0
    for word in text.replace("\n", " ").replace("\t", " ").split(" "):
        if word:
            yield start, start + len(word)
        start += len(word) + 1


def _beginning(word: str) -> str:
    """As much of a word as a line has room for."""
    while _cells(word) > COLUMNS:
        word = word[: max(1, len(word) * COLUMNS // _cells(word) - 1)]
    return word


def _cells(word: str) -> int:
    """Columns that a word takes: Chinese, Japanese and Korean letters are two wide."""
    wide = sum(unicodedata.east_asian_width(letter) in "WF" for letter in word)
    return len(word) + wide - sum(unicodedata.combining(letter) > 0 for letter in word)


def _rows(entries: Sequence[Entry]) -> Figure:
    """A table: truth, answer, and the row's first values."""
    features = list(entries[0]["values"])[:FEATURES]
    head = ["truth", "answer", *(label(name, 14) for name in features)]
    cells = [
        [*_said(entry, 20), *(f"{entry['values'].get(name, float('nan')):.4g}" for name in features)]
        for entry in entries
    ]
    widths = [max(len(row[i]) for row in [head, *cells]) + 2 for i in range(len(head))]
    drawn = new(max(6.0, sum(widths) * 0.075 + 0.4), 0.27 * (len(cells) + 1) + 0.9)
    axis = drawn.subplots()
    axis.set_axis_off()
    table = axis.table(
        cells, colLabels=head, loc="center", cellLoc="right", colWidths=[width / sum(widths) for width in widths]
    )
    table.auto_set_font_size(False)
    table.set_fontsize(8)
    for (row, _), cell in table.get_celld().items():
        cell.set(edgecolor="#dddddd", linewidth=0.6, height=1 / (len(cells) + 1))
        cell.get_text().set_fontweight("bold" if row == 0 else "normal")
    left = len(entries[0]["values"]) - len(features)
    if left > 0:
        axis.set_title(f"the first {len(features)} of {len(features) + left} features", fontsize="small")
    return drawn
