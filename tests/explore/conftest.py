"""A real browser, which may ask for nothing but the page: any other request, and any error, fails the test."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Route, sync_playwright

QUIET = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = next((found for name in NAMES if (found := shutil.which(name))), None)
    if program is None:
        reason = "needs Chromium: make browser"
        if "BROWSER_TESTS" in os.environ:  # CI
            pytest.fail(reason)
        pytest.skip(reason)
    with sync_playwright() as playwright:
        one = playwright.chromium.launch(executable_path=program, args=QUIET)
        yield one
        one.close()


@pytest.fixture
def opened(browser: Browser) -> Iterator[Callable[..., Page]]:
    """A function that opens a file: `opened(path, width=1200, height=800, color_scheme="light")`."""
    wrong: list[str] = []
    contexts = []

    def visit(path: Path, width: int = 1200, height: int = 800, color_scheme: str = "light") -> Page:
        viewport = {"width": width, "height": height}
        contexts.append(browser.new_context(viewport=viewport, color_scheme=color_scheme, accept_downloads=True))
        page = contexts[-1].new_page()
        page.set_default_timeout(20_000)
        url = path.resolve().as_uri()

        def only_the_page(route: Route) -> None:
            if route.request.url == url:
                route.continue_()
            else:
                wrong.append(f"request: {route.request.url}")
                route.abort()

        page.route("**/*", only_the_page)
        page.on("request", lambda one: None if one.url in (url, "data:,") else wrong.append(f"request: {one.url[:90]}"))
        page.on("console", lambda said: wrong.append(f"{said.type}: {said.text}"))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.goto(url)
        return page

    yield visit
    for one in contexts:
        one.close()
    assert wrong == []


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where screenshots go: the folder of $ARTEFACTS, which CI keeps."""
    folder = Path(os.environ.get("ARTEFACTS", "") or tmp_path_factory.mktemp("pictures"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder
