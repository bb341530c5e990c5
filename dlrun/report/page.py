"""The page that every report is: its sections, style and script in one file, from which nothing is asked of anyone.

Whatever comes from a run (names, texts, errors) is untrusted: the templates escape it, and `json` is safe inside
<script>. The page's own policy (Content-Security-Policy, in its head) forbids every request, and every script but ours.
"""

from __future__ import annotations

import base64
import hashlib
import json as json_module
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from dlrun import __version__
from dlrun.atomic import atomic_write
from dlrun.errors import UserError
from dlrun.report import wording
from dlrun.runfolder import finite

ASSETS = Path(__file__).parent / "assets"


@dataclass(frozen=True)
class Section:
    """A part of a page, with a heading and a place in its contents."""

    name: str  # its anchor: letters and hyphens
    title: str
    body: Markup


def fragment(template: str, **values: Any) -> Markup:
    """A template of assets/ with the values in it; they are escaped, but for Markup."""
    return Markup(_environment().get_template(template).render(values))


def render(
    title: str, head: Markup, sections: Sequence[Section], warnings: Sequence[str] = (), more: Sequence[str] = ()
) -> str:
    """The whole page.

    `head` is what stands above the sections, `warnings` are what of the report's sources is damaged, and `more` scripts
    and style sheets of assets/, after ours: `window.report` is theirs to use.
    """
    own = ["page.js", *(name for name in more if name.endswith(".js"))]
    scripts = [_plotly(), *map(_asset, own)]
    styles = ["style.css", *(name for name in more if name.endswith(".css"))]
    return fragment(
        "page.html.j2",
        title=title,
        head=head,
        sections=sections,
        warnings=warnings,
        style=Markup("\n".join(map(_asset, styles))),
        scripts=list(map(Markup, scripts)),
        hashes=list(map(_hash, scripts)),
        made=datetime.now().astimezone().isoformat(sep=" ", timespec="minutes"),
        version=__version__,
    )


def write(path: Path, html: str) -> None:
    """The page as a file, whole or not there. Raises UserError if it can't be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as file:
            file.write(html.encode("utf-8", errors="replace"))  # a name of a file may have bytes that aren't UTF-8
    except OSError as error:
        raise UserError(f"out: can't write {path} ({error.strerror})") from error


def json(value: Any) -> Markup:
    """JSON that may stand inside <script>: nothing in it ends the element, whatever the strings are. NaN is null."""
    text = json_module.dumps(finite(value), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(ASSETS),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"json": json} | wording.FILTERS
    return environment


def _asset(name: str) -> str:
    return (ASSETS / name).read_text(encoding="utf-8")


def _plotly() -> str:
    """plotly.js as the package has it; the package itself isn't imported, which would take its time."""
    found = find_spec("plotly")
    if found is None or found.origin is None:
        raise UserError("report: needs plotly, which isn't installed: pip install plotly")
    return (Path(found.origin).parent / "package_data" / "plotly.min.js").read_text(encoding="utf-8")


def _hash(script: str) -> str:
    """As a Content-Security-Policy names a script that may run."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
