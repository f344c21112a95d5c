"""Attack: an array file that carries a pickle, which would run code when loaded."""

import io
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from diffood.errors import BundleError
from diffood.runtime.bundle.arrays import load_arrays
from diffood.runtime.bundle.bundle import open_bundle

Reseal = Callable[[str, bytes], None]


class Payload:
    """Creates a file when unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.target,)


def test_an_object_array_is_refused_and_not_executed(victim: Path, tmp_path: Path, reseal: Reseal) -> None:
    target = tmp_path / "executed"
    data = io.BytesIO()
    np.savez(data, alpha_bar=np.array([Payload(target)], dtype=object))
    reseal("noise_levels.npz", data.getvalue())
    with pytest.raises(BundleError, match=r"noise_levels\.npz is not a readable array file"):
        open_bundle(victim)
    assert not target.exists()
    with np.load(victim / "noise_levels.npz", allow_pickle=True) as archive:
        archive["alpha_bar"]
    assert target.exists(), "the attack itself does not work, so this test proves nothing"


def test_a_bare_pickle_is_refused_and_not_executed(victim: Path, tmp_path: Path, reseal: Reseal) -> None:
    target = tmp_path / "executed"
    reseal("noise_levels.npz", pickle.dumps(Payload(target)))
    with pytest.raises(BundleError, match=r"noise_levels\.npz is not a readable array file"):
        open_bundle(victim)
    assert not target.exists()


def test_golden_values_are_read_by_the_same_rule(tmp_path: Path) -> None:
    target = tmp_path / "executed"
    data = io.BytesIO()
    np.savez(data, fine=np.zeros(2), bad=np.array([Payload(target)], dtype=object))
    with pytest.raises(BundleError, match="golden is not a readable array file"):
        load_arrays(data.getvalue(), "golden")
    assert not target.exists()
