"""The page in headless Chromium: Python's verdicts, nothing asked of anybody, and a page that people can use.

Skipped where Chromium or onnxruntime-web cannot be had.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chromium import CHROMIUM, WEBGPU, serve_folder
from judging_page import OF_CHROMIUM, STATUS, judge, p_value, shown
from outside_weights import move_outside
from PIL import Image
from web_pages import calibrate_cheaply

from diffood.calibration.calibrate import Calibrated
from diffood.runtime.decision import DecisionRule
from diffood.runtime.detector import Detector
from diffood.runtime.images.decode import REDUCING_GAP, load_image
from diffood.runtime.method.plan import CLASSIFIER
from diffood.serving.web.site import write_page
from diffood.zoo.images import SETS, unpack_set

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine"),
]


def decide(detector: Detector, files: list[Path]) -> tuple[list[float], list[bool], list[str]]:
    """Python's p-values, verdicts and notes of what was changed, of files."""
    read = [load_image(file, detector.bundle.manifest.image) for file in files]
    scores = detector.score_pixels(np.stack([image.pixels for image in read]))
    decisions = DecisionRule.of(detector.calibration()).decide(scores.score, scores.predicted)
    return decisions.p_values.tolist(), decisions.is_ood.tolist(), [image.note for image in read]


def assert_same_verdicts(cards: list[dict[str, Any]], detector: Detector, files: list[Path]) -> None:
    p_values, is_ood, _ = decide(detector, files)
    assert [p_value(card) for card in cards] == pytest.approx(p_values, abs=1e-4)
    assert ["⚠ out-of-distribution" in card["text"] for card in cards] == is_ood


def test_two_hundred_images_get_pythons_verdicts(zoo_page: Path, calibrated: Calibrated, tmp_path: Path) -> None:
    files = [
        file
        for name in SETS
        if name != "fashion-validation"
        for file in unpack_set(name, tmp_path / "images" / name, 34)
    ][:200]
    with shown(zoo_page, tmp_path / "profile") as page:
        assert page.evaluate(STATUS).startswith("Ready: WebAssembly, ")
        cards = judge(page, files)
        assert_same_verdicts(cards, calibrated.detector, files)
        assert [card["name"] for card in cards] == [file.name for file in files]
        assert {card["pictures"] for card in cards} == {3}
        assert not any("resized" in card["text"] or "grey" in card["text"] for card in cards)
        flagged = sum("⚠" in card["text"] for card in cards)
        assert 100 < flagged < 190
        assert page.evaluate("document.querySelector('#summary').textContent").startswith(f"200 judged, {flagged} out")
        assert set(page.complaints) <= OF_CHROMIUM


def write_pictures(folder: Path) -> list[Path]:
    """Colour pictures of other sizes in the formats that browsers read, half of them of clothes."""
    folder.mkdir()
    draw = np.random.default_rng(0)
    rows, columns = np.mgrid[:130, :90]
    waves = 128 + 100 * np.stack([np.sin(columns / 17), np.cos(rows / 23), np.sin((rows + columns) / 31)], -1)
    picture = Image.fromarray((waves + draw.normal(0, 8, waves.shape)).clip(0, 255).astype(np.uint8))
    clothing = Image.open(unpack_set("fashion-test", folder / "clothes", 1)[0])
    turned = Image.Exif()
    turned[274] = 6
    faded = picture.copy()
    faded.putalpha(Image.fromarray(draw.integers(0, 256, (130, 90), np.uint8)))
    pictures: dict[str, tuple[Image.Image, dict[str, Any]]] = {
        "tall.png": (picture.resize((40, 300)), {}),
        "wide.png": (picture.resize((500, 60)), {}),
        "tiny.png": (picture.resize((9, 5)), {}),
        "larger.png": (clothing.resize((200, 200)), {}),
        "colour.png": (clothing.convert("RGB"), {}),
        "palette.png": (picture.quantize(50), {}),
        "faded.png": (faded, {}),
        "faded.webp": (faded, {"lossless": True}),
        "subsampled.jpg": (picture, {"quality": 80}),
        "turned.jpg": (picture, {"exif": turned, "subsampling": 0}),
        "grey.jpg": (clothing, {}),
        "lossy.webp": (picture, {}),
        "picture.bmp": (picture, {}),
        "still.gif": (picture.quantize(50), {}),
    }
    for name, (image, options) in pictures.items():
        image.save(folder / name, **options)
    return [folder / name for name in pictures]


