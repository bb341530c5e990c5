"""The config: first what differs from the defaults, then all of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from dlrun import differences
from dlrun.errors import shortened
from dlrun.report.page import fragment
from dlrun.report.record import Record
from dlrun.wording import value_text

LONGEST = 3000  # characters of a value
NOWHERE = {"train", "resume"}  # words that say nothing of the config


def body(record: Record) -> Markup | None:
    values = differences.flat(record.config)
    changed = record.summary.get("changed")
    known = isinstance(changed, Mapping)
    usual: Mapping[str, Any] = changed if isinstance(changed, Mapping) else {}
    choices = differences.own({str(key): value for key, value in record.part("choices").items()})
    if not values and not choices:
        return None
    own = {group: differences.name(choice) for group, choice in choices.items() if choice is not None}
    told = {key: _written(value) for key, value in values.items()}
    shown = own | told
    return fragment(
        "run/setup.html.j2",
        known=known,
        differing=[(key, shown.get(key, "–"), _written(default)) for key, default in usual.items()],
        words=[word for word in map(str, _list(record.summary.get("command"))[1:]) if word not in NOWHERE],
        resumed=[_list(part.get("command")) for part in _list(record.summary.get("resumed")) if isinstance(part, dict)],
        groups=_groups(own, told, usual),
        count=len(told),
    )


def _groups(own: Mapping[str, str], told: Mapping[str, str], usual: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The config by its groups, what stands in none first: {name, choice, differs, rows: [(key, value, default)]}."""
    found: dict[str, list[tuple[str, str, str | None]]] = {"": []}
    for key, value in told.items():
        group, dot, rest = key.partition(".")
        row = (rest if dot else group, value, _written(usual[key]) if key in usual else None)
        found.setdefault(group if dot else "", []).append(row)
    for group in own:
        found.setdefault(group, [])
    return [
        {"name": group, "choice": own.get(group), "differs": group in usual, "rows": rows}
        for group, rows in found.items()
        if rows or group
    ]


def _written(value: Any) -> str:
    return shortened(value_text(value), LONGEST)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
