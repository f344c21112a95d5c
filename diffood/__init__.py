"""DiffOOD deployed: calibrated out-of-distribution verdicts from a diffusion model and a classifier."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diffood.runtime.detector import Detector

__version__ = "0.1.0"
__all__ = ["Detector", "__version__"]


def __getattr__(name: str) -> Any:
    """Load the engine only when a Detector is asked for, so that `diffood --help` stays quick."""
    if name == "Detector":
        from diffood.runtime.detector import Detector

        return Detector
    raise AttributeError(f"module 'diffood' has no attribute {name!r}")