def test_images_that_are_converted_have_pythons_pixels(
    small_page: Path, calibrated_small: Path, tmp_path: Path
) -> None:
    """A score depends on every pixel, by the noise: where p-values are equal, so were the pixels."""
    files = write_pictures(tmp_path / "pictures")
    with shown(small_page, tmp_path / "profile") as page, Detector.open(calibrated_small, batch=8) as detector:
        cards = judge(page, files)
        assert_same_verdicts(cards, detector, files)
        for card, note in zip(cards, decide(detector, files)[2], strict=True):
            for what in ("composited over black", "converted from RGB to grey", "resized from", "and stretched"):
                assert (what in card["text"]) == (what in note) or "RGB" in what, (card, note)
        deep = tmp_path / "deep.png"  # whose values browsers cut and Python rounds
        Image.fromarray(np.full((28, 28), 40000, np.uint16)).save(deep)
        assert "reduced from 16 bits to 8" in judge(page, [deep])[0]["text"]


def test_pictures_are_resized_to_the_bit_as_by_pillow(small_page: Path, tmp_path: Path) -> None:
    draw, major = np.random.default_rng(0), int(json.loads((small_page / "config.json").read_text())["pillow"])
    with shown(small_page, tmp_path / "profile") as page:
        for case in range(60):
            channels, (width, height) = (1, 3)[case % 2], draw.integers(1, 300, 2).tolist()
            size = tuple(draw.integers(1, 60, 2).tolist())
            pixels = draw.integers(0, 256, (height, width, channels), np.uint8)
            wanted = Image.fromarray(pixels.squeeze(2) if channels == 1 else pixels).resize(
                size, Image.Resampling.BICUBIC, reducing_gap=REDUCING_GAP
            )
            picture = {"width": width, "height": height, "channels": channels}
            found = page.evaluate(f"""import("/scripts/resize.js").then(({{ resize }}) => Array.from(resize(
                {{...{json.dumps(picture)}, data: Uint8Array.from({json.dumps(pixels.reshape(-1).tolist())})}},
                {size[0]}, {size[1]}, {major}).data))""")
            assert found == np.asarray(wanted).reshape(-1).tolist(), (picture, size)


def test_what_is_no_image_gets_a_reason_and_names_stay_text(small_page: Path, tmp_path: Path) -> None:
    (good,) = unpack_set("fashion-test", tmp_path / "images", 1)
    hostile = tmp_path / "<img src=x onerror=alert(1)>\u202e\u200b.png"
    shutil.copy(good, hostile)
    (tmp_path / "text.png").write_text("not an image")
    (tmp_path / "empty.png").touch()
    frames = [Image.new("RGB", (28, 28), colour) for colour in ("red", "green", "blue")]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    (tmp_path / "broken.png").write_bytes(good.read_bytes()[:200])
    given = [hostile, *(tmp_path / name for name in ("text.png", "empty.png", "moving.gif", "broken.png")), good]
    with shown(small_page, tmp_path / "profile") as page:
        cards = judge(page, given)
        names = [file.name.replace("\u202e\u200b", "\\u{202e}\\u{200b}") for file in given]
        assert [card["name"] for card in cards] == names
        for card, reason in zip(cards[1:5], ("cannot decode", "is empty", "3 frames", "cannot decode"), strict=True):
            assert "⚠ no verdict" in card["text"]
            assert reason in card["text"]
        assert page.evaluate("document.querySelectorAll('img').length") == 0
        assert "4 without a verdict" in page.evaluate("document.querySelector('#summary').textContent")
        assert p_value(cards[0]) == p_value(cards[5])


