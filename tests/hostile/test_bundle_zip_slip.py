"""Attack: members of an array file named like paths out of the bundle (zip-slip)."""

import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from diffood.errors import BundleError
from diffood.runtime.bundle.bundle import open_bundle

Reseal = Callable[[str, bytes], None]


@pytest.mark.parametrize("name", ["../evil.npy", "../../evil.npy", "/tmp/diffood-evil.npy", "..\\evil.npy"])
def test_members_named_like_paths_are_never_written(bundle_copy: Path, reseal: Reseal, name: str) -> None:
    array = io.BytesIO()
    np.save(array, np.linspace(0.9, 0.1, 10))
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr(name, array.getvalue())
    reseal("noise_levels.npz", data.getvalue())
    before = sorted(bundle_copy.parent.rglob("*"))
    with pytest.raises(BundleError, match="named alpha_bar"):
        open_bundle(bundle_copy)
    assert sorted(bundle_copy.parent.rglob("*")) == before
    assert not Path("/tmp/diffood-evil.npy").exists()
