"""A browser without a window, where there is one, and pages that tell what they ask for."""

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def find_browser() -> str | None:
    """Return the path of a Chromium: that in ALLCNN_CHROMIUM, or one that is installed."""
    return os.environ.get("ALLCNN_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)


@contextmanager
def browsing(path: str) -> Iterator[Browser]:
    """Yield a browser, which ends with the block."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Watched:
    """A page, with all that it complained of and asked for."""

    page: Page
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    failed: dict[str, str | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.page.on("console", lambda message: self._note(message.type, message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(f"error: {error}"))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("requestfailed", lambda r: self.failed.update({r.url: r.failure}))

    def _note(self, kind: str, text: str) -> None:
        if kind in ("error", "warning", "assert"):
            self.complaints.append(f"{kind}: {text}")

    def open(self, file: Path, view: str = "") -> None:
        """Open a page from the disk, and wait until all of it can be used."""
        self.page.goto(f"{file.as_uri()}{view}")
        wait_ready(self.page)


def until(page: Page, expression: str, argument: object = None, timeout_s: float = 20) -> None:
    """Wait until an expression holds; Playwright's own way needs eval, which the page forbids."""
    end = time.monotonic() + timeout_s
    while not page.evaluate(expression, argument):
        assert time.monotonic() < end, f"it never came true: {expression}"
        page.wait_for_timeout(20)


def wait_ready(page: Page) -> float:
    """Return how many milliseconds a page took until it could be used."""
    until(page, "performance.getEntriesByName('ready').length === 1")
    found: float = page.evaluate("performance.getEntriesByName('ready')[0].startTime")
    return found