def test_neither_the_page_nor_its_engine_can_reach_another_server(small_page: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    with serve_folder(tmp_path / "other") as other, shown(small_page, tmp_path / "profile") as page:
        ask = f"fetch('{other}/', {{mode: 'no-cors'}}).then(() => 'reached', () => 'refused')"
        assert page.evaluate(ask) == "refused"
        assert [page.evaluate(ask, worker) for worker in page.workers] == ["refused"]
        page.requests[:] = [request for request in page.requests if not request.startswith(other)]


def test_an_engine_or_a_browser_that_differs_is_refused(small_page: Path, tmp_path: Path) -> None:
    config = json.loads((small_page / "config.json").read_text())
    model = (small_page / "detector.onnx").read_bytes()
    pixels = (small_page / "checks" / "0.pixels").read_bytes()
    wrong = json.loads(json.dumps(config))
    wrong["checks"][0]["answer"]["score"] += 0.1
    changes = {
        "config.json": (json.dumps(wrong).encode(), "WebAssembly is not used: it gives a check image the score"),
        "detector.onnx": (model[:-1] + bytes([model[-1] ^ 1]), "is not the one that was exported"),
        "checks/0.pixels": (bytes([pixels[0] ^ 1]) + pixels[1:], "changes the pixels of images"),
    }
    for number, (name, (data, reason)) in enumerate(changes.items()):
        copy = Path(shutil.copytree(small_page, tmp_path / f"page{number}"))
        (copy / name).write_bytes(data)
        with shown(copy, tmp_path / f"profile{number}") as page:
            assert reason in page.evaluate(STATUS)
            assert page.evaluate("document.querySelector('#files').disabled")


def test_threads_are_used_where_the_server_allows_them(small_page: Path, tmp_path: Path) -> None:
    with shown(small_page, tmp_path / "profile", isolated=True) as page:
        threads = min(4, page.evaluate("navigator.hardwareConcurrency"))
        assert threads == 1 or f"WebAssembly, {threads} threads" in page.evaluate(STATUS)


def test_webgpu_gives_pythons_verdicts(
    bundle_copy: Path, clothes_folder: Path, real_package: Path, tmp_path: Path
) -> None:
    """Without the UNet, which a GPU that the CPU plays compiles for minutes.

    The small bundle would not do: WebGPU of onnxruntime-web 1.30 gives its classifier wrong logits.
    """
    path = calibrate_cheaply(bundle_copy, clothes_folder, CLASSIFIER)
    write_page(path, tmp_path / "page", real_package)
    files = unpack_set("fashion-test", tmp_path / "clothes", 4) + unpack_set("digits", tmp_path / "digits", 4)
    opened = shown(tmp_path / "page", tmp_path / "profile", *WEBGPU, query="?engine=webgpu")
    with opened as page, Detector.open(path, batch=8) as detector:
        assert page.evaluate(STATUS).startswith("Ready: WebGPU, ")
        assert_same_verdicts(judge(page, files), detector, files)


def test_a_gpu_that_the_cpu_imitates_is_not_used(small_page: Path, tmp_path: Path) -> None:
    with shown(small_page, tmp_path / "profile", *WEBGPU) as page:
        assert page.evaluate("navigator.gpu.requestAdapter().then((adapter) => adapter !== null)")
        assert page.evaluate(STATUS).startswith("Ready: WebAssembly, ")
        assert not [request for request in page.requests if "webgpu" in request]


def test_a_plan_that_denoises_nothing_shows_the_image_alone(
    small_bundle_copy: Path, clothes_folder: Path, real_package: Path, tmp_path: Path
) -> None:
    path = calibrate_cheaply(small_bundle_copy, clothes_folder, CLASSIFIER)
    write_page(path, tmp_path / "page", real_package)
    files = unpack_set("digits", tmp_path / "digits", 2)
    with shown(tmp_path / "page", tmp_path / "profile") as page, Detector.open(path, batch=8) as detector:
        cards = judge(page, files)
        assert_same_verdicts(cards, detector, files)
        assert {card["pictures"] for card in cards} == {1}
        assert "heat map" not in page.evaluate("document.body.textContent")


def test_weights_in_a_file_of_their_own_are_loaded(
    small_bundle_copy: Path, clothes_folder: Path, real_package: Path, tmp_path: Path
) -> None:
    data = move_outside(small_bundle_copy, "step_plain")
    path = calibrate_cheaply(small_bundle_copy, clothes_folder)
    write_page(path, tmp_path / "page", real_package)
    files = unpack_set("digits", tmp_path / "digits", 2)
    with shown(tmp_path / "page", tmp_path / "profile") as page, Detector.open(path, batch=8) as detector:
        assert_same_verdicts(judge(page, files), detector, files)
        assert [request for request in page.requests if request.endswith(f"/{data}")]
