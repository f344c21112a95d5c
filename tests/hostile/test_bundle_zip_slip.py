"""Attack: members of an array file named like paths out of the bundle (zip-slip)."""

import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from attacks import undone

from diffood.errors import BundleError
from diffood.runtime.bundle.bundle import open_bundle

Reseal = Callable[[str, bytes], None]


def test_members_named_like_paths_are_never_written(victim: Path, reseal: Reseal, subtests: pytest.Subtests) -> None:
    for name in ["../evil.npy", "../../evil.npy", "/tmp/diffood-evil.npy", "..\\evil.npy"]:
        with subtests.test(name=name), undone(victim):
            array = io.BytesIO()
            np.save(array, np.linspace(0.9, 0.1, 10))
            data = io.BytesIO()
            with zipfile.ZipFile(data, "w") as archive:
                archive.writestr(name, array.getvalue())
            reseal("noise_levels.npz", data.getvalue())
            before = sorted(victim.parent.rglob("*"))
            with pytest.raises(BundleError, match="named alpha_bar"):
                open_bundle(victim)
            assert sorted(victim.parent.rglob("*")) == before
            assert not Path("/tmp/diffood-evil.npy").exists()
