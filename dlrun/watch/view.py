"""A run as it fits on a terminal: what it is, how far it has come, its curves, and the end of its log."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from textwrap import wrap

from rich.text import Text

from dlrun.watch.curves import SMALLEST, Chart, charts, drawn
from dlrun.watch.facts import Fact, facts, progress, title
from dlrun.watch.observation import Observation
from dlrun.watch.pace import Pace
from dlrun.watch.status import Status
from dlrun.wording import fitted, width

CHART = (37, 9)  # columns and lines that a chart should have; another one beside or below it needs as much
GAP = 2  # columns between two charts
BESIDE = 110  # columns from which facts stand in two columns
MORE = 3  # lines that what is said of the status may take: an error, most likely
LOG = ((22, 3), (34, 6), (50, 10))  # lines of the terminal, from where on so many of the log are shown
STYLES = {"running": "#009e73", "finished": "#009e73", "stopped early": "#009e73", "pruned": "#e69f00"}
STYLES |= {"failed": "#d55e00", "killed": "#d55e00", "silent": "#e69f00", "preempted": "#e69f00", "unknown": "#e69f00"}


def view(seen: Observation, status: Status, pace: Pace, columns: int, lines: int, coloured: bool = True) -> list[Text]:
    """At most `lines` lines, none wider than `columns`. What there is no room for is left out, the log first."""
    told = facts(seen, status, pace)
    head = [*_head(seen, status, columns), *_bar(pace, columns), *_listed(told[1:], columns)][: max(lines, 1)]
    tail = _log(seen, columns, lines)
    room = lines - len(head) - len(tail) - (2 if tail else 1)
    if room < CHART[1]:
        tail, room = [], lines - len(head) - 1
    curves = _curves(seen, columns, room, coloured)
    blocks = [block for block in (head, curves, tail) if block]
    made = [line for block in blocks for line in (Text(), *block)][1:]
    return made[:lines]


def plain(seen: Observation, status: Status, pace: Pace) -> str:
    """For a file or a pipe: a line for each thing that is known."""
    said = [("run", str(seen.path)), ("what", title(seen)), ("status", _status(status)), ("", status.advice)]
    told = [fact for fact in (*said, *facts(seen, status, pace)) if fact[1]]
    return "\n".join(f"{name:<12}{_printable(text)}" for name, text in told)


def _status(status: Status) -> str:
    return f"{status.word}: {status.more}" if status.more else status.word


def _head(seen: Observation, status: Status, columns: int) -> Iterator[Text]:
    what = title(seen)
    path = fitted(str(seen.path), max(columns - width(what) - 2, columns // 2))
    yield _line([(path, "bold"), ("  " + what if what else "", "")], columns)
    told = wrap(f"● {status.word}  {_printable(status.more)}", columns, max_lines=MORE, placeholder=" …")
    for number, text in enumerate(told):
        word = len(status.word) + 2 if number == 0 else 0
        yield _line([(text[:word], f"bold {STYLES[status.word]}"), (text[word:], "")], columns)
    if status.advice:
        yield _line([(status.advice, "")], columns)


def _bar(pace: Pace, columns: int) -> Iterator[Text]:
    words = progress(pace)
    room = columns - width(words) - 2
    if pace.share is None or room < 8:
        yield _line([(words, "")], columns)
        return
    full = round(room * pace.share)
    yield _line([("━" * full, STYLES["running"]), ("─" * (room - full), "dim"), ("  " + words, "")], columns)


def _listed(told: Sequence[Fact], columns: int) -> list[Text]:
    """A line for each, or for two of them."""
    abreast = 2 if columns >= BESIDE else 1
    room = columns // abreast
    lines = []
    rows = -(-len(told) // abreast)
    for row in range(rows):
        line = Text(no_wrap=True)
        for name, text in told[row::rows]:
            cell = Text.assemble((f"{name:<11}", "dim"), _printable(text), no_wrap=True)
            cell.truncate(room - (abreast - 1), overflow="ellipsis", pad=False)
            cell.pad_right(max(room - cell.cell_len, 0))
            line.append_text(cell)
        line.rstrip()
        lines.append(line)
    return lines


def _curves(seen: Observation, columns: int, room: int, coloured: bool) -> list[Text]:
    """As many charts as there is room for, beside and below each other."""
    if room < SMALLEST[1] + 1:
        return []
    if not len(seen.history):
        return [_line([("no epoch has ended yet: there are no curves", "dim")], columns)]
    chosen = charts(seen.history)
    abreast = max(1, min((columns + GAP) // (CHART[0] + GAP), len(chosen)))
    if len(chosen) > abreast and room < 2 * CHART[1] + 1:
        chosen = chosen[:abreast]
    rows = max(1, min(-(-len(chosen) // abreast), (room + 1) // (CHART[1] + 1)))
    chosen = chosen[: rows * abreast]
    abreast = -(-len(chosen) // rows)
    height = (room - (rows - 1)) // rows
    made: list[Text] = []
    for row in range(rows):
        made += [Text()] if made else []
        made += _beside(chosen[row * abreast : (row + 1) * abreast], seen, columns, abreast, height, coloured)
    return made


def _beside(
    chosen: Sequence[Chart], seen: Observation, columns: int, abreast: int, height: int, coloured: bool
) -> list[Text]:
    wide = (columns - GAP * (abreast - 1)) // abreast
    blocks = [drawn(chart, seen.history.epochs, wide, height, coloured) for chart in chosen]
    return [Text(" " * GAP).join(parts) for parts in zip(*blocks, strict=True)]


def _log(seen: Observation, columns: int, lines: int) -> list[Text]:
    number = max((count for least, count in LOG if lines >= least), default=0)
    return [_line([(line, "dim")], columns) for line in seen.log[-number:]] if number else []


def _line(parts: Sequence[tuple[str, str]], columns: int) -> Text:
    line = Text.assemble(*parts, no_wrap=True)
    line.truncate(columns, overflow="ellipsis")
    return line


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text)
