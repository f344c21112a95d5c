"""What is done to an image before a classifier sees it, against torch's and Pillow's own resizing."""

import itertools
from typing import get_args

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from PIL import Image
from refusals import assert_refused

from diffood.errors import ExportError, UsageError
from diffood.export.sources.classifiers.preprocessing import Filter, Preprocessing, require_usable, resize_matrix
from diffood.export.sources.classifiers.source import ClassifierSource


def apply(preprocessing: Preprocessing, image: np.ndarray) -> np.ndarray:
    """R @ image @ C for images [..., H, W]."""
    matrices = preprocessing.matrices(*image.shape[-2:])
    return image if matrices is None else matrices[0] @ image @ matrices[1]


def test_resizing_equals_torchs_antialiased_one() -> None:
    sizes = (((28, 28), (32, 32)), ((64, 48), (17, 31)), ((33, 20), (33, 41)))
    for kind, (have, make) in itertools.product(("bilinear", "bicubic"), sizes):
        image = torch.rand(2, 3, *have, generator=torch.Generator().manual_seed(0))
        expected = torch.nn.functional.interpolate(image, make, mode=kind, antialias=True).numpy()
        found = apply(Preprocessing(make, filter=kind), image.numpy())  # type: ignore[arg-type]
        assert np.abs(found - expected).max() < 2e-6, (kind, have, make)


def test_resizing_equals_pillows() -> None:
    image = np.random.default_rng(0).random((40, 30), np.float32)
    for kind in get_args(Filter):
        expected = Image.fromarray(image).resize((19, 53), Image.Resampling[kind.upper()])
        found = apply(Preprocessing((53, 19), filter=kind), image)
        assert np.abs(found - np.asarray(expected)).max() < 2e-6, kind


def test_resize_and_centre_crop_equal_torchs_steps() -> None:
    image = torch.rand(1, 3, 40, 60, generator=torch.Generator().manual_seed(0))
    source = Preprocessing((24, 24), resize=(28, 28), keep_ratio=True, filter="bicubic")
    resized = torch.nn.functional.interpolate(image, (28, 42), mode="bicubic", antialias=True)
    expected = resized[:, :, 2:26, 9:33].numpy()
    assert np.abs(apply(source, image.numpy()) - expected).max() < 2e-6


RESIZED = [
    (Preprocessing(), (28, 28), (28, 28)),
    (Preprocessing((224, 224)), (30, 40), (224, 224)),
    (Preprocessing((224, 224), resize=(256, 256), keep_ratio=True), (64, 64), (256, 256)),
    (Preprocessing((224, 224), resize=(256, 256), keep_ratio=True), (30, 40), (256, 341)),
    (Preprocessing((224, 224), resize=(256, 256), keep_ratio=True), (40, 30), (341, 256)),
    (Preprocessing((224, 224), resize=(256, 256)), (40, 30), (256, 256)),
    (Preprocessing((96, 128), resize=(96, 128), keep_ratio=True), (50, 50), (128, 128)),
    (Preprocessing(resize=(32, 32), keep_ratio=True), (64, 80), (32, 40)),
]


def test_the_resized_image_covers_what_is_cut_out() -> None:
    for source, size, resized in RESIZED:
        assert source.resized(*size) == resized, source
        assert apply(source, np.zeros(size, np.float32)).shape == (source.size or resized), source


def test_an_image_of_the_right_size_is_left_alone() -> None:
    assert Preprocessing((32, 32), resize=(32, 32), keep_ratio=True).matrices(32, 32) is None
    assert Preprocessing().matrices(7, 9) is None


def test_every_filter_keeps_a_flat_image_flat() -> None:
    for kind in get_args(Filter):
        for make in (5, 64):
            assert np.abs(resize_matrix(16, make, kind).sum(1) - 1).max() < 1e-6, kind


def test_the_users_values_win_and_a_size_of_theirs_has_no_crop() -> None:
    source = Preprocessing((224, 224), (0.5,), (0.25,), (256, 256), keep_ratio=True, filter="bicubic")
    assert Preprocessing().with_defaults_from(source) == source
    assert Preprocessing(mean=(0.1,)).with_defaults_from(source) == Preprocessing(
        (224, 224), (0.1,), (0.25,), (256, 256), keep_ratio=True, filter="bicubic"
    )
    own = Preprocessing((96, 96)).with_defaults_from(source)
    assert (own.size, own.resize, own.mean, own.filter) == ((96, 96), None, (0.5,), "bicubic")
    assert own.resized(32, 32) == (96, 96)


def test_what_is_done_is_said() -> None:
    source = Preprocessing((224, 224), (0.485, 0.456, 0.406), (0.229,), (256, 256), keep_ratio=True, filter="bicubic")
    assert source.describe(64, 64) == (
        "64x64, resized to 256x256 by bicubic, its centre 224x224 cut out, mean 0.485, 0.456, 0.406, std 0.229"
    )
    assert Preprocessing().describe(28, 28) == "28x28, not normalised"


IMPOSSIBLE = [
    (Preprocessing((10**9, 224)), "1 to 8192 pixels"),
    (Preprocessing((224, 224), resize=(200, 256)), "which is smaller"),
    (Preprocessing(std=(0.0,)), "by which it divides"),
    (Preprocessing(mean=(float("nan"),)), "finite numbers"),
    (Preprocessing(filter="random"), "resizes by 'random'"),  # type: ignore[arg-type]
]


def test_impossible_values_of_a_config_are_refused() -> None:
    assert_refused(ExportError, IMPOSSIBLE, lambda source: require_usable(source, "a config"))


def test_a_mean_or_deviation_of_pixels_in_0_to_255_is_refused_with_the_right_one() -> None:
    imagenet = ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
    cases = [
        (((127.5,), (63.0,)), "--mean 127.5 --std 63 is of pixels in 0..255.*give --mean 0.5 --std 0.2471. "),
        (imagenet, "give --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225. "),
        (((103.939, 116.779, 123.68), None), "give --mean 0.4076,0.458,0.485 --std 0.003922. "),
        (((127.5,), (1.0,)), "give --mean 0.5 --std 0.003922. "),
        (((127.5,), (0.5,)), "give --mean 0.5 --std 0.5. "),
        (((0.485,), (58.4,)), "give --mean 0.485 --std 0.229. "),
        ((None, (255.0,)), "--std 255 is of .*give --mean 0 --std 1. .A classifier .*: --mean 0 --std 0.003922"),
    ]
    assert_refused(UsageError, cases, lambda given: ClassifierSource("net.py:build", None, Preprocessing(None, *given)))
    for given in ((None, None), ((0.5,), (0.5,)), ((0.0,), (1 / 255,)), ((-1.0,), (1.0,)), ((1.0,), (1.0,))):
        assert ClassifierSource("net.py:build", None, Preprocessing(None, *given)).preprocessing.mean == given[0]
