"""How each record of a bundle is read, for tests that change all of them."""

from collections.abc import Callable

from diffood.runtime.bundle.bundle import Bundle, open_bundle
from diffood.runtime.bundle.calibration import load_calibration
from diffood.runtime.bundle.detectors import load_detectors
from diffood.runtime.bundle.engines import list_engines
from diffood.runtime.bundle.parity import load_parity
from diffood.runtime.bundle.tuning import load_measured, load_tuned

Reader = Callable[[Bundle], object]
READERS: dict[str, Reader] = {
    "manifest.json": lambda bundle: open_bundle(bundle.path).manifest,
    "calibration.json": load_calibration,
    "detector.json": load_detectors,
    "parity.json": load_parity,
    "tuning.json": lambda bundle: (load_tuned(bundle), load_measured(bundle)),
    "engines/*/engine.json": lambda bundle: [engine.record for engine in list_engines(bundle)],
}
