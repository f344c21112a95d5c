"""Images held in memory as encoded bytes to rows, as a server gets them: one batch at a time, nothing of transport."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from diffood.runtime.decision import Rule
from diffood.runtime.detector import Detector
from diffood.runtime.images import DEFAULT_LIMITS, Limits, Loaded, load_bytes
from diffood.runtime.serving.decoding import THREADS
from diffood.runtime.serving.pipeline import Outcome, make_row
from diffood.runtime.serving.rows import Row
from diffood.runtime.serving.sources import Source

NAMELESS = Source("", Path())


def score_encoded(
    detector: Detector, rule: Rule, images: Sequence[bytes], limits: Limits = DEFAULT_LIMITS
) -> list[Row]:
    """A row for each image file given as its bytes, in their order; what cannot be used becomes a rejected row.

    Each row is that of `serve_batch` on a file of these bytes, but for its id, which is "". All are held at once.
    """
    shape = detector.bundle.manifest.image

    def load(data: bytes) -> Loaded:
        return load_bytes(data, shape, limits)

    with ThreadPoolExecutor(THREADS) as pool:
        loaded = list(pool.map(load, images))
    results = dict(detector.stream((index, item.x) for index, item in enumerate(loaded) if item.x is not None))
    return [make_row(Outcome(NAMELESS, item, results.get(index)), rule, detector) for index, item in enumerate(loaded)]
