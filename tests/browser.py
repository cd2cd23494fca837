"""A real browser: Debian's Chromium, without a window."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import pytest

from bench.screenshots import CHROMIUM

if TYPE_CHECKING:
    from playwright.sync_api import Page

REQUIRED = "STENO_TEST_BROWSER"
"""Set where a missing browser is a failure, as in `.ci/run`."""

needs_browser = pytest.mark.skipif(
    (CHROMIUM is None or find_spec("playwright") is None) and REQUIRED not in os.environ,
    reason="The page is tested with Chromium (Debian: apt-get install chromium) and Playwright (`make test` installs it).",
)


@contextmanager
def open_page(**options: Any) -> Iterator[Page]:
    """A page in a browser of its own, whose clipboard may be read and whose sound is played without a click."""
    from playwright.sync_api import sync_playwright

    flags = ["--no-sandbox", "--autoplay-policy=no-user-gesture-required"]
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        context = chromium.new_context(permissions=["clipboard-read", "clipboard-write"], **options)
        page = context.new_page()
        page.set_default_timeout(30_000)
        try:
            yield page
        finally:
            chromium.close()
