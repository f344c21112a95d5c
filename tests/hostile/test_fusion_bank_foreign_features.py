"""Attack: a bank that another classifier gave, or that is none, under hashes that are right."""

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
            replace_bank(pack_bank({"margin": {"mean": np.ones(width, np.float32)}})[1])
            text = refusal()
            assert f"has {width} values for the witness margin, and the models give 192" in text
            assert "Calibrate again" in text


def test_what_is_no_mean_of_features_is_refused(
    fused: Path, replace_bank: Replace, refusal: Callable[[], str], subtests: pytest.Subtests
) -> None:
    for case, features in {
        "float64": np.ones(192, np.float64),
        "uint8": np.ones(192, np.uint8),
        "empty": np.ones(0, np.float32),
        "rows": np.ones((30, 192), np.float32),
        "NaN": np.full(192, np.nan, np.float32),
        "infinite": np.full(192, np.inf, np.float32),
    }.items():
        with subtests.test(case=case), undone(fused):
            buffer = io.BytesIO()
            np.savez(buffer, **{"margin.mean": features})
            replace_bank(buffer.getvalue())
            assert "needs finite float32 arrays margin.mean [D]; calibrate again" in refusal()


def test_what_is_no_array_file_is_refused(
    fused: Path, replace_bank: Replace, refusal: Callable[[], str], subtests: pytest.Subtests
) -> None:
    for data in [b"", b"PK\x05\x06", b"\x80\x04N.", b"features"]:
        with subtests.test(data=data), undone(fused):
            replace_bank(data)
            assert "calibrate again" in refusal()
