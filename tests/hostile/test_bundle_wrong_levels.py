"""Attack: noise levels that no schedule has; coefficients made of them would be NaN or explode."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from attacks import undone

from diffood.errors import BundleError
from diffood.runtime.bundle.arrays import MAX_STEPS
from diffood.runtime.bundle.bundle import open_bundle

Reseal = Callable[[str, bytes], None]

FALLING = np.linspace(0.9999, 0.0001, 1000)


def with_value(index: int, value: float) -> npt.NDArray[np.float64]:
    levels: npt.NDArray[np.float64] = FALLING.copy()
    levels[index] = value
    return levels


WRONG = {
    "rising": FALLING[::-1].copy(),
    "constant": np.full(1000, 0.5),
    "one repeats": with_value(500, FALLING[499]),
    "NaN inside": with_value(500, np.nan),
    "NaN first": with_value(0, np.nan),
    "NaN everywhere": np.full(1000, np.nan),
    "infinite": with_value(0, np.inf),
    "starts at 1": with_value(0, 1.0),
    "ends at 0": with_value(-1, 0.0),
    "ends below 0": with_value(-1, -0.1),
    "float32": FALLING.astype(np.float32),
    "complex": FALLING.astype(np.complex128),
    "integers": np.arange(1000)[::-1].copy(),
    "texts": FALLING.astype(str),
    "other byte order": FALLING.astype(FALLING.dtype.newbyteorder()),
    "a table": FALLING.reshape(10, 100),
    "a number": np.array(0.5),
    "one level": FALLING[:1],
    "none": FALLING[:0],
    "too many": np.linspace(0.9999, 0.0001, MAX_STEPS + 1),
}


def test_wrong_levels_are_refused(victim: Path, reseal: Reseal, subtests: pytest.Subtests) -> None:
    for name, alpha_bar in WRONG.items():
        with subtests.test(name=name), undone(victim):
            data = io.BytesIO()
            np.savez(data, alpha_bar=alpha_bar)
            reseal("noise_levels.npz", data.getvalue())
            with pytest.raises(BundleError, match=r"noise_levels\.npz needs 2 or more float64 noise levels .*Export"):
                open_bundle(victim)


def test_levels_of_another_name_are_refused(victim: Path, reseal: Reseal) -> None:
    data = io.BytesIO()
    np.savez(data, betas=FALLING)
    reseal("noise_levels.npz", data.getvalue())
    with pytest.raises(BundleError, match="named alpha_bar"):
        open_bundle(victim)
