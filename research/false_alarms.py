"""Tries the guarantee on real images: python -m research.false_alarms --output FILE.json.

All clothes that no model was trained on are measured once. Then, in every draw, some of them are calibrated on as
`calibrate` does it: the fusion and the limits of stages on a third, the threshold on the rest. False alarms are counted
among all others. So the draws see the noise that images really get, and the witnesses' real distribution.
"""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from scipy.stats import betabinom

from diffood.calibration.fusing.split import fitted_count
from diffood.calibration.fusing.stages import fit_stage, score_in_stages
from diffood.calibration.fusing.witnesses import fit_witnesses
from diffood.calibration.promises.thresholds import fit_threshold, pac_allowed
from diffood.runtime.bundle.bundle import open_bundle
from diffood.runtime.detector import Detector
from diffood.runtime.method.plan import DEFAULT, FAST, Plan
from diffood.runtime.method.scoring import Float
from diffood.runtime.method.witnesses.registry import measure
from diffood.zoo import BUNDLE
from diffood.zoo.images import load_set

CLOTHES = ("fashion-validation", "fashion-test")
ALPHA, DELTA = 0.05, 0.05
SEED = 0  # of the draws


def measure_clothes(plan: Plan, limit: int | None, threads: int) -> dict[int, Float]:
    """Witness values [N, W] of all clothes, by number of repeats."""
    pixels = np.concatenate([load_set(name).images[:limit, None] for name in CLOTHES])
    found: dict[int, list[Float]] = {repeats: [] for repeats in (*plan.stages, plan.repeats)}
    with Detector.load(open_bundle(BUNDLE), plan, threads=threads) as detector:
        for _, evidence in detector.observe(enumerate(pixels)):
            for repeats, rows in found.items():
                rows.append(measure(plan.witnesses, evidence.first(repeats)))
    return {repeats: np.stack(rows) for repeats, rows in found.items()}


def count_false_alarms(plan: Plan, values: Mapping[int, Float], size: int, draw: np.random.Generator) -> int:
    """False alarms among the clothes that one draw of `size` images was not calibrated on."""
    order = draw.permutation(len(values[plan.repeats]))
    fitting, rest = order[: fitted_count(size)], order[fitted_count(size) :]

    def columns(repeats: int) -> dict[str, Float]:
        return dict(zip(plan.witnesses, values[repeats][fitting].T, strict=True))

    rules = [fit_stage(repeats, columns(repeats), plan.combine) for repeats in plan.stages]
    fitted = fit_witnesses(columns(plan.repeats), plan.combine)
    scores, _ = score_in_stages(rules, fitted, plan.combine, [found[rest] for found in values.values()])
    kept = size - len(fitting)
    threshold = fit_threshold(scores[:kept], ALPHA, 1 - DELTA, "pac")
    return int((scores[kept:] > threshold.value).sum())


def try_plan(name: str, plan: Plan, values: Mapping[int, Float], size: int, draws: int) -> dict[str, float | str]:
    """How often more than ALPHA of the others are flagged, and how often that is to be expected."""
    generator = np.random.default_rng(SEED)
    others = len(values[plan.repeats]) - size
    alarms = np.array([count_false_alarms(plan, values, size, generator) for _ in range(draws)])
    kept = size - fitted_count(size)
    allowed = pac_allowed(kept, ALPHA, DELTA)
    # so many of the others lie above the (allowed + 1)-th highest of `kept` exchangeable scores, ties aside
    expected = betabinom(others, allowed + 1, kept - allowed)
    return {
        "plan": name,
        "calibrated_on": size,
        "others": others,
        "draws": draws,
        "mean_rate": float(alarms.mean() / others),
        "expected_rate": float(expected.mean() / others),
        "above": float((alarms > ALPHA * others).mean()),
        "expected_above": float(expected.sf(np.floor(ALPHA * others))),
    }


def main() -> None:
    """Parse the command line, measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=2000)
    parser.add_argument("--size", type=int, nargs="+", default=[500, 1000, 1500], help="images of a calibration")
    parser.add_argument("--limit", type=int, help="images of each set; all without")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--output", type=Path, required=True)
    given = parser.parse_args()
    found = []
    for name, plan in (("default", DEFAULT), ("fast", FAST)):
        values = measure_clothes(plan, given.limit, given.threads)
        for size in given.size:
            found.append(try_plan(name, plan, values, size, given.draws))
            print(json.dumps(found[-1]), flush=True)
    given.output.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
