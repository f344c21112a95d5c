"""Attack: a bank that another classifier gave, or that is no table of features, under hashes that are right."""

import io
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from diffood.runtime.bundle.fusion import pack_bank

Replace = Callable[[bytes], None]


@pytest.mark.parametrize("width", [1, 255, 257, 1024])
def test_a_bank_of_another_number_of_features_is_refused(
    replace_bank: Replace, refusal: Callable[[], str], width: int
) -> None:
    replace_bank(pack_bank(np.ones((30, width), np.float32))[1])
    text = refusal()
    assert f"has {width} features per row, the classifier has 256" in text
    assert "calibrate again" in text


@pytest.mark.parametrize(
    "features",
    [
        np.ones((30, 256), np.float64),
        np.ones((30, 256), np.uint8),
        np.ones((0, 256), np.float16),
        np.ones(256, np.float16),
        np.full((30, 256), np.nan, np.float16),
        np.full((30, 256), np.inf, np.float16),
    ],
    ids=["float64", "uint8", "empty", "one row", "NaN", "infinite"],
)
def test_what_is_no_table_of_features_is_refused(
    replace_bank: Replace, refusal: Callable[[], str], features: npt.NDArray[np.float16]
) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, features=features)
    replace_bank(buffer.getvalue())
    assert "needs finite float16 features [B, D]; calibrate again" in refusal()


@pytest.mark.parametrize("data", [b"", b"PK\x05\x06", b"\x80\x04N.", b"features"])
def test_what_is_no_array_file_is_refused(replace_bank: Replace, refusal: Callable[[], str], data: bytes) -> None:
    replace_bank(data)
    assert "calibrate again" in refusal()
