"""Attack: one bit of one file of the bundle is flipped, first, in the middle and last."""

import json
from pathlib import Path

import pytest

from diffood import zoo
from diffood.errors import BundleError
from diffood.runtime.bundle.bundle import open_bundle

FILES = sorted(json.loads((zoo.BUNDLE / "manifest.json").read_bytes())["files"])


@pytest.mark.parametrize("place", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("name", FILES)
def test_a_flipped_byte_is_refused_by_name(bundle_copy: Path, name: str, place: float) -> None:
    data = bytearray((bundle_copy / name).read_bytes())
    data[int(place * (len(data) - 1))] ^= 1
    (bundle_copy / name).write_bytes(data)
    with pytest.raises(BundleError, match=rf"{name} was changed after export.*copy the bundle again or export it anew"):
        open_bundle(bundle_copy)


@pytest.mark.parametrize("name", FILES)
def test_a_byte_flipped_after_opening_is_refused_when_read(bundle_copy: Path, name: str) -> None:
    bundle = open_bundle(bundle_copy)
    data = (bundle_copy / name).read_bytes()
    (bundle_copy / name).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(BundleError, match=f"{name} was changed after export"):
        bundle.read(name)
