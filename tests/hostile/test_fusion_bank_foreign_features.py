"""Attack: a bank that another classifier gave, or that is no table of features, under hashes that are right."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from attacks import undone

from diffood.runtime.bundle.fusion import pack_bank

Replace = Callable[[bytes], None]


def test_a_bank_of_another_number_of_features_is_refused(
    fused: Path, replace_bank: Replace, refusal: Callable[[], str], subtests: pytest.Subtests
) -> None:
    for width in [1, 191, 193, 1024]:
        with subtests.test(width=width), undone(fused):
            replace_bank(pack_bank(np.ones((30, width), np.float32))[1])
            text = refusal()
            assert f"has {width} features per row, the classifier has 192" in text
            assert "calibrate again" in text


def test_what_is_no_table_of_features_is_refused(
    fused: Path, replace_bank: Replace, refusal: Callable[[], str], subtests: pytest.Subtests
) -> None:
    for case, features in {
        "float64": np.ones((30, 192), np.float64),
        "uint8": np.ones((30, 192), np.uint8),
        "empty": np.ones((0, 192), np.float16),
        "one row": np.ones(192, np.float16),
        "NaN": np.full((30, 192), np.nan, np.float16),
        "infinite": np.full((30, 192), np.inf, np.float16),
    }.items():
        with subtests.test(case=case), undone(fused):
            buffer = io.BytesIO()
            np.savez(buffer, features=features)
            replace_bank(buffer.getvalue())
            assert "needs finite float16 features [B, D]; calibrate again" in refusal()


def test_what_is_no_array_file_is_refused(
    fused: Path, replace_bank: Replace, refusal: Callable[[], str], subtests: pytest.Subtests
) -> None:
    for data in [b"", b"PK\x05\x06", b"\x80\x04N.", b"features"]:
        with subtests.test(data=data), undone(fused):
            replace_bank(data)
            assert "calibrate again" in refusal()
