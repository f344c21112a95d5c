"""A manifest of a format that this version does not read: of a later one, an earlier one, or none."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from attacks import undone

from diffood.errors import BundleError
from diffood.runtime.bundle.bundle import FORMAT, open_bundle

Rewrite = Callable[[Callable[[dict[str, Any]], object]], None]


def test_a_newer_format_asks_for_an_upgrade(victim: Path, rewrite: Rewrite, subtests: pytest.Subtests) -> None:
    for number in [FORMAT + 1, 10**9]:
        with subtests.test(number=number), undone(victim):
            rewrite(lambda manifest: manifest.update({"format": number, "engines": ["of a later version"]}))
            with pytest.raises(
                BundleError, match=f"has format {number}; this diffood reads format {FORMAT}. Upgrade diffood"
            ):
                open_bundle(victim)


def test_an_older_format_asks_for_an_export_and_a_calibration(victim: Path) -> None:
    for number in [1, 2]:  # neither had a hash of itself
        (victim / "manifest.json").write_text(json.dumps({"format": number, "lanes": ["of an earlier version"]}))
        expected = rf"format {number}, of an earlier diffood: export .* calibrate it again"
        with pytest.raises(BundleError, match=expected) as caught:
            open_bundle(victim)
        assert str(caught.value).count(". ") == 0  # one sentence


def test_any_other_format_is_refused_as_damage(victim: Path, rewrite: Rewrite, subtests: pytest.Subtests) -> None:
    for value in [0, -1, "2", 1.5, [], {}, False, None]:
        with subtests.test(value=value), undone(victim):
            rewrite(lambda manifest: manifest.update({"format": value}))
            with pytest.raises(BundleError, match="is invalid: format"):
                open_bundle(victim)
