"""How values look in a cell of a table, and how wide that is on a terminal."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from dlrun.sweep.answers.configurations import Sample
from dlrun.wording import NOTHING, number_text, value_text


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


def mean_sd(found: Sample | None, per_cent: bool = False) -> str:
    """`0.9931 ± 0.0023`; whole numbers, such as of parameters, from one seed stay whole."""
    if found is None:
        return NOTHING
    scale, places, unit = (100, 2, " %") if per_cent else (1, 4, "")
    if found.sd is None:
        whole = abs(found.mean) >= 1000 and found.mean.is_integer()
        return f"{found.mean:.0f}" if whole else f"{number_text(scale * found.mean, places)}{unit}"
    return f"{number_text(scale * found.mean, places)} ± {number_text(scale * found.sd, places)}{unit}"


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
