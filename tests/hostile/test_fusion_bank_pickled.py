"""Attack: a bank that carries a pickle, which would run code when loaded, under hashes that are right."""

import io
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np


class Payload:
    """Creates a file when unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.target,)


def test_an_object_array_is_refused_and_not_executed(
    bank: Path, replace_bank: Callable[[bytes], None], refusal: Callable[[], str], tmp_path: Path
) -> None:
    target, data = tmp_path / "executed", io.BytesIO()
    np.savez(data, features=np.array([[Payload(target)]], dtype=object))
    replace_bank(data.getvalue())
    text = refusal()
    assert f"{bank.name} is not a readable array file" in text
    assert text.endswith("calibrate again.")
    assert not target.exists()
    with np.load(bank, allow_pickle=True) as archive:
        archive["features"]
    assert target.exists(), "the attack itself does not work, so this test proves nothing"


def test_a_bare_pickle_is_refused_and_not_executed(
    replace_bank: Callable[[bytes], None], refusal: Callable[[], str], tmp_path: Path
) -> None:
    replace_bank(pickle.dumps(Payload(tmp_path / "executed")))
    assert "is not a readable array file" in refusal()
    assert not (tmp_path / "executed").exists()
