"""What the tests of engine builds share: an order with the usual options, and plans that are built in a second."""

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest

from diffood.export.engines.build import build_engines
from diffood.export.request import EngineBuildRequest
from diffood.runtime.bundle.bundle import open_bundle
from diffood.runtime.bundle.engines import Profile
from diffood.runtime.bundle.writing import add_default_plan
from diffood.runtime.method.plan import CLASSIFIER, FAST, Plan

MISSING = [name for name in ("tensorrt_rtx", "polygraphy") if importlib.util.find_spec(name) is None]
NEEDS_TENSORRT_RTX = pytest.mark.skipif(
    bool(MISSING), reason=f"{' and '.join(MISSING)} not installed: no engine can be built"
)

PROFILE = Profile(smallest=1, usual=8, largest=32)


def build(bundle: Path, *gpus: str, report: Callable[[str], None] = lambda _: None, **changes: object) -> list[Path]:
    """build_engines with what most tests ask for."""
    asked = {"precisions": ("fp32",), "profile": PROFILE, **changes}
    return build_engines(bundle, EngineBuildRequest("tensorrt-rtx", gpus=gpus, **asked), report)  # type: ignore[arg-type]


# Two stages, of which the first classifies and the second denoises once.
TWO_STAGES = FAST.changed({"stages": (0,)})


def set_plan(bundle: Path, plan: Plan = CLASSIFIER) -> None:
    """Make this plan the bundle's default, by the name "small": one of the classifier alone is built in a second."""
    add_default_plan(open_bundle(bundle), "small", plan)
