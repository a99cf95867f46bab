"""Takes the pictures of docs/server.md from the real page, on the demo model.

python docs/make_page_pictures.py    needs the extra `dev`, Chromium and Pillow; writes docs/images/page*.webp
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.support.browsing import Tab, browser  # noqa: E402
from tests.support.page_use import choose  # noqa: E402
from tests.support.serving import serving  # noqa: E402

IMAGES = ROOT / "docs" / "images"


def save(page, name: str) -> None:
    picture = Image.open(io.BytesIO(page.screenshot()))
    picture.save(IMAGES / f"{name}.webp", quality=80, method=6)


def seeded(page) -> None:
    page.get_by_role("button", name="Settings").click()
    page.get_by_label("Seed (empty: any)").fill("5")
    page.get_by_role("button", name="Close").click()


def chat(page) -> None:
    for question in ("Tell me a story about a fox.", "Find two numbers that make 83."):
        page.get_by_label("Message", exact=True).fill(question)
        page.get_by_role("button", name="Send", exact=True).click()
        page.locator(".reply[aria-busy=false] [role=option]").first.wait_for()
    page.locator("#chat [role=option]").nth(1).click()
    save(page, "page")


def compare(page) -> None:
    choose(page, "Theme", "dark")
    page.get_by_role("button", name="Compare", exact=True).click()
    page.get_by_label("Setups").select_option("factors")
    page.get_by_label("Prompt", exact=True).fill("Tell me a story about a fox.")
    page.get_by_role("button", name="Compare them").click()
    page.get_by_text("The comparison is complete.").wait_for(state="attached")
    page.locator(".beside [role=option]").nth(5).hover()
    save(page, "page-compare")


def main() -> None:
    with serving() as server, browser() as running:
        tab = Tab(running, server.url)
        tab.page.set_viewport_size({"width": 1250, "height": 860})
        seeded(tab.page)
        chat(tab.page)
        compare(tab.page)
        tab.close()


if __name__ == "__main__":
    main()
