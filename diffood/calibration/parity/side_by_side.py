"""Scores the same files with several detectors, in turns, for the parity gate to compare; judges nothing."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from diffood.calibration.parity.gate import Run
from diffood.calibration.scored_files import SetAside
from diffood.runtime.detector import Detector
from diffood.runtime.images.conversions import count_kinds
from diffood.runtime.images.decode import DEFAULT_LIMITS
from diffood.runtime.inputs.items import Item
from diffood.runtime.progress import Progress
from diffood.runtime.results import Scores

CHUNK_BATCHES = 4  # batches decoded at a time; bounds memory


@dataclass(frozen=True)
class ParityRuns:
    """Runs of several detectors over the same files.

    Attributes:
        runs: In the order of the detectors.
        set_aside: Files that could not be used, as (id, reason).
        images: Number of usable files by set.
        conversions: By set, number of files by kind of change while they were read.

    """

    runs: tuple[Run, ...]
    set_aside: SetAside
    images: dict[str, int]
    conversions: dict[str, Counter[str]]


def score_side_by_side(
    detectors: Sequence[Detector], sets: Mapping[str, Sequence[Item]], progress: Progress | None = None
) -> ParityRuns:
    """Score every file with every detector, alternating by chunks so that a change of load affects all alike.

    Speeds count the detectors alone, without decoding.
    """
    shape, batch = detectors[0].bundle.manifest.image, detectors[0].session.batch
    found: list[dict[str, list[Scores]]] = [{name: [] for name in sets} for _ in detectors]
    seconds, set_aside = [0.0] * len(detectors), []
    images, conversions = dict.fromkeys(sets, 0), {name: Counter[str]() for name in sets}
    for name, sources in sets.items():
        for start in range(0, len(sources), CHUNK_BATCHES * batch):
            chunk = sources[start : start + CHUNK_BATCHES * batch]
            loaded = [(source, source.load(shape, DEFAULT_LIMITS)) for source in chunk]
            set_aside += [(source.id, item.error) for source, item in loaded if item.pixels is None]
            usable = [item.pixels for _, item in loaded if item.pixels is not None]
            conversions[name] += count_kinds(item.note for _, item in loaded)
            for index, detector in enumerate(detectors if usable else ()):
                began = time.perf_counter()
                found[index][name].append(detector.score_pixels(np.stack(usable)))
                seconds[index] += time.perf_counter() - began
            images[name] += len(usable)
            if progress:
                progress(len(chunk))
    runs = [
        _run(detector, parts, sum(images.values()) / spent if spent else 0.0)
        for detector, parts, spent in zip(detectors, found, seconds, strict=True)
    ]
    return ParityRuns(tuple(runs), tuple(set_aside), images, conversions)


def _run(detector: Detector, parts: Mapping[str, Sequence[Scores]], images_per_second: float) -> Run:
    """Join the scores of all chunks by set."""
    return Run(
        detector.fingerprint,
        {name: np.concatenate([np.empty(0), *(part.score for part in chunks)]) for name, chunks in parts.items()},
        {
            name: np.concatenate([np.empty(0, np.int64), *(part.predicted for part in chunks)])
            for name, chunks in parts.items()
        },
        images_per_second,
    )
