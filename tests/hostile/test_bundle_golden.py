"""Attack: golden values that are no golden values, in a file of true hash."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from attacks import undone

from diffood.errors import BundleError
from diffood.runtime.bundle.arrays import load_arrays
from diffood.runtime.bundle.bundle import open_bundle
from diffood.runtime.golden import read_golden

Reseal = Callable[[str, bytes], None]
Arrays = dict[str, npt.NDArray[np.generic]]


def test_what_is_not_golden_is_refused(victim: Path, reseal: Reseal, subtests: pytest.Subtests) -> None:
    sound = load_arrays((victim / "golden.npz").read_bytes(), "golden.npz")
    rows = sound["fast.logits"]
    for changed, said in (
        ({"image": sound["image"].astype(np.float32)}, "has no golden images uint8 of 1x28x28"),
        ({"image": sound["image"][:, :, :20]}, "has no golden images uint8 of 1x28x28"),
        ({"image": sound["image"][:0]}, "has no golden images uint8 of 1x28x28"),
        ({"fast.plan": np.array("{")}, "golden.npz is invalid"),
        ({"fast.plan": np.array('{"repeats": 1}')}, "golden.npz is invalid: start_times: Field required"),
        ({"fast.plan": np.array(["\x1b[2J"])}, "golden.npz is invalid"),
        ({"fast.logits": rows.astype("U")}, "'fast.logits' is not float32, a row for each image"),
        ({"fast.logits": rows[:1]}, "'fast.logits' is not float32, a row for each image"),
        ({"fast.logits": rows[0, 0]}, "'fast.logits' is not float32, a row for each image"),
        ({"x\x1b.plan": sound["fast.plan"]}, r"'x\x1b.logits' is not float32, a row for each image"),
    ):
        with subtests.test(said=said), undone(victim):
            data = io.BytesIO()
            np.savez(data, **{**sound, **changed})
            reseal("golden.npz", data.getvalue())
            with pytest.raises(BundleError) as caught:
                read_golden(open_bundle(victim))
            assert said in str(caught.value)
            assert str(caught.value).isprintable()
            assert "xport the bundle again" in str(caught.value)


def test_golden_values_are_read_as_they_were_written(victim: Path) -> None:
    golden, manifest = read_golden(open_bundle(victim)), open_bundle(victim).manifest
    assert {name: run.plan for name, run in golden.runs.items()} == manifest.plans
    assert all((image.min(), image.max()) == (0, 255) for image in golden.image)
    assert golden.runs["reference"].outputs["jump"].shape == (len(golden.image), 4, 3)
