"""The report in a real browser: it shows, moves and reads as it should, and no text from a model or a file can change that."""

from __future__ import annotations

import pytest
from support.report_data import EVIL, ODD_TEXTS, arguments

from synalign_agent.report.compare import Compared, compare
from synalign_agent.report.compare_page import render_comparison
from synalign_agent.report.html import render_report

WIDTHS = (375, 768, 1280)
MAP = "#figure-neighbourhoods"
TWELVE = tuple(f"a rather long label number {number}" for number in range(12))
SESSIONS = {
    "one round, without labels, attributes, hold-out and words": {
        "labels": ("all",),
        "reference": "reference",
        "with_attributes": False,
        "n_rounds": 1,
        "text": ODD_TEXTS["empty"],
    },
    "no round yet": {"n_rounds": 0, "n_selected": 0, "n_pool": 0},
    "thirty rounds, twelve labels": {"n_rounds": 30, "labels": TWELVE},
    "as many samples as a map holds": {"n_real": 750, "n_pool": 750, "n_selected": 375},
    "nothing accepted": {"n_selected": 0, "n_pool": 0},
    **{f"{name} texts": {"text": ODD_TEXTS[name]} for name in ("long", "right to left")},
}


def _is_too_wide(page):
    return page.evaluate("document.documentElement.scrollWidth > window.innerWidth")


@pytest.fixture(scope="module")
def html():
    return render_report(**arguments())


def test_fits_three_widths_and_draws_its_figures(open_page, html):
    page = open_page(html)
    page.wait_for_function("document.querySelectorAll('.plot[data-drawn]').length == 3")
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        page.wait_for_function("width => document.querySelector('.plot svg.main-svg').clientWidth < width", arg=width)
        assert not _is_too_wide(page)
        for figure in page.locator(".plot[data-drawn]").all():
            assert 200 < figure.bounding_box()["width"] <= width


@pytest.mark.parametrize("kind", SESSIONS)
def test_every_kind_of_session_shows(open_page, kind):
    page = open_page(render_report(**arguments(**SESSIONS[kind])), width=375)
    assert not _is_too_wide(page)
    assert page.evaluate("window.broken") is None
    assert page.locator(".verdict").inner_text()
    for detail in page.locator("details > summary").all():
        detail.click()
    if page.locator("#sample").count():
        page.locator("#next").click()
        assert page.locator("#sample-lineage dd").count() > 3
    assert not _is_too_wide(page)
    assert page.evaluate("window.broken") is None


def test_tabs_by_mouse_and_by_keyboard(open_page, html):
    page = open_page(html)
    neighbourhoods, directions = (page.get_by_role("tab", name=name) for name in ("Neighbourhoods", "Directions"))
    directions.click()
    page.wait_for_selector("#figure-map[data-drawn]")
    assert not page.locator(MAP).is_visible() and page.locator("#figure-map").is_visible()
    page.keyboard.press("ArrowRight")
    assert page.locator(MAP).is_visible()
    assert neighbourhoods.evaluate("tab => tab === document.activeElement && tab.ariaSelected === 'true'")
    page.keyboard.press("End")
    assert directions.evaluate("tab => tab === document.activeElement")


def _mark(page, trace):
    """Return the middle of the last mark of a trace: it lies on top of the others."""
    page.locator(MAP).scroll_into_view_if_needed()
    box = page.locator(f"{MAP} .scatterlayer .trace").nth(trace).locator("path.point").last.bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def test_hover_shows_a_text_and_a_click_where_it_comes_from(open_page):
    page = open_page(render_report(**arguments(text=EVIL, n_real=4, n_pool=6, n_selected=3)))
    page.wait_for_selector(f"{MAP}[data-drawn]")
    page.mouse.move(*_mark(page, 2))
    shown = page.locator(f"{MAP} .hoverlayer .hovertext")
    shown.wait_for()
    assert "<img src=x onerror=" in shown.text_content()
    page.mouse.down()
    page.mouse.up()
    page.wait_for_selector("#sample-lineage .sample-text")
    assert page.locator("#sample-lineage .sample-text").inner_text().startswith("<img src=x")
    assert page.locator("#sample").input_value() == "selected2"
    assert "◆" in page.locator("#sample option:checked").inner_text()
    assert page.evaluate("window.broken") is None
    assert page.locator("main img, #sample-lineage script").count() == 0


def test_keyboard_alone_skips_to_the_numbers_and_walks_the_lineage(open_page, html):
    page = open_page(html)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the numbers"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    page.locator("#next").focus()
    page.keyboard.press("Enter")
    first = page.locator("#sample").input_value()
    page.keyboard.press("Enter")
    assert page.locator("#sample").input_value() != first
    page.locator("#previous").press("Enter")
    assert page.locator("#sample").input_value() == first
    page.locator("[data-sample=selected7]").press("Enter")
    assert page.locator("#sample").input_value() == "selected7"
    panel = page.locator("#sample-lineage")
    assert panel.evaluate("panel => panel === document.activeElement")
    assert "generate_samples 1.1.0" in panel.inner_text()


def test_no_accessibility_violations(open_page):
    """axe-core: names, roles, headings, landmarks, contrast, keyboard access of what scrolls."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    page = open_page(render_report(**arguments(n_real=20, n_pool=20, n_selected=12)), width=375)
    page.locator("#next").click()
    page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        found = axe.Axe().run(page)
        assert found.violations_count == 0, found.generate_report()


def test_paper_holds_the_figures(open_page, html):
    page = open_page(html)
    page.wait_for_function("document.querySelectorAll('.plot[data-drawn]').length == 3")
    page.emulate_media(media="print")
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    page.wait_for_function("document.querySelector('#figure-rounds svg.main-svg').clientWidth == 640")
    assert not page.locator("nav").is_visible()
    page.evaluate("window.dispatchEvent(new Event('afterprint'))")
    page.emulate_media(media="screen")
    page.wait_for_function("document.querySelector('#figure-rounds svg.main-svg').clientWidth > 640")


def test_without_scripts_the_numbers_are_there(browser, open_page, html):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.set_content(html)
    text = page.locator("main").inner_text()
    context.close()
    assert "Distance to the real rows" in text and "0.008000" in text


def test_comparison_shows_and_is_accessible(open_page):
    first = arguments(text=EVIL, labels=("delivery", EVIL))["summary"]
    sessions = [
        Compared(
            summary={**first, "thread_id": name, "n_rounds": 2},
            ledger={"tokens": first["tokens"], "cost_usd": None},
            rounds=arguments(n_rounds=n_rounds)["rounds"],
            settings={"task": task, "seed": 0},
            measured_by={"encoder": encoder},
        )
        for name, n_rounds, task, encoder in (("a", 4, EVIL, "m"), ("b", 2, "reviews", "m"), (EVIL, 1, None, "another"))
    ]
    page = open_page(render_comparison(compare(sessions)), width=375)
    assert not _is_too_wide(page)
    assert page.evaluate("window.broken") is None
    assert "they differ in encoder" in page.locator("[role=note]").inner_text()
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    found = axe.Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
