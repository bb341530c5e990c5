"""The worst mistakes of the test: pictures, texts with what spoke for the guess, rows of a table."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from dlrun.report.page import fragment
from dlrun.report.record import Record
from dlrun.wording import is_number

PICTURE = re.compile(r"data:image/(png|jpeg|webp);base64,[A-Za-z0-9+/=]+")  # nothing else is put into an <img>
LONGEST = 1200  # characters of a text
VALUES = 40  # of a row


def body(record: Record) -> Markup | None:
    found = record.json("plots", "mistakes.json")
    if "mistakes" not in found:
        return None
    return fragment(
        "run/mistakes.html.j2",
        samples=found.get("samples"),
        wrong=found.get("wrong"),
        split=found.get("split"),
        mistakes=[_shown(mistake) for mistake in found["mistakes"]],
    )


def _shown(mistake: Mapping[str, Any]) -> dict[str, Any]:
    values = mistake.get("values")
    return {
        "index": mistake.get("index"),
        "truth": str(mistake.get("truth")),
        "guess": str(mistake.get("guess")),
        "probability": mistake.get("probability"),
        "loss": mistake.get("loss"),
        "picture": picture(mistake.get("picture")),
        "pieces": pieces(mistake["text"], mistake.get("marks") or []) if isinstance(mistake.get("text"), str) else [],
        "values": list(values.items())[:VALUES] if isinstance(values, Mapping) else [],
    }


def picture(address: Any) -> Markup | None:
    """An address that holds the picture itself; any other is none."""
    if not isinstance(address, str) or not PICTURE.fullmatch(address):
        return None
    base64.b64decode(address.partition(",")[2], validate=True)
    return Markup(address)


def pieces(text: str, marks: Sequence[Sequence[float]]) -> list[dict[str, Any]]:
    """The text in pieces of one weight, from −1 to 1; overlapping marks go to the one that begins first."""
    found: list[dict[str, Any]] = []
    at = 0
    for begin, end, weight in sorted((int(m[0]), int(m[1]), float(m[2])) for m in marks):
        begin, end = max(begin, at), min(end, len(text))
        if begin >= end or not is_number(weight):
            continue
        found.append({"text": text[at:begin], "weight": 0.0})
        found.append({"text": text[begin:end], "weight": max(-1.0, min(1.0, weight))})
        at = end
    found.append({"text": text[at:], "weight": 0.0})
    kept, room = [], LONGEST
    for piece in found:
        if room > 0 and piece["text"]:
            cut = piece["text"] if len(piece["text"]) <= room else piece["text"][:room] + " …"
            kept.append(piece | {"text": cut})
            room -= len(piece["text"])
    return kept
