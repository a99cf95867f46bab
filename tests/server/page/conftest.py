"""Fixtures of the page's tests: one browser for all of them, and a window of its own for each."""

from __future__ import annotations

import pytest

from tests.support.browsing import Tab, browser
from tests.support.serving import WAIT


@pytest.fixture(scope="package")  # not longer: while Playwright is there, no other test can have an event loop
def chromium():
    with browser() as running:
        yield running


@pytest.fixture
def tab(chromium, server):
    tab = Tab(chromium, server.url)
    yield tab
    tab.close()


@pytest.fixture
def page(tab):
    return tab.page


@pytest.fixture(scope="package")
def expect(chromium):
    from playwright.sync_api import expect

    expect.set_options(timeout=WAIT * 1000)
    return expect
