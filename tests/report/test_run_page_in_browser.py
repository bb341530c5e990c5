"""The report of a run as a browser has it: desktop and phone, dark and light, hovered over, zoomed into, printed."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from browser import DESKTOP, PHONE, Visit, chromium, opened
from told_runs import NAMES, put, told_in_full
from trained import train_each_kind

from dlrun.report import making, page

browser = pytest.fixture(scope="module")(chromium)


@pytest.fixture(scope="module")
def path(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`browser` first: where there is none, nothing is trained."""
    folder = tmp_path_factory.mktemp("browsed")
    train_each_kind(folder, ["digits"])
    run = told_in_full(folder / "digits", folder / "run")
    page.write(folder / "report.html", making.make(run))
    return folder / "report.html"


@pytest.fixture(scope="module")
def desktop(browser: Any, path: Path) -> Iterator[Visit]:
    with opened(browser, path, DESKTOP, color_scheme="light") as visit:
        visit.scroll_through()
        yield visit


def colour(visit: Visit, selector: str, name: str = "color") -> str:
    return visit.page.eval_on_selector(selector, f"e => getComputedStyle(e).{name}")


def drag_up(visit: Visit, chart: str) -> float:
    """Pixels that the page scrolls by when a finger moves 150 up on a chart."""
    visit.page.locator(chart).evaluate("e => e.scrollIntoView({block: 'center'})")
    area = visit.page.locator(f"{chart} .nsewdrag")
    area.wait_for(state="attached")
    box, before = area.bounding_box(), visit.page.evaluate("scrollY")
    finger = visit.page.context.new_cdp_session(visit.page)
    for step in range(11):
        points = [{"x": box["x"] + 20, "y": box["y"] + 20 - 15 * step}]
        finger.send("Input.dispatchTouchEvent", {"type": "touchMove" if step else "touchStart", "touchPoints": points})
        visit.page.wait_for_timeout(16)
    finger.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    visit.page.wait_for_timeout(100)
    return float(visit.page.evaluate("scrollY") - before)


def x_range(visit: Visit, chart: str) -> list[float]:
    return visit.page.evaluate(f"document.querySelector('#{chart} .plot')._fullLayout.xaxis.range")


@pytest.mark.parametrize(("size", "scheme"), [(DESKTOP, "light"), (PHONE, "dark")], ids=["desktop", "phone"])
def test_it_opens_whole_says_nothing_and_asks_for_nothing(browser: Any, path: Path, size: dict[str, int], scheme: str):
    touch = {"has_touch": True, "is_mobile": True} if size is PHONE else {}
    with opened(browser, path, size, color_scheme=scheme, **touch) as visit:
        visit.scroll_through()
        assert visit.said == []
        assert visit.asked == [path.as_uri()]
        assert visit.overflow() == 0
        assert visit.page.locator(".plot .main-svg").count() >= 9
        assert visit.page.locator(".plot:not([data-drawn])").count() == 0
        light = sum(map(int, re.findall(r"\d+", colour(visit, "body", "backgroundColor"))[:3]))
        assert (light < 200) == (scheme == "dark")
        visit.page.evaluate("document.querySelectorAll('details').forEach(fold => { fold.open = true; })")
        assert visit.overflow() == 0


def test_hovering_says_the_values(desktop: Visit):
    plot = desktop.page.locator("#curve-acc .nsewdrag")
    plot.scroll_into_view_if_needed()
    box = plot.bounding_box()
    assert box is not None
    desktop.page.mouse.move(box["x"] + box["width"] - 3, box["y"] + box["height"] / 2)
    desktop.page.wait_for_selector("#curve-acc .hoverlayer .legendtext")
    said = " ".join(desktop.page.locator("#curve-acc .hoverlayer .legendtext").all_text_contents())
    last = desktop.page.evaluate("document.querySelector('#curve-acc .plot').data.slice(0, 2).map(t => t.y[3])")
    assert all(f"{value:.2f} %" in said for value in last)
    desktop.page.mouse.move(0, 0)


def test_hovering_over_a_confusion_says_who_was_taken_for_whom(desktop: Visit):
    plot = desktop.page.locator("#confusion-map .nsewdrag")
    plot.scroll_into_view_if_needed()
    box = plot.bounding_box()
    assert box is not None
    assert box["width"] == pytest.approx(box["height"], rel=0.02)
    side = box["width"] / len(NAMES)
    desktop.page.mouse.move(box["x"] + 3.5 * side, box["y"] + 0.5 * side)
    desktop.page.wait_for_selector("#confusion-map .hovertext")
    said = "".join(desktop.page.locator("#confusion-map .hovertext tspan").all_text_contents())
    assert NAMES[0] in said
    assert f"taken for {NAMES[3]}" in said
    assert "6 of 36 (16.7 %)" in said
    desktop.page.mouse.move(0, 0)


