"""The pages in a real browser: live, by keyboard, without scripts, dark, narrow.

Pictures go to the folder that ``WARDROUND_PICTURES`` names, when it does.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from wardround.client.page.site import HospitalSite
from wardround.server.dashboard.site import RunSite
from wardround.web.site import Site

TOKEN = "a-token-for-tests-and-nothing-else"
Serve = Callable[[Site], str]

OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
# Least contrast of all text against what lies behind it, by WCAG 2.2's formula (1.4.3).
CONTRAST = """
(() => {
  const parts = (c) => (c.match(/[0-9.]+/g) || [0, 0, 0, 0]).map(Number);
  const light = (c) => { const [r, g, b] = parts(c).slice(0, 3).map((v) => v / 255)
    .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const behind = (e) => { for (; e; e = e.parentElement) {
    const c = getComputedStyle(e).backgroundColor; if (parts(c)[3] !== 0) return c; }
    return 'rgb(255, 255, 255)'; };
  let least = 99;
  for (const e of document.querySelectorAll('main *, header *')) {
    if (![...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim())) continue;
    const style = getComputedStyle(e);
    const ink = e.closest('svg') ? style.fill : style.color;
    const [a, b] = [light(ink), light(behind(e))].sort((x, y) => y - x);
    least = Math.min(least, (a + 0.05) / (b + 0.05));
  }
  return least;
})()
"""


@pytest.fixture(params=["coordinator", "hospital"])
def site(request: pytest.FixtureRequest) -> Site:
    if request.param == "hospital":
        ledger, policy, _ = request.getfixturevalue("books")
        return HospitalSite(ledger, policy)
    return RunSite(request.getfixturevalue("run").info)


def log_in(browser: Any, address: str) -> None:
    """By keyboard alone: the field has the focus, Enter sends it."""
    browser.open(address)
    browser.wait("document.activeElement instanceof HTMLInputElement")
    browser.type(TOKEN)
    browser.press("Enter", 13)
    browser.wait("!!document.querySelector('main section') && document.readyState === 'complete'")


def keep(browser: Any, name: str) -> None:
    folder = os.environ.get("WARDROUND_PICTURES")
    if folder:
        browser.picture(Path(folder) / f"{name}.png")


@pytest.mark.parametrize(
    ("width", "dark"), [(1280, False), (1280, True), (390, False), (390, True)]
)
def test_readable_at_any_width_by_day_and_night(
    browser: Any, served: Serve, site: Site, width: int, dark: bool
) -> None:
    browser.shape(width, 900, dark)
    address = served(site)
    log_in(browser, address)
    assert browser.run(OVERFLOW) <= 0
    assert browser.run(CONTRAST) >= 4.5  # WCAG 2.2, 1.4.3, level AA
    keep(browser, f"{type(site).__name__}-{width}-{'dark' if dark else 'light'}")
    serious = [c for c in browser.complaints if '"verbose"' not in c]
    assert [c for c in serious if "401" not in c] == []  # the login itself answers 401


def test_a_round_that_ends_appears_by_itself(browser: Any, served: Serve, run: Any) -> None:
    log_in(browser, served(RunSite(run.info)))
    browser.wait("document.getElementById('live').textContent.startsWith('Live.')")
    browser.run("document.querySelector('a[href=\"/rounds/4\"]').focus()")
    run.end_round(5)
    browser.wait("!!document.querySelector('a[href=\"/rounds/5\"]')")
    browser.wait("document.getElementById('live').textContent.includes('Round 5 of 6')")
    assert browser.run("document.activeElement.getAttribute('href')") == "/rounds/4"


def test_a_refusal_appears_by_itself(browser: Any, served: Serve, books: Any) -> None:
    from wardround.client.refusals import RefusalBook

    ledger, policy, _ = books
    log_in(browser, served(HospitalSite(ledger, policy)))
    browser.wait("document.getElementById('live').textContent.startsWith('Live.')")
    RefusalBook(ledger).note(2, "PolicyRefused", "[allow] tasks does not list 'ranking'")
    browser.wait("document.getElementById('refusals').textContent.includes('ranking')")


def test_without_scripts_the_page_reloads_itself(browser: Any, served: Serve, run: Any) -> None:
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    log_in(browser, served(RunSite(run.info)))
    assert browser.run("document.querySelectorAll('main section').length") == 6
    refresh = "document.querySelector('meta[http-equiv=refresh]')?.content"
    assert browser.run(refresh) == "30"


def test_the_keyboard_reaches_every_link(browser: Any, served: Serve, run: Any) -> None:
    log_in(browser, served(RunSite(run.info)))
    wanted = browser.run("[...document.querySelectorAll('a, button')].length")
    reached = set()
    for _ in range(wanted + 2):
        browser.press("Tab", 9)
        reached.add(browser.run("document.activeElement.outerHTML"))
        outlined = "getComputedStyle(document.activeElement).outlineStyle"
        assert browser.run(f"document.activeElement === document.body || {outlined} !== 'none'")
    assert len({html for html in reached if html.startswith(("<a", "<button"))}) == wanted
