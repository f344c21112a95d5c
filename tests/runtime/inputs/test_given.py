"""Images as Python code gives them: the same pixels as from the file, whatever the kind, or refused in a sentence."""

import io
import itertools
import threading
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from diffood.errors import UsageError
from diffood.runtime.images.decode import DEFAULT_LIMITS, DecodedImage, ImageLimits, ImageShape, load_image
from diffood.runtime.inputs.given import list_given

GREY, RGB = ImageShape(1, 28, 28), ImageShape(3, 16, 24)
MODES = ["L", "LA", "RGB", "RGBA", "1", "I;16"]


def loaded(given: Any, shape: ImageShape = RGB) -> list[DecodedImage]:
    """All images given, converted for a model."""
    return [item.load(shape, DEFAULT_LIMITS) for item in list_given(given, shape)]


def pixels_of(given: Any, shape: ImageShape = RGB) -> npt.NDArray[np.uint8]:
    """Pixels uint8 [N, C, H, W] of all images given; none may be refused."""
    found = loaded(given, shape)
    assert not [one.error for one in found if one.error]
    return np.stack([one.pixels for one in found if one.pixels is not None])


def ids(given: Any, shape: ImageShape = RGB) -> list[str]:
    return [item.id for item in list_given(given, shape)]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A PNG file of 40x30 noise, smooth enough to survive a resize, in every mode."""
    folder = tmp_path_factory.mktemp("given")
    coarse = np.random.default_rng(0).integers(0, 256, (6, 8, 4), np.uint8)
    picture = Image.fromarray(coarse).resize((40, 30), Image.Resampling.BICUBIC)
    paths = {}
    for mode in MODES:
        paths[mode] = folder / f"{mode.replace(';', '')}.png"
        if mode == "I;16":
            values = np.asarray(picture.convert("L")).astype(np.uint16) * 250 + 3
            Image.fromarray(values).save(paths[mode])
        else:
            picture.convert(mode).save(paths[mode])
    return paths


KINDS: dict[str, Callable[[Path], Any]] = {
    "text": str,
    "path": Path,
    "bytes": Path.read_bytes,
    "bytearray": lambda path: bytearray(path.read_bytes()),
    "memoryview": lambda path: memoryview(path.read_bytes()),
    "buffer": lambda path: io.BytesIO(path.read_bytes()),
    "picture": Image.open,
    "loaded picture": lambda path: Image.open(path).copy(),
    "array": lambda path: np.asarray(Image.open(path)),
    "list of one": lambda path: [path],
    "generator": lambda path: (each for each in [path]),
    "array of paths": lambda path: np.array([str(path)]),
    "array of objects": lambda path: np.array([path, None], object)[:1],
    "stack": lambda path: channels_last(path)[None],
    "planes": lambda path: np.moveaxis(channels_last(path), -1, 0),
    "stack of planes": lambda path: np.moveaxis(channels_last(path), -1, 0)[None],
    "every second pixel": lambda path: channels_last(path).repeat(2, axis=0).repeat(2, axis=1)[::2, ::2],
    "other order of memory": lambda path: np.asfortranarray(channels_last(path)),
}


def channels_last(path: Path) -> npt.NDArray[Any]:
    """The pixels of a file, [H, W, C]."""
    array = np.asarray(Image.open(path))
    return array if array.ndim == 3 else array[..., None]


def test_every_kind_gives_the_pixels_of_the_file(files: dict[str, Path], subtests: pytest.Subtests) -> None:
    for mode, shape in itertools.product(MODES, (GREY, RGB)):
        expected = load_image(files[mode], shape)
        assert expected.pixels is not None
        assert "resized from 40x30" in expected.note
        for kind, make in KINDS.items():
            with subtests.test(mode=mode, shape=shape, kind=kind):
                [found] = loaded(make(files[mode]), shape)
                assert found.error == ""
                np.testing.assert_array_equal(found.pixels, expected.pixels)
                assert found.note == expected.note or mode == "I;16"


def test_a_tensor_is_an_array(files: dict[str, Path]) -> None:
    torch = pytest.importorskip("torch")
    expected = load_image(files["RGB"], RGB).pixels
    tensor = torch.from_numpy(np.array(Image.open(files["RGB"])))
    for form in (tensor, tensor.permute(2, 0, 1), tensor[None], [tensor]):
        np.testing.assert_array_equal(pixels_of(form)[0], expected)
    with pytest.raises(
        UsageError, match=r"The image \(float32 \[30, 40, 3\], values 0.* to 1\) cannot be used: .*255 \*"
    ):
        loaded((tensor / 255.0).requires_grad_())
    with pytest.raises(UsageError, match=r"bfloat16 \[30, 40, 3\]\) cannot become an array .*give uint8 pixels"):
        loaded(tensor.to(torch.bfloat16))


def test_iterables_may_mix_kinds_and_keep_their_order(files: dict[str, Path], tmp_path: Path) -> None:
    path, array = files["RGB"], np.array(Image.open(files["RGBA"]))
    (tmp_path / "folder").mkdir()
    for name in ("b.png", "a.png"):
        (tmp_path / "folder" / name).write_bytes(path.read_bytes())
    given = [array, str(path), path.read_bytes(), np.stack([array, array]), tmp_path / "folder", Image.open(path)]
    assert ids(given) == ["0", path.as_posix(), "2", "3", "4", "a.png", "b.png", "7"]
    plain, alpha = (load_image(files[mode], RGB).pixels for mode in ("RGB", "RGBA"))
    expected = [alpha, plain, plain, alpha, alpha, plain, plain, plain]
    for form in (given, tuple(given), iter(given), dict(enumerate(given)).values()):
        np.testing.assert_array_equal(pixels_of(form), np.stack(expected))
    assert ids([path, path]) == [path.as_posix()] * 2  # nothing is left out
    assert ids([]) == ids(np.empty((0, 5, 5, 3), np.uint8)) == ids(np.empty((0, 28, 28), np.uint8), GREY) == []


def test_one_path_is_what_the_command_line_takes(
    files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("images/x/b.png", "images/a.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(files["RGB"].read_bytes())
    assert ids(tmp_path / "images") == ids(str(tmp_path / "images")) == ["a.png", "x/b.png"]
    assert ids(f"{tmp_path}/images/*.png") == [f"{tmp_path}/images/a.png"]
    (tmp_path / "images.txt").write_text("images/a.png\nimages/a.png\nimages/x/b.png\n")
    assert ids(f"@{tmp_path}/images.txt") == ["images/a.png", "images/x/b.png"]
    monkeypatch.chdir(tmp_path)
    Path("-").write_bytes(files["RGB"].read_bytes())
    np.testing.assert_array_equal(pixels_of("-")[0], load_image(files["RGB"], RGB).pixels)  # no standard input
    with pytest.raises(UsageError, match="No such file or folder: imagse"):
        list_given("imagse", RGB)


def test_bad_bytes_and_missing_files_among_others_are_refused_with_a_reason(files: dict[str, Path]) -> None:
    animated, frames = io.BytesIO(), [Image.new("L", (9, 9), value) for value in (10, 200)]
    frames[0].save(animated, "GIF", save_all=True, append_images=frames[1:])
    truncated = files["RGB"].read_bytes()[:200]
    given = [
        "nowhere.png",
        b"",
        b"not an image",
        truncated,
        Image.open(io.BytesIO(truncated)),
        Image.open(animated),
        Image.new("F", (4, 4)),
        Image.new("I", (4, 4)),
        files["RGB"],
    ]
    reasons = [
        "cannot be read",
        "empty",
        "not an image",
        "damaged",
        "damaged",
        "several frames",
        "floating",
        "32-bit",
        "",
    ]
    found = loaded(given)
    for one, reason in zip(found, reasons, strict=True):
        assert reason in one.error
        assert (one.pixels is None) == bool(reason)
    small = ImageLimits(max_pixels=100)
    [large] = [item.load(RGB, small) for item in list_given(Image.new("L", (11, 10)), RGB)]
    assert "11x10 = 110 pixels and the limit is 100" in large.error


RGB_IMAGE = np.zeros((30, 40, 3))
REFUSED: list[tuple[Any, str]] = [
    (
        RGB_IMAGE + 0.5,
        r"float64 \[30, 40, 3\], values 0.5 to 0.5\) .* if 1 is white, give np.round\(255 \* array\)",
    ),
    (np.float32([[-1, 1]]), r"float32 \[1, 2\], values -1 to 1\) .* give np.round\(127.5 \* \(array \+ 1\)\)"),
    (np.float16([[3, 200]]), r"float16 \[1, 2\], values 3 to 200\) .* np.round\(array\).astype\(np.uint8\)"),
    (np.float32([[-2.1, 2.6]]), r"values -2.1 to 2.6\) .* undo the normalisation"),
    (np.array([[0, np.nan]]), r"float64 \[1, 2\], values nan to nan\) .* replace the values that are not finite"),
    (np.int64([[0, 255]]), r"int64 \[1, 2\], values 0 to 255\) .* array.astype\(np.uint8\) keeps these values"),
    (np.uint16([[0, 255]]), r"uint16 \[1, 2\], values 0 to 255\) .* array.astype\(np.uint8\) keeps these values"),
    (np.int32([[-1, 300]]), r"int32 \[1, 2\], values -1 to 300\) .* scale the values to that range"),
    (np.array([[1j]]), r"complex128 \[1, 1\]\) cannot be used"),
    (np.array([["a"]]), r"<U1 \[1, 1\]\) cannot be used"),
    (np.zeros((40, 28, 28), np.uint8), r"uint8 \[40, 28, 28\], values 0 to 0\) is not an image: give \[H, W\]"),
    (np.zeros((2, 5, 28, 28), np.uint8), r"uint8 \[2, 5, 28, 28\].* is not an image"),
    (np.zeros((1, 1, 1, 28, 28), np.uint8), r"uint8 \[1, 1, 1, 28, 28\].* is not an image"),
    (np.uint8(3), r"uint8 \[\].* is not an image"),
    (np.frombuffer(b"\x89PNG", np.uint8), r"uint8 \[4\].* array.tobytes\(\) if this is an encoded file"),
    (np.zeros((0, 7), np.uint8), r"uint8 \[0, 7\]\) has no pixels"),
    (np.zeros((2, 0, 7, 3), np.uint8), r"uint8 \[2, 0, 7, 3\]\) has no pixels"),
    (7, "The image is an object of type int; give a path, bytes"),
    (None, "The image is an object of type NoneType; give a path"),
    ({"a.png": 1}, "The image is an object of type dict; give"),
    ([[1, 2], [3, 4]], "Image 0 is an object of type list; give a path"),
    (["a.png", None], "Image 1 is an object of type NoneType"),
    ([np.zeros((4, 4), np.uint8), RGB_IMAGE], r"Image 1 \(float64 \[30, 40, 3\]"),
    (io.StringIO("text"), "is a file that gives str, not bytes; open it with mode 'rb'"),
]


def test_what_is_no_image_is_refused_in_one_sentence(subtests: pytest.Subtests) -> None:
    for given, message in REFUSED:
        with subtests.test(message=message):
            with pytest.raises(UsageError, match=message) as refusal:
                loaded(given)
            assert str(refusal.value).count(". ") == 0
            assert str(refusal.value).endswith(".")


def test_the_last_axis_holds_channels_if_it_can(subtests: pytest.Subtests) -> None:
    ramp = np.arange(3 * 5 * 3, dtype=np.uint8).reshape(3, 5, 3)
    shape = ImageShape(3, 3, 5)
    np.testing.assert_array_equal(pixels_of(ramp, shape)[0], ramp.transpose(2, 0, 1))
    square = np.arange(27, dtype=np.uint8).reshape(3, 3, 3)
    np.testing.assert_array_equal(pixels_of(square, ImageShape(3, 3, 3))[0], square.transpose(2, 0, 1))


def test_three_axes_are_a_stack_where_they_fit_a_grey_model_and_come_alone() -> None:
    stack = np.random.default_rng(0).integers(0, 256, (3, 28, 28), np.uint8)
    for count in (0, 1, 3):
        assert len(ids(stack[:count], GREY)) == count
    np.testing.assert_array_equal(pixels_of(stack, GREY)[:, 0], stack)
    assert len(ids([stack], GREY)) == 1  # one RGB image, its planes first
    assert len(ids(stack, RGB)) == 1
    assert len(ids(stack[:, :20], GREY)) == 1


def test_sixteen_bits_in_colour_are_rounded_as_grey_ones_are() -> None:
    values = np.arange(0, 65536, 257, dtype=np.uint16)[:255].reshape(5, 17, 3)
    found = loaded(values, ImageShape(3, 5, 17))[0]
    np.testing.assert_array_equal(found.pixels, (values // 257).transpose(2, 0, 1))
    assert found.note == "reduced from 16 bits to 8"
    swapped = values.astype(values.dtype.newbyteorder())
    np.testing.assert_array_equal(loaded(swapped, ImageShape(3, 5, 17))[0].pixels, found.pixels)


def test_an_image_of_the_models_own_shape_is_not_touched() -> None:
    image = np.random.default_rng(0).integers(0, 256, (16, 24, 3), np.uint8)
    [found] = loaded(image)
    np.testing.assert_array_equal(found.pixels, image.transpose(2, 0, 1))
    assert found.note == found.sha256 == ""


def test_a_picture_that_threads_share_is_loaded_once(files: dict[str, Path]) -> None:
    expected = load_image(files["RGB"], RGB).pixels
    for _ in range(20):
        picture, start = Image.open(files["RGB"]), threading.Barrier(8)

        def load(_: int, picture: Image.Image = picture, start: threading.Barrier = start) -> Any:
            start.wait()
            return pixels_of(picture)[0]

        with ThreadPoolExecutor(8) as pool:
            for found in pool.map(load, range(8)):
                np.testing.assert_array_equal(found, expected)


def test_a_file_that_is_open_is_read_and_a_closed_one_refused(files: dict[str, Path], tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(files["RGB"], "a.png")
    with (
        zipfile.ZipFile(tmp_path / "a.zip") as archive,
        archive.open("a.png") as member,
        files["RGB"].open("rb") as file,
    ):
        found = pixels_of([member, file])
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], load_image(files["RGB"], RGB).pixels)
    with pytest.raises(UsageError, match="a file that cannot be read"):
        loaded(file)
    with files["RGB"].open() as text, pytest.raises(UsageError, match="a file that cannot be read"):
        loaded(text)
