"""diffood's page in a browser: served until it is ready, given images, and its cards read."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from chromium import BrowserPage, open_page, serve_folder

OF_CHROMIUM = {"No available adapters."}  # it says so itself where a page asks for a GPU and there is none
STATUS = "document.querySelector('#engine').textContent"
ENDED = (
    "/^Ready|flagged/.test(document.querySelector('#engine').textContent + document.querySelector('#engine').className)"
)
CARDS = """[...document.querySelectorAll('.card')].map(card => ({
  name: card.querySelector('h2').textContent, text: card.innerText,
  pictures: card.querySelectorAll('canvas').length}))"""


@contextmanager
def shown(folder: Path, profile: Path, *options: str, query: str = "", isolated: bool = False) -> Iterator[BrowserPage]:
    """A served page, once it is ready or has said why it is not; it asked its own origin alone."""
    with serve_folder(folder, isolated=isolated) as url, open_page(f"{url}/{query}", profile, *options) as page:
        page.wait_for(ENDED)
        yield page
        assert {request.removeprefix("blob:").startswith(f"{url}/") for request in page.requests} == {True}


def judge(page: BrowserPage, files: list[Path]) -> list[dict[str, Any]]:
    """Give the page files and read the cards that it makes of them, in their order."""
    page.evaluate("document.querySelector('#clear').click()")
    page.give_files("#files", files)
    page.wait_for(f"document.querySelectorAll('.card').length === {len(files)}")
    return list(page.evaluate(CARDS))


def p_value(card: dict[str, Any]) -> float:
    found = re.search(r"p-value ([\d.e-]+)", card["text"])
    assert found is not None, card
    return float(found.group(1))
