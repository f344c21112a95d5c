"""DiffOOD deployed: calibrated out-of-distribution verdicts from a diffusion model and a classifier."""

import logging
import os
import sys
import warnings
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diffood.runtime.detector import Detector

__version__ = "0.1.0"
logging.getLogger(__name__).addHandler(logging.NullHandler())  # an application chooses what to do with records
__all__ = ["Detector", "__version__"]

if "onnxruntime" in sys.modules and "ORT_DISABLE_TELEMETRY" not in os.environ:
    warnings.warn(
        "onnxruntime was imported before diffood and may report its use to its makers: import diffood first, or set "
        "ORT_DISABLE_TELEMETRY=1.",
        stacklevel=2,
    )
# ONNX Runtime reads this once, when it is imported; child processes inherit it.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"


def __getattr__(name: str) -> Any:
    """Load the engine only when a Detector is asked for, so that `diffood --help` stays quick."""
    if name == "Detector":
        from diffood.runtime.detector import Detector

        return Detector
    raise AttributeError(f"module 'diffood' has no attribute {name!r}")
