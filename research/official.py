"""Compares the paper's own plan with ours on the same images: python -m research.official --help.

It costs 288 UNet evaluations per image, so only the first images of each test set are taken.
"""

import argparse
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from diffood.calibration.metrics.intervals import ScoredSets, mean_auroc_difference, mean_auroc_interval
from diffood.calibration.metrics.rates import auroc
from diffood.runtime.bundle.bundle import open_bundle
from diffood.runtime.detector import Detector
from diffood.runtime.images.pixels import Pixels
from diffood.runtime.method.plan import DEFAULT, FAST, REFERENCE
from diffood.zoo import BUNDLE
from research.compare import ScoreRule, digit_sets, fashion_sets, measure_sets, score


def score_officially(bundle: Path, sets: Mapping[str, Pixels], batch: int, threads: int) -> ScoredSets:
    """The paper's score of every set, by its code's conventions; nothing is fitted."""
    detector = Detector.load(open_bundle(bundle), REFERENCE, batch=batch, threads=threads)
    scores = {}
    for name, images in sets.items():
        scores[name] = detector.score(images).score
        print(f"official plan: {name} done", flush=True)
    return ScoredSets(scores.pop("ind"), scores)


def main() -> None:
    """Parse the command line, measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", type=Path, default=BUNDLE)
    parser.add_argument("--digits", type=Path, help="archive of digits, which are then in-distribution")
    parser.add_argument("--limit", type=int, default=200, help="images of each set that is scored")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--output", type=Path, required=True)
    given = parser.parse_args()
    sets = digit_sets(given.digits) if given.digits else fashion_sets()
    sets = {name: images if name == "fit" else images[: given.limit] for name, images in sets.items()}
    found = {}
    for name, plan in (("fast", FAST), ("default", DEFAULT)):
        measured = measure_sets(given.bundle, sets, plan, None, given.batch, given.threads)
        found[name] = score(ScoreRule(name, plan.witnesses, plan.combine, plan.stages), measured)
    scored = {key: images for key, images in sets.items() if key != "fit"}
    official = score_officially(given.bundle, scored, given.batch, given.threads)
    rows = []
    for name, ours in {"official": official, **found}.items():
        gain, areas = mean_auroc_difference(ours, official), {k: auroc(ours.ind, s) for k, s in ours.sets.items()}
        rows.append({"name": name, "auroc": areas, "mean": asdict(mean_auroc_interval(ours)), "gain": asdict(gain)})
        listed = " | ".join(f"{100 * area:.2f}" for area in areas.values())
        mean = mean_auroc_interval(ours)
        better = f"{100 * gain.value:+.2f} ({100 * gain.low:+.2f} to {100 * gain.high:+.2f})"
        print(
            f"| {name} | {listed} | {100 * mean.value:.2f} ({100 * mean.low:.2f}–{100 * mean.high:.2f}) "
            f"| {better if name != 'official' else ''} |"
        )
    given.output.write_text(json.dumps({"images": given.limit, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
