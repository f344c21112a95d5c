"""Fixtures of the attacks on bundles: an attacker who can also correct the manifest's hashes."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Reseal = Callable[[str, bytes], None]
Rewrite = Callable[[Callable[[dict[str, Any]], object]], None]


@pytest.fixture
def rewrite(bundle_copy: Path) -> Rewrite:
    """Let a function change the parsed manifest of `bundle_copy` and write it back."""

    def apply(change: Callable[[dict[str, Any]], object]) -> None:
        path = bundle_copy / "manifest.json"
        manifest = json.loads(path.read_bytes())
        change(manifest)
        path.write_text(json.dumps(manifest))

    return apply


@pytest.fixture
def reseal(bundle_copy: Path, rewrite: Rewrite) -> Reseal:
    """Replace a file of `bundle_copy` and give the manifest its new hash and size."""

    def replace(name: str, data: bytes) -> None:
        (bundle_copy / name).write_bytes(data)
        entry = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
        rewrite(lambda manifest: manifest["files"].update({name: entry}))

    return replace
