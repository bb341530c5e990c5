"""What a reader, and a browser without scripts, finds in a page."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

EMPTY = {"meta", "link", "img", "br", "input", "hr"}


class Page(HTMLParser):
    """The elements that are open where a text stands, texts by sections, charts by name; refuses what isn't closed."""

    def __init__(self, path: Path):
        super().__init__(convert_charrefs=True)
        self.open: list[tuple[str, dict[str, str | None]]] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self.charts: dict[str, dict[str, Any]] = {}
        self.title = ""
        self.feed(path.read_text(encoding="utf-8"))
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in EMPTY:
            self.open.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        last, _ = self.open.pop()
        assert tag == last, f"</{tag}> ends <{last}>"

    def handle_data(self, data: str) -> None:
        tag, attributes = self.open[-1] if self.open else ("", {})
        if tag == "title":
            self.title = data
        if tag == "script":
            if attributes.get("type") == "application/json":
                figure = next(a["id"] for t, a in reversed(self.open) if t == "figure")
                self.charts[str(figure)] = json.loads(data)
            return
        section = next((str(a["id"]) for t, a in self.open if t == "section"), "")
        if data.strip():
            self.texts.setdefault(section, []).append(" ".join(data.split()))

    def text(self, section: str = "") -> str:
        return " ".join(self.texts.get(section, []))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]
