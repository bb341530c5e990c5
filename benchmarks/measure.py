"""How everything here is measured: the cases in turn (A B A B …), medians, ratios to a reference of the same round.

A number of seconds means little on a machine that others use too; a ratio of two that were taken one right after the
other means a lot more, and the median of many such ratios can be believed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
from collections.abc import Callable, Mapping
from typing import Any

Seconds = dict[str, list[float]]  # case → one figure per round


def arguments(description: str | None, rounds: int = 9) -> argparse.ArgumentParser:
    """The options that every benchmark has."""
    words = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--rounds", type=int, default=rounds, help="how often each case is measured")
    words.add_argument("--threads", type=int, default=1, help="of torch")
    return words


def interleaved(cases: Mapping[str, Callable[[], float]], rounds: int, warmup: int = 1) -> Seconds:
    """Call each case once per round, in turn; a case returns what it measured itself (seconds, say).

    The direction changes from round to round, so that what goes before does not always favour the same.
    """
    for _ in range(warmup):
        for case in cases.values():
            case()
    taken: Seconds = {name: [] for name in cases}
    for number in range(rounds):
        names = list(cases) if number % 2 == 0 else list(reversed(cases))
        for name in names:
            taken[name].append(cases[name]())
    return taken


def ratio(taken: Seconds, case: str, reference: str) -> float:
    """Median over the rounds of `case` / `reference`."""
    return statistics.median(a / b for a, b in zip(taken[case], taken[reference], strict=True))


def report(benchmark: str, header: tuple[str, ...], rows: list[tuple[Any, ...]], **facts: Any) -> None:
    """A table, and the same as one line of JSON with the machine it was taken on."""
    lines = [header, *([shown(value) for value in row] for row in rows)]
    widths = [max(len(str(row[i])) for row in lines) for i in range(len(header))]
    for row in lines:
        first, *rest = (str(value) for value in row)
        print("  ".join([first.ljust(widths[0]), *(v.rjust(w) for v, w in zip(rest, widths[1:], strict=True))]))
    table = [dict(zip(header, row, strict=True)) for row in rows]
    print(json.dumps({"benchmark": benchmark, **facts, "rows": table, "machine": machine()}), flush=True)


def machine() -> dict[str, Any]:
    """What a figure was taken on."""
    import torch

    cuda = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "gpu": cuda,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }


def _cpu() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            return next(line.partition(":")[2].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def shown(value: Any) -> str:
    """A value as tables have it."""
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}" if abs(value) < 0.1 else f"{value:.2f}"
    return "–" if value is None else str(value)
