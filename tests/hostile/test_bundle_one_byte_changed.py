"""Attack: one bit of one file of the bundle is flipped, first, in the middle and last."""

import itertools
import json
from pathlib import Path

import pytest
from attacks import undone
from small_models import SMALL_BUNDLE

from diffood.errors import BundleError
from diffood.runtime.bundle.bundle import open_bundle

FILES = sorted(json.loads((SMALL_BUNDLE / "manifest.json").read_bytes())["files"])


def test_a_flipped_byte_is_refused_by_name(victim: Path, subtests: pytest.Subtests) -> None:
    for place, name in itertools.product([0.0, 0.5, 1.0], FILES):
        with subtests.test(place=place, name=name), undone(victim):
            data = bytearray((victim / name).read_bytes())
            data[int(place * (len(data) - 1))] ^= 1
            (victim / name).write_bytes(data)
            with pytest.raises(
                BundleError, match=rf"{name} was changed after export.*copy the bundle again or export it anew"
            ):
                open_bundle(victim)


def test_a_byte_flipped_after_opening_is_refused_when_read(victim: Path, subtests: pytest.Subtests) -> None:
    for name in FILES:
        with subtests.test(name=name), undone(victim):
            bundle = open_bundle(victim)
            data = (victim / name).read_bytes()
            (victim / name).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
            with pytest.raises(BundleError, match=f"{name} was changed after export"):
                bundle.read(name)
