"""The report in a real browser: what a reader sees, clicks, types and prints."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from equipoise.report.frontier_report import write_report
from equipoise.runs import RunFolder

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

LAPTOP = {"width": 1366, "height": 768}
POINTS = "() => document.getElementById('figure-frontier').data.map((t) => [t.name, [...t.x], [...t.y]])"


@pytest.fixture
def page(chromium: Browser, make_run: Callable[..., RunFolder]) -> Iterator[Page]:
    """The report of a run of eight candidates, opened from the disk; a fault of its script fails the test."""
    location = write_report(make_run())
    context = chromium.new_context(viewport=LAPTOP, offline=True)
    opened = context.new_page()
    faults: list[str] = []
    opened.on("pageerror", lambda error: faults.append(str(error)))
    opened.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    opened.on("request", lambda request: faults.append(request.url) if request.url[:5] != "file:" else None)
    opened.goto(f"file://{location}")
    yield opened
    context.close()
    assert faults == []


def points(page: Page) -> dict[str, Any]:
    """Coordinates of the frontier figure by group."""
    return {name: (x, y) for name, x, y in page.evaluate(POINTS)}


def test_every_figure_is_drawn_and_the_page_fits_a_laptop(page: Page) -> None:
    for name in ("frontier", "classes", "corruptions", "costs", "load", "progress"):
        plot = page.locator(f"#figure-{name} .main-svg").first
        assert plot.is_visible(), name
    assert page.evaluate("document.documentElement.scrollWidth") <= LAPTOP["width"]
    assert page.locator("#shown").inner_text() == "8 of 8 candidates shown"


def test_intervals_stand_as_bars(page: Page) -> None:
    page.locator("#axis-across").select_option("p99_ms")
    choice = page.evaluate(
        "document.getElementById('figure-frontier').data.find((trace) => trace.name === 'choice')"
    )
    for axis, half in (("error_y", 0.008), ("error_x", 0.2)):
        assert choice[axis]["array"] == pytest.approx([half]), axis
        assert choice[axis]["arrayminus"] == pytest.approx([half]), axis
    # Of eight candidates, up and across.
    assert page.locator("#figure-frontier .errorbar path").count() == 16


def test_choosing_an_axis_redraws_every_point(page: Page) -> None:
    before = points(page)
    page.locator("#axis-across").select_option("p99_ms")
    page.locator("#axis-up").select_option("robustness")
    after = points(page)
    assert after.keys() == before.keys()
    assert after["choice"] == ([3.4], [0.88])
    assert after["teacher"][1] == pytest.approx([0.91])
    titles = page.locator("#figure-frontier").inner_text()
    assert "latency p99 (ms, batch 1)" in titles
    assert "robustness (share of the metric kept)" in titles


def test_every_pair_of_axes_can_be_drawn(page: Page) -> None:
    keys = page.locator("#axis-up option").evaluate_all("(options) => options.map((o) => o.value)")
    assert len(keys) >= 14
    for key in keys:
        page.locator("#axis-up").select_option(key)
        page.locator("#axis-across").select_option(key)
        shown = points(page)
        # `gap`, like every figure of this run, was measured of all eight.
        assert sum(len(x) for x, _ in shown.values()) == 8, key
        assert all(x == y for x, y in shown.values())


def test_boxes_hide_candidates_from_figures_and_table(page: Page) -> None:
    rows = page.locator("#candidates tbody tr:visible")
    assert rows.count() == 8
    page.get_by_label("torch", exact=True).uncheck()
    assert page.locator("#shown").inner_text() == "6 of 8 candidates shown"
    assert rows.count() == 6
    assert "teacher" not in points(page)
    bars = page.evaluate("document.getElementById('figure-costs').data[0].y")
    assert len(bars) == 6
    assert "6torchfp32" not in bars
    page.get_by_label("3 layers (0,2,5)", exact=True).uncheck()
    assert "choice" not in points(page)
    page.get_by_role("button", name="Structure: all or none").click()
    assert page.locator("#shown").inner_text() == "0 of 8 candidates shown"
    page.get_by_role("button", name="Structure: all or none").click()
    assert page.locator("#shown").inner_text() == "6 of 8 candidates shown"
    page.get_by_role("button", name="Show all").click()
    assert rows.count() == 8
    assert "choice" in points(page)


def test_pointing_at_a_candidate_shows_its_recipe(page: Page) -> None:
    marker = page.locator("#figure-frontier .scatterlayer .trace").last.locator("path.point")
    marker.scroll_into_view_if_needed()
    box = marker.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2, steps=5)
    hover = page.locator("#figure-frontier .hoverlayer")
    hover.get_by_text("3 layers (0,2,5) int8 openvino").first.wait_for(timeout=5_000)
    assert "recipe 3openvinoint8: layers 0,2,5, distilled, int8 in openvino" in str(hover.text_content())
    page.mouse.down()
    page.mouse.up()
    page.locator("#picked p").first.wait_for(timeout=5_000)
    assert page.locator("#picked p").first.inner_text() == "3 layers (0,2,5) int8 openvino (choice)"


def test_a_keyboard_is_enough(page: Page) -> None:
    page.locator("#axis-up").focus()
    page.keyboard.press("ArrowDown")
    assert page.locator("#axis-up").input_value() == "drop"
    assert points(page)["choice"][1] == pytest.approx([0.008])
    # From the last menu on, Tab goes through boxes and button to the table's heads and names.
    reached = []
    page.locator("#axis-across").focus()
    for _ in range(50):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.className || document.activeElement.name"))
        if reached[-1] == "pick":
            break
    assert {"engine", "precision", "structure", "sort", "pick"} <= set(reached)
    label = page.evaluate("document.activeElement.textContent")
    page.keyboard.press("Enter")
    assert page.locator("#picked p").first.inner_text().startswith(label)
    assert page.evaluate("document.activeElement.getAttribute('aria-pressed')") == "true"
    assert "picked" in points(page)
    page.keyboard.press("Enter")
    assert "picked" not in points(page)


def test_a_column_sorts_the_table_both_ways(page: Page) -> None:
    column = page.get_by_role("columnheader", name="p99 ms")
    cells = page.locator("#candidates tbody tr td:nth-child(10)")
    column.get_by_role("button").click()
    assert column.get_attribute("aria-sort") == "ascending"
    rising = [float(text.split()[0]) for text in cells.all_inner_texts()]
    assert rising == sorted(rising)
    column.get_by_role("button").click()
    assert column.get_attribute("aria-sort") == "descending"
    assert [float(text.split()[0]) for text in cells.all_inner_texts()] == rising[::-1]


def test_a_class_that_is_given_up_is_seen(page: Page) -> None:
    section = page.get_by_role("region", name="Classes: the choice against the teacher")
    assert "2 of 3 classes lose F1" in section.inner_text()
    figure = page.evaluate("document.getElementById('figure-classes').data[0]")
    assert figure["hovertext"][-1].startswith("<b>ship (200)</b>")
    assert figure["x"][-1] < -0.2
    assert figure["marker"]["symbol"][-1] == "triangle-left"
    section.get_by_text("Show all classes as a table").click()
    assert section.get_by_role("row", name="ship").is_visible()


def test_on_paper_nothing_is_cut_and_no_control_is_left(page: Page) -> None:
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("#controls").is_hidden()
    widths = page.locator(".plot .main-svg").evaluate_all("(plots) => plots.map((p) => p.clientWidth)")
    assert set(widths) == {1000}
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    page.emulate_media(media="screen")
    page.wait_for_function("document.querySelector('.plot .main-svg').clientWidth > 1000")
    assert page.pdf(prefer_css_page_size=True)[:5] == b"%PDF-"
