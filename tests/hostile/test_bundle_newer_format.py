"""Attack: a manifest of a format that this version does not read."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from diffood.errors import BundleError
from diffood.runtime.bundle.bundle import FORMAT, open_bundle

Rewrite = Callable[[Callable[[dict[str, Any]], object]], None]


@pytest.mark.parametrize("number", [FORMAT + 1, 10**9])
def test_a_newer_format_asks_for_an_upgrade(bundle_copy: Path, rewrite: Rewrite, number: int) -> None:
    rewrite(lambda manifest: manifest.update({"format": number, "engines": ["of a later version"]}))
    with pytest.raises(BundleError, match=f"has format {number}; this diffood reads format {FORMAT}. Upgrade diffood"):
        open_bundle(bundle_copy)


@pytest.mark.parametrize("value", [0, -1, "2", 1.5, [], {}, False, None])
def test_any_other_format_is_refused_as_damage(bundle_copy: Path, rewrite: Rewrite, value: Any) -> None:
    rewrite(lambda manifest: manifest.update({"format": value}))
    with pytest.raises(BundleError, match="is invalid: format"):
        open_bundle(bundle_copy)
