"""Writes what a bundle's own graphs say of a split's images, and scores them by plans that look inside the networks.

Keys are SET/logits, SET/features, SET/inside and SET/snapshot, a row for each image of a set of `split_sets`.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from diffood.calibration.fusing.bank import fit_bank
from diffood.calibration.metrics.intervals import ScoredSets
from diffood.runtime.bundle.bundle import open_bundle
from diffood.runtime.detector import Detector
from diffood.runtime.method.plan import CLASSIFIER, FAST, Plan
from diffood.runtime.method.scoring import Float
from diffood.runtime.method.witnesses.definition import FEATURES, Evidence
from diffood.runtime.method.witnesses.registry import inner_vectors, measurable, measure
from research.datasets import channels_first
from research.left_out.cache import SplitCache
from research.left_out.extract import Arrays, write_arrays
from research.left_out.fusing import fit_in_stages
from research.left_out.sets import split_sets

START = 60  # noise level of the one evaluation; 120 finds 0.6 less of near classes on the splits it was chosen on
SNAPSHOT_PLAN = FAST.changed(
    {"start_times": (START,), "stride": START, "stages": (0,), "witnesses": (*CLASSIFIER.witnesses, "snapshot")}
)
PLANS = {"diffood snapshot": SNAPSHOT_PLAN, "diffood classifier": CLASSIFIER}
"""The second does without any denoising what the first does with one evaluation of half of the images."""


def extract_own(
    bundle: Path, data: Path, without: Sequence[int], output: Path, limit: int | None, threads: int
) -> None:
    """Write what the graphs of a bundle of the split's models say; with a limit, of so many images of each set."""
    detector = Detector.load(open_bundle(bundle), SNAPSHOT_PLAN, batch=64, threads=threads)
    found: Arrays = {}
    for name, stored in split_sets(data, without).items():
        if name == "train":
            continue
        images = channels_first(stored.images[:limit])
        rows = [evidence for _, evidence in detector.observe(enumerate(images))]
        found |= {f"{name}/logits": np.stack([row.logits for row in rows])}
        for vector in (FEATURES, *inner_vectors(SNAPSHOT_PLAN.witnesses)):
            found[f"{name}/{vector}"] = np.stack([row.vectors[vector] for row in rows])
        print(f"{output.name}: {name}, {len(images)} images", flush=True)
    write_arrays(output, found)


def score_own(path: Path) -> dict[str, ScoredSets]:
    """Scores of every set by PLANS, each fitted on the validation images as `calibrate` fits it."""
    cache = SplitCache(path)
    names = dict.fromkeys(key.split("/")[0] for key in cache.keys)
    found = {}
    for plan_name, plan in PLANS.items():
        score = _fit_plan(cache, plan)
        sets = {name: score(name) for name in names if name.startswith(("near-", "far-"))}
        found[plan_name] = ScoredSets(score("test"), sets)
    return found


def _evidence(cache: SplitCache, name: str) -> Evidence:
    logits = cache[f"{name}/logits"]
    inner = {vector: cache[f"{name}/{vector}"] for vector in inner_vectors(SNAPSHOT_PLAN.witnesses)}
    count = len(logits)
    features, none = cache[f"{name}/{FEATURES}"], np.zeros((count, 0), np.uint8)
    return Evidence(none, logits, features, np.ones(count, bool), repeats=1, inner=inner)


def _fit_plan(cache: SplitCache, plan: Plan) -> Callable[[str], Float]:
    fit = _evidence(cache, "validation")
    fitted = fit_bank(plan.witnesses, fit.vectors, fit.logits)
    bank = {name: one.reference for name, one in fitted.items()}

    columns = {
        repeats: {name: fitted[name].own for name in measurable(plan.witnesses, repeats)}
        for repeats in (*plan.stages, plan.repeats)
    }
    return fit_in_stages(
        plan,
        columns,
        lambda name, repeats: measure(tuple(columns[repeats]), _evidence(cache, name).first(repeats), bank),
    )
