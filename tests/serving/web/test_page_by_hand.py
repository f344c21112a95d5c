"""The page as a person uses it: by keyboard, camera, dropped and pasted images, in every window. In a browser."""

import re
from pathlib import Path

import pytest
from chromium import CAMERA, CHROMIUM, BrowserPage
from judging_page import CARDS, OF_CHROMIUM, judge, p_value, shown

from diffood.zoo.images import unpack_set

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine"),
]
# Contrast of each piece of text with what is behind it: WCAG 2.1, sec. 1.4.3.
CONTRASTS = """(() => {
  const light = (colour) => colour.match(/[\\d.]+/g).slice(0, 3).map(Number)
    .map((v) => v / 255 <= 0.04045 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, at) => sum + v * [0.2126, 0.7152, 0.0722][at], 0);
  const ground = (node) => {
    const colour = getComputedStyle(node).backgroundColor;
    return /, 0\\)$/.test(colour) && node.parentElement ? ground(node.parentElement) : colour;
  };
  const texts = [...document.querySelectorAll("body *")].filter((node) => node.checkVisibility() && !node.disabled &&
    [...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim()));
  return texts.map((node) => {
    const [dim, bright] = [light(getComputedStyle(node).color), light(ground(node))].sort((a, b) => a - b);
    return [(bright + 0.05) / (dim + 0.05), node.outerHTML];
  });
})()"""


def test_dropped_and_pasted_images_wait_their_turn(small_page: Path, tmp_path: Path) -> None:
    with shown(small_page, tmp_path / "profile") as page:
        give = """Promise.all(["0", "1"].map((name) => fetch(`/checks/${name}.png`))).then(async (answers) => {
          const files = await Promise.all(answers.map((answer) => answer.blob()));
          const transfer = new DataTransfer();
          files.forEach((file, at) => transfer.items.add(new File([file], `${at}.png`, {type: "image/png"})));
          dispatchEvent(new DragEvent("drop", {dataTransfer: transfer, cancelable: true}));
          dispatchEvent(new ClipboardEvent("paste", {clipboardData: transfer}));
        })"""
        page.evaluate(give)
        page.wait_for("document.querySelectorAll('.card').length === 4")
        cards = page.evaluate(CARDS)
        assert [card["name"] for card in cards] == ["0.png", "1.png"] * 2
        assert p_value(cards[0]) == p_value(cards[2])
        assert page.evaluate("document.querySelector('#summary').textContent").startswith("4 judged, ")
        assert "waiting" not in page.evaluate("document.querySelector('#summary').textContent")


def test_pictures_show_what_they_are_given(small_page: Path, tmp_path: Path) -> None:
    two, black, brightest = "{channels: 3, height: 1, width: 2}", [0, 0, 4, 255], [252, 255, 164, 255]
    cases = (
        (f"drawPixels([255, 0, 0, 200, 9, 9], {two}, '')", [255, 0, 9, 255, 0, 200, 9, 255]),
        ("drawPixels([7, 200], {channels: 1, height: 2, width: 1}, '')", [7, 7, 7, 255, 200, 200, 200, 255]),
        (f"drawValues([-1, 1, -2, 0, NaN, 2], {two}, '')", [0, 0, 0, 255, 255, 128, 255, 255]),
        (f"drawHeat([0, 1], {two}, '')", black + brightest),
        (f"drawHeat([NaN, 9], {two}, '')", brightest * 2),
    )
    with shown(small_page, tmp_path / "profile") as page:
        for call, wanted in cases:
            found = page.evaluate(f"""import("/scripts/pictures.js").then((pictures) => {{
              const canvas = pictures.{call};
              return Array.from(canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data);
            }})""")
            assert found == wanted, call
        size = page.evaluate("""import("/scripts/pictures.js").then(({ drawHeat }) => {
          const canvas = drawHeat(new Float32Array(900 * 300), {height: 300, width: 900}, "");
          return [canvas.width, canvas.height];
        })""")
        assert size == [320, 107]


def test_the_camera_gives_pictures(small_page: Path, tmp_path: Path) -> None:
    with shown(small_page, tmp_path / "profile", *CAMERA) as page:
        page.evaluate("document.querySelector('#open-camera').click()")
        page.wait_for("!document.querySelector('#camera').hidden")
        assert page.evaluate("document.activeElement.id") == "take"
        page.evaluate("document.querySelector('#take').click()")
        page.wait_for("document.querySelectorAll('.card').length === 1")
        (card,) = page.evaluate(CARDS)
        assert card["name"] == "picture 1"
        assert re.search(r"resized from (\d+)x\1$", card["text"], re.MULTILINE), card  # its middle, not stretched
        page.evaluate("document.querySelector('#close-camera').click()")
        assert page.evaluate("document.querySelector('video').srcObject") is None
        assert set(page.complaints) <= OF_CHROMIUM


def test_a_camera_that_is_missing_is_explained(small_page: Path, tmp_path: Path) -> None:
    with shown(small_page, tmp_path / "profile") as page:
        page.evaluate("document.querySelector('#open-camera').click()")
        said = page.wait_for("document.querySelector('#camera-problem').textContent")
        assert re.search("No camera was found|The camera was not allowed", said)


def test_it_fits_every_window_and_is_read_easily(small_page: Path, tmp_path: Path) -> None:
    files = [*unpack_set("digits", tmp_path / "images", 3), tmp_path / f"{'long' * 40}.png"]
    files[-1].touch()
    with shown(small_page, tmp_path / "profile") as page:
        judge(page, files)
        page.evaluate("document.querySelector('details').open = true")
        for width in (320, 390, 1200):
            for dark in (False, True):
                page.show_as(width, 800, dark=dark)
                assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, (width, dark)
                contrasts = page.evaluate(CONTRASTS)
                assert len(contrasts) > 30
                assert min(contrasts)[0] >= 4.5, (min(contrasts), dark)


def press(page: BrowserPage, key: str, number: int, text: str = "") -> None:
    for kind in ("keyDown" if text else "rawKeyDown", "keyUp"):
        page.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=number, text=text)


def test_it_works_by_the_keyboard(small_page: Path, tmp_path: Path) -> None:
    with shown(small_page, tmp_path / "profile") as page:
        judge(page, unpack_set("digits", tmp_path / "images", 1))
        page.evaluate("document.activeElement.blur()")
        reached = []
        for _ in range(4):
            press(page, "Tab", 9)
            reached.append(page.evaluate("document.activeElement.id || document.activeElement.tagName"))
            drawn = "getComputedStyle(document.activeElement.matches('#files') ? "
            drawn += "document.querySelector('#choose') : document.activeElement).outlineStyle"
            assert page.evaluate(drawn) == "solid"
        assert reached == ["files", "open-camera", "SUMMARY", "clear"]
        for kind in ("keyDown", "keyUp"):
            page.call(
                "Input.dispatchKeyEvent", type=kind, key="Enter", code="Enter", windowsVirtualKeyCode=13, text="\r"
            )
        assert page.evaluate("document.querySelectorAll('.card').length") == 0
