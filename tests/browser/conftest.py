"""A browser for all tests of pages; whatever a page asks for besides itself, or complains about, fails the test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support.chromium import REASON, must_run, program

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

OpenPage = Callable[..., "Page"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A headless Chromium; no longer than a module, since its driver's event loop counts as running for all other tests."""
    found = program()
    if found is None:
        if must_run():
            pytest.fail(REASON)
        pytest.skip(REASON)
    playwright = pytest.importorskip("playwright.sync_api", reason="`pip install playwright` drives the browser")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser: Browser, tmp_path: Path) -> Iterator[OpenPage]:
    """Return a function that opens HTML from a file and waits for its figures; keywords go to the browser's context."""
    contexts, troubles = [], []

    def open_html(html: str, *, width: int = 1280, height: int = 900, **options: Any) -> Page:
        path = tmp_path / "page.html"
        path.write_text(html, encoding="utf-8")
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        context.set_default_timeout(120_000)  # machines that run tests can be slow
        contexts.append(context)
        page = context.new_page()
        page.on(
            "console", lambda message: troubles.append(message.text) if message.type in ("error", "warning") else None
        )
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("dialog", lambda dialog: troubles.append(dialog.message))
        page.on("request", lambda request: None if _is_own(request.url) else troubles.append(request.url))
        page.goto(path.as_uri())
        if page.locator("#figures").count():
            page.wait_for_function("document.querySelectorAll('.plot[data-drawn]').length > 0")
        return page

    def _is_own(url: str) -> bool:
        return url.startswith((tmp_path.as_uri(), "data:", "blob:"))

    yield open_html
    for context in contexts:
        context.close()
    assert troubles == []
