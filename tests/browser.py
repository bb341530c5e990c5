"""A headless Chromium for the pages that dlrun writes: what it opens, says and asks for is noted.

browser = pytest.fixture(scope="module")(chromium)   # in a test file: one for all of its tests
with opened(browser, path, PHONE) as visit: …
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

DESKTOP, PHONE = {"width": 1280, "height": 800}, {"width": 375, "height": 667}
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
QUIET += ["--disable-sync", "--no-first-run"]


@dataclass
class Visit:
    """A page that is open, and what has happened in it."""

    page: Any
    said: list[str] = field(default_factory=list)  # in the console, and errors that nothing caught
    asked: list[str] = field(default_factory=list)  # addresses, but for those that are their own content

    def overflow(self) -> int:
        """Pixels by which the page is wider than its window."""
        return self.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")

    def scroll_through(self) -> None:
        """Every part of the page comes into view once, so that its charts are drawn."""
        height = self.page.evaluate("document.documentElement.scrollHeight")
        for top in range(0, height, 400):
            self.page.evaluate("top => scrollTo(0, top)", top)
            self.page.wait_for_timeout(30)
        self.page.evaluate("scrollTo(0, 0)")


def chromium() -> Iterator[Any]:
    """One browser. Skips where there is none."""
    playwright = pytest.importorskip("playwright.sync_api")
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        pytest.skip("no Chromium on this machine (apt-get install chromium)")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=program, args=QUIET)
        yield browser
        browser.close()


@contextmanager
def opened(browser: Any, path: Path, size: dict[str, int] = DESKTOP, **more: Any) -> Iterator[Visit]:
    """`path` in a context of its own; `more` as Playwright's new_context has it (color_scheme, has_touch)."""
    context = browser.new_context(viewport=size, **more)
    page = context.new_page()
    visit = Visit(page)
    page.on("console", lambda message: visit.said.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: visit.said.append(f"error: {error}"))
    page.on("request", lambda r: visit.asked.append(r.url) if not r.url.startswith(("data:", "blob:")) else None)
    try:
        page.goto(path.resolve().as_uri())
        yield visit
    finally:
        context.close()
