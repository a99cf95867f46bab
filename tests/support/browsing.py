"""A real browser on the server's page: Debian's or the system's Chromium, without a window and without the net."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
NET = "MAP page.test 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"  # nothing is fetched from elsewhere
SWITCHES = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", f"--host-resolver-rules={NET}"]
WAIT = 30_000.0  # milliseconds for what takes some hundreds on a quiet machine


@contextlib.contextmanager
def browser() -> Iterator[object]:
    """Skips where there is none, or none that starts. CHROMIUM names another program."""
    sync = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    program = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip("there is no Chromium; on Debian: apt-get install chromium")
    with sync.sync_playwright() as playwright:
        try:
            running = playwright.chromium.launch(executable_path=program, args=SWITCHES)
        except sync.Error as error:
            pytest.skip(f"{program} does not start: {str(error).splitlines()[0]}")
        yield running
        running.close()


class Tab:
    """One user's window, with nothing kept from another. Complaints of the browser fail the test, but those that are expected."""

    def __init__(self, running, url: str, **context) -> None:
        self.context = running.new_context(viewport={"width": 1400, "height": 850}, accept_downloads=True, **context)
        self.context.set_default_timeout(WAIT)
        self.page = self.context.new_page()
        self.complaints: list[str] = []
        self.expected: tuple[str, ...] = ()
        self.page.on("console", lambda m: m.type in ("error", "warning") and self.complaints.append(m.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.goto(url)

    def close(self, expected: tuple[str, ...] = ()) -> None:
        self.context.close()
        expected = (*expected, *self.expected)
        unexpected = [text for text in self.complaints if not any(part in text for part in expected)]
        assert not unexpected, unexpected
