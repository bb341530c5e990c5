"""The parts of a run's report, a file each: `section(record)` is one to show, or None where there is nothing to say."""

from __future__ import annotations

import logging
from collections.abc import Callable

from markupsafe import Markup

from dlrun.report.page import Section, fragment
from dlrun.report.record import Record, said
from dlrun.report.sections import (
    artifacts,
    calibration,
    confusion,
    curves,
    environment,
    headline,
    mistakes,
    reproduction,
    results,
    setup,
    speed,
)

log = logging.getLogger("dlrun")

PARTS: tuple[tuple[str, str, Callable[[Record], Markup | None]], ...] = (
    ("setup", "What was run", setup.body),
    ("results", "Results", results.body),
    ("curves", "Curves", curves.body),
    ("confusion", "Confusion", confusion.body),
    ("mistakes", "Mistakes", mistakes.body),
    ("calibration", "Calibration", calibration.body),
    ("speed", "Speed", speed.body),
    ("artifacts", "Compression and export", artifacts.body),
    ("environment", "Environment", environment.body),
    ("again", "Reproduce", reproduction.body),
)


def sections(record: Record) -> list[Section]:
    """All that there is something to say in. One that can't be made, its files being damaged, costs no other."""
    made = [(name, title, _made(record, title, body)) for name, title, body in PARTS]
    return [Section(name, title, body) for name, title, body in made if body is not None]


def head(record: Record) -> Markup:
    """What stands above them."""
    found = _made(record, "the headline", headline.body)
    return fragment("run/title.html.j2", title=record.title) if found is None else found


def _made(record: Record, title: str, body: Callable[[Record], Markup | None]) -> Markup | None:
    record.asked.clear()
    try:
        return body(record)
    except Exception as error:
        log.debug("%s", title, exc_info=True)
        files = " or ".join(record.asked) or "summary.json"
        record.damaged.append(f"{title}: what {files} says can't be shown ({type(error).__name__}: {said(error)})")
        return None
