"""How values look in a cell of a table, and how wide that is on a terminal."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from dlrun.sweep.answers.configurations import Sample
from dlrun.wording import NOTHING


def value_text(value: Any) -> str:
    """A config's value as the command line has it, on one line."""
    if isinstance(value, float):
        return f"{value:.6g}"
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, str):
        return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in value)
    if isinstance(value, list | tuple):
        return f"[{','.join(map(value_text, value))}]"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{value_text(v)}" for key, v in value.items()) + "}"
    return str(value)


def value_at(values: Mapping[str, Any], key: str) -> str:
    return value_text(values[key]) if key in values else NOTHING


def values_text(values: Mapping[str, Any], joined_by: str = " ") -> str:
    """`model=cnn optimizer.lr=0.001`."""
    return joined_by.join(f"{key}={value_text(value)}" for key, value in values.items()) or "the only configuration"


def short_value(values: Mapping[str, Any], key: str) -> str:
    """`value_at`, with four digits of a number."""
    value = values.get(key)
    return f"{value:.4g}" if isinstance(value, float) else value_at(values, key)


def short_text(values: Mapping[str, Any]) -> str:
    """`model=cnn lr=0.001`; whole keys where their last words are the same."""
    last = [key.rpartition(".")[2] for key in values]
    names = last if len(set(last)) == len(last) else list(values)
    said = (f"{name}={short_value(values, key)}" for name, key in zip(names, values, strict=True))
    return " ".join(said) or "the only configuration"


def number(value: float | None, places: int = 4) -> str:
    """Four places, or four digits of what is smaller or larger than those can say."""
    if value is None:
        return NOTHING
    if value == 0 or 0.01 <= abs(value) < 1e6:
        return f"{value:.{places}f}"
    return f"{value:.4g}"


def mean_sd(found: Sample | None, per_cent: bool = False) -> str:
    """`0.9931 ± 0.0023`; whole numbers, such as of parameters, from one seed stay whole."""
    if found is None:
        return NOTHING
    scale, places, unit = (100, 2, " %") if per_cent else (1, 4, "")
    if found.sd is None:
        whole = abs(found.mean) >= 1000 and found.mean.is_integer()
        return f"{found.mean:.0f}" if whole else f"{number(scale * found.mean, places)}{unit}"
    return f"{number(scale * found.mean, places)} ± {number(scale * found.sd, places)}{unit}"


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]], numbers_from: int) -> list[str]:
    bar = ["---" if i < numbers_from else "---:" for i in range(len(head))]
    return [
        f"| {' | '.join(line)} |"
        for line in ([escaped(c) for c in head], bar, *([escaped(c) for c in r] for r in rows))
    ]


def escaped(text: str) -> str:
    """As text in Markdown; what means nothing there, such as the _ of hidden_size, stays as it is."""
    text = re.sub(r"[\\`*<>|$~]", r"\\\g<0>", text).replace("](", "]\\(")
    return re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\_", text).replace("\n", " ")
