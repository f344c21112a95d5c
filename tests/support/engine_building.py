"""What the tests of engine builds share: an order with the usual options, and bundles changed with true hashes."""

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest
from halved_graphs import reseal

from diffood.export.engines.build import build_engines
from diffood.export.request import EngineBuildRequest
from diffood.runtime.bundle.engines import Profile

MISSING = [name for name in ("tensorrt_rtx", "polygraphy") if importlib.util.find_spec(name) is None]
NEEDS_TENSORRT_RTX = pytest.mark.skipif(
    bool(MISSING), reason=f"{' and '.join(MISSING)} not installed: no engine can be built"
)

PROFILE = Profile(smallest=1, usual=8, largest=32)


def build(bundle: Path, *gpus: str, report: Callable[[str], None] = lambda _: None, **changes: object) -> list[Path]:
    """build_engines with what most tests ask for."""
    asked = {"precisions": ("fp32",), "profile": PROFILE, **changes}
    return build_engines(bundle, EngineBuildRequest("tensorrt-rtx", gpus=gpus, **asked), report)  # type: ignore[arg-type]


def keep_graphs(bundle: Path, *roles: str) -> None:
    """Drop the other graphs from a bundle's manifest, for builds of half a second."""

    def change(manifest: dict) -> None:
        manifest["graphs"] = [graph for graph in manifest["graphs"] if graph["role"] in roles]

    reseal(bundle, change)