def test_dragging_zooms_and_two_clicks_show_all_again(desktop: Visit):
    plot = desktop.page.locator("#curve-loss .nsewdrag")
    plot.scroll_into_view_if_needed()
    box = plot.bounding_box()
    assert box is not None
    before = x_range(desktop, "curve-loss")
    middle = box["y"] + box["height"] / 2
    desktop.page.mouse.move(box["x"] + box["width"] / 3, middle)
    desktop.page.mouse.down()
    desktop.page.mouse.move(box["x"] + box["width"] * 2 / 3, middle, steps=5)
    desktop.page.mouse.up()
    zoomed = x_range(desktop, "curve-loss")
    assert zoomed[1] - zoomed[0] == pytest.approx((before[1] - before[0]) / 3, rel=0.1)
    desktop.page.locator("#theme").click()  # drawn anew, where one was
    assert x_range(desktop, "curve-loss") == pytest.approx(zoomed)
    desktop.page.locator("#theme").click()
    plot.dblclick()
    desktop.page.wait_for_timeout(400)
    assert x_range(desktop, "curve-loss") == pytest.approx(before)


def test_the_switches_show_steps_and_logarithms(desktop: Visit):
    plot = "document.querySelector('#curve-loss .plot')"
    steps = desktop.page.evaluate("window.report.charts.get(" + plot + ").views.by.step.data[0].x")
    desktop.page.get_by_role("button", name="step", exact=True).click()
    desktop.page.get_by_role("button", name="logarithmic").click()
    shown = desktop.page.evaluate(f"({{x: {plot}.data[0].x, type: {plot}._fullLayout.yaxis.type}})")
    assert shown == {"x": steps, "type": "log"}
    assert x_range(desktop, "curve-loss")[1] >= steps[-1]  # not what epochs were zoomed to
    assert desktop.page.locator("#curve-loss .xtitle").text_content() == "optimizer step"
    desktop.page.get_by_role("button", name="epoch", exact=True).click()
    assert desktop.page.evaluate(f"{plot}.data[0].x") == [1, 2, 3, 4]


def test_the_button_changes_the_theme_of_page_and_charts(desktop: Visit):
    title = "#curve-loss .xtitle"
    before = colour(desktop, "body", "backgroundColor"), colour(desktop, title, "fill")
    desktop.page.locator("#theme").click()
    desktop.page.wait_for_timeout(50)
    after = colour(desktop, "body", "backgroundColor"), colour(desktop, title, "fill")
    assert before[0] != after[0]
    assert before[1] != after[1]
    desktop.page.reload()
    assert colour(desktop, "body", "backgroundColor") == after[0]  # it is remembered
    desktop.page.locator("#theme").click()
    desktop.scroll_through()
    assert colour(desktop, "body", "backgroundColor") == before[0]


def test_tables_sort_by_numbers_and_commands_are_copied(desktop: Visit):
    table = desktop.page.locator("#confusion table")
    samples = table.locator("tbody td:nth-child(3)")
    heading = table.locator("th", has_text="samples")
    heading.click()
    assert samples.all_text_contents() == ["7", "6", "1"]
    heading.press("Enter")
    assert samples.all_text_contents() == ["1", "6", "7"]
    assert heading.get_attribute("aria-sort") == "ascending"
    button = desktop.page.locator("button.copy")
    button.click()
    desktop.page.locator("button.copy", has_text="copied").wait_for()
    assert desktop.said == []


def test_charts_are_drawn_when_they_come_into_view_and_all_of_them_on_paper(browser: Any, path: Path):
    with opened(browser, path, PHONE, color_scheme="dark", has_touch=True, is_mobile=True) as visit:
        assert visit.page.locator(".plot[data-drawn]").count() < 3
        assert drag_up(visit, "#curve-loss") > 50  # a finger on a chart scrolls the page
        visit.page.locator("#speed-time").scroll_into_view_if_needed()
        visit.page.wait_for_selector("#speed-time .main-svg")
        printed = visit.page.pdf()
        assert printed.startswith(b"%PDF")
        assert visit.page.locator(".plot:not([data-drawn])").count() == 0
        assert visit.said == []


def test_the_names_of_a_hundred_classes_do_not_overlap(browser: Any, path: Path, tmp_path: Path):
    run = tmp_path / "run"
    shutil.copytree(path.parent / "run", run)
    names = [f"class {i}" for i in range(100)]
    cells = [[i, j, 1 + i] for i in range(100) for j in {i, (i * 7 + 1) % 100}]
    put(run, "plots/confusion.json", {"class_names": names, "cells": cells, "split": "test"})
    page.write(tmp_path / "report.html", making.make(run))
    with opened(browser, tmp_path / "report.html", PHONE) as visit:
        visit.page.locator("#confusion-map").scroll_into_view_if_needed()
        names_down = visit.page.locator("#confusion-map .ytick text")
        names_down.first.wait_for()
        tops = sorted(name.bounding_box()["y"] for name in names_down.all())
        assert len(tops) >= 8
        assert min(below - above for above, below in pairwise(tops)) >= 12  # pixels: the size of the letters
