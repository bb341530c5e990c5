"""A run's report, from its folder to the page."""

from __future__ import annotations

from pathlib import Path

from dlrun.report import page, record
from dlrun.report.sections import head, sections


def make(path: Path) -> str:
    """The page of the run in `path`. Raises UserError if there is no run in it."""
    found = record.read(path)
    above, parts = head(found), sections(found)
    return page.render(f"{found.title} · {found.run_id}", above, parts, found.damaged)


def write(path: Path, out: Path | None = None) -> Path:
    """The page as `out`, or report.html in the run's folder; returns where it is. Raises UserError."""
    where = out or path / "report.html"
    page.write(where, make(path))
    return where
