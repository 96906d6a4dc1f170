"""Pictures of the page as a visitor sees it: each tab, wide and narrow, light and dark, and whom the browser contacts.

    pip install playwright        # and a Chromium; $CHROMIUM names it if playwright has none of its own
    python benchmarks/screenshots.py runs/multi30k-en-de --out docs

Writes `page.png` (the translated text with a word pointed at), for the README, or with --all every tab. Fails
if the page is wider than the window, an error reaches the browser's console, or another host is contacted.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from playwright.sync_api import Page, sync_playwright
from served import served

TEXT = "Two young men are playing football in the park. A woman in a red dress is reading a book on a bench."
HEIGHT = 1120
TABS = ("Files", "Evaluate", "About")


def translate(page: Page, text: str) -> None:
    """Translate, press the third word, point at the second."""
    page.fill("#source textarea", text)
    page.click("#go")
    words = page.locator("#words .sentence").nth(1).locator(".target button")
    words.first.wait_for(timeout=60_000)
    page.wait_for_function("document.querySelector('#correction textarea').value")
    page.locator("#words .target button").nth(2).click()
    page.locator("#others input").first.wait_for(timeout=60_000)
    page.wait_for_timeout(500)
    page.evaluate("scrollTo(0, 0)")
    page.locator("#words .target button").nth(1).hover()


def open_tab(page: Page, name: str) -> None:
    """A tab, which may be in the menu of those that do not fit."""
    tab = page.get_by_role("tab", name=name, exact=True)
    if not tab.first.is_visible():
        page.locator(".overflow-menu > button").click()
        tab = page.locator(".overflow-dropdown button", has_text=name)
    tab.first.click()
    page.wait_for_timeout(1000)


def visit(page: Page, address: str, theme: str, text: str, folder: Path, name: str, tabs: bool) -> list[str]:
    """Pictures of one visit; what was wrong with it."""
    wrong: list[str] = []
    hosts: set[str] = set()
    page.on("console", lambda message: wrong.append(f"console: {message.text}") if message.type == "error" else None)
    page.on("request", lambda request: hosts.add(request.url.split("/")[2]) if request.url[:4] == "http" else None)
    page.goto(f"{address}?__theme={theme}")
    translate(page, text)
    page.screenshot(path=folder / f"{name}.png", full_page=tabs)
    for tab in TABS if tabs else ():
        open_tab(page, tab)
        page.screenshot(path=folder / f"{name}-{tab.lower()}.png", full_page=True)
    here, wide = page.evaluate("[innerWidth, document.documentElement.scrollWidth]")
    if wide > here:
        wrong.append(f"{wide} pixels wide in a window of {here}")
    if others := hosts - {address.split("/")[2]}:
        wrong.append(f"other hosts: {', '.join(sorted(others))}")
    return [f"{name}: {one}" for one in wrong]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("--out", type=Path, default=Path("docs"))
    parser.add_argument("--text", default=TEXT)
    parser.add_argument("--all", action="store_true", help="each tab at 1280 and 360 pixels, light and dark")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    views = [("light", 1024, "page")]
    if given.all:
        views = [(theme, width, f"page-{theme}-{width}") for theme in ("light", "dark") for width in (1280, 360)]
    wrong: list[str] = []
    with served("-m", "nmt", "demo", given.run) as (address, _), sync_playwright() as play:
        browser = play.chromium.launch(executable_path=os.environ.get("CHROMIUM"), args=["--no-sandbox"])
        for theme, width, name in views:
            page = browser.new_page(viewport={"width": width, "height": HEIGHT})
            wrong += visit(page, address, theme, given.text, given.out, name, given.all)
            page.close()
        browser.close()
    print("\n".join(wrong) or f"{len(views)} visits, nothing wrong")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
