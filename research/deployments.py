"""Tries the promises about streams on 10,000 simulated deployments each: python -m research.deployments --output FILE.

Scores are those of the zoo's clothes and of its other images, measured once (`--measure`) and stored beside this file.
Between stored scores the distribution is taken as linear, so the false-alarm rate of every threshold is known exactly.
A deployment calibrates on 1,000 clothes and serves; what people answer on drawn rows is simulated without error.
"""

import argparse
import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from diffood.calibration.calibrate import calibrate_files
from diffood.calibration.feedback.sequences import STAKES, Draws, log_wealth
from diffood.calibration.metrics.rates import clopper_pearson
from diffood.calibration.promises.thresholds import pac_allowed
from diffood.calibration.scored_files import score_sources
from diffood.runtime.bundle.bundle import open_bundle
from diffood.runtime.detector import Detector
from diffood.runtime.inputs.open import list_inputs
from diffood.runtime.method.discoveries import OnlineSelection, select_batch
from diffood.runtime.method.plan import FAST
from diffood.zoo import BUNDLE
from diffood.zoo.images import unpack_set

SCORES = Path(__file__).with_name("deployment_scores.json")
OTHERS = ("digits", "animals", "textures", "photos", "upside-down")
ALPHA, DELTA = 0.05, 0.05
CALIBRATION = 1000  # images
CHUNK = 1000  # deployments in memory at a time
BEFORE = 10_000  # in-distribution rows before the new camera
SHIFTS = (0.25, 0.5, 1.0, 2.0)  # standard deviations of the scores
BAD_LUCK = 2.33  # standard deviations: once in a hundred times
LABELS_AFTER = 1500  # answers after it that are looked at
Float = npt.NDArray[np.float64]


def measure(threads: int) -> None:
    """Score the zoo's images with the plan `fast` and store the scores."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        fitted = unpack_set("fashion-validation", folder / "fitted", 600)
        unpack_set("fashion-validation", folder / "ind" / "a")
        unpack_set("fashion-test", folder / "ind" / "b")
        for path in fitted:
            (folder / "ind" / "a" / path.name).unlink()
        for name in OTHERS:
            unpack_set(name, folder / "ood" / name, 150)
        with Detector.load(open_bundle(BUNDLE), FAST, threads=threads) as detector:
            done = calibrate_files(detector, list_inputs([str(folder / "fitted")]), ALPHA, 1 - DELTA, "pac")
            scores = {
                name: score_sources(done.detector, list_inputs([str(folder / name)])).scores.round(4).tolist()
                for name in ("ind", "ood")
            }
    SCORES.write_text(json.dumps(scores) + "\n")


@dataclass(frozen=True)
class Population:
    """Scores as a continuous distribution, and OOD scores to draw from.

    Attributes:
        ind: Sorted, [N].
        ood: [M].
    """

    ind: Float
    ood: Float

    def draw(self, draw: np.random.Generator, shape: tuple[int, ...]) -> Float:
        """In-distribution scores."""
        return np.interp(draw.random(shape), np.linspace(0, 1, len(self.ind)), self.ind)

    def rate_above(self, thresholds: Float) -> Float:
        """Share of in-distribution scores above thresholds."""
        return np.asarray(1 - np.interp(thresholds, self.ind, np.linspace(0, 1, len(self.ind))))

    def thresholds(self, draw: np.random.Generator, count: int) -> Float:
        """Thresholds of as many calibrations."""
        rank = CALIBRATION - 1 - pac_allowed(CALIBRATION, ALPHA, DELTA)
        return np.partition(self.draw(draw, (count, CALIBRATION)), rank, axis=1)[:, rank]


def share(hits: int, count: int) -> dict[str, float | int]:
    """A share with its interval of 99.9 % confidence."""
    low, high = clopper_pearson(hits, count, 0.999) if count else (0.0, 1.0)
    return {"hits": hits, "of": count, "share": hits / count if count else 0.0, "low": low, "high": high}


def hit_share(rate: Float | float, ratio: float) -> Any:
    """Share of hits among answers, where hits are drawn `ratio` times as often."""
    return rate * ratio / (rate * ratio + 1 - rate)


def chunks(count: int) -> Iterator[int]:
    """Sizes of chunks that make `count`."""
    yield from (min(CHUNK, count - start) for start in range(0, count, CHUNK))


def false_withdrawals(people: Population, count: int, passed: float, answers: int) -> dict[str, Any]:
    """How often a certificate that is true is ever withdrawn within so many answers; and one that is false."""
    draw, risk = np.random.default_rng(1), -np.log(DELTA)
    ever, rates = [], []
    for size in chunks(count):
        rate = people.rate_above(people.thresholds(draw, size))
        hits = draw.random((size, answers)) < hit_share(rate, 1 / passed)[:, None]
        ever.append(log_wealth(Draws(hits, 1 / passed), np.array([ALPHA]))[-1, :, 0] >= risk)
        rates.append(rate)
    withdrawn, rate = np.concatenate(ever), np.concatenate(rates)
    true = rate <= ALPHA
    return {
        "passed_share": passed,
        "answers": answers,
        "calibrations_above_alpha": share(int((~true).sum()), count),
        "withdrawn_of_true": share(int(withdrawn[true].sum()), int(true.sum())),
        "withdrawn_of_false": share(int(withdrawn[~true].sum()), int((~true).sum())),
    }


def missed_rates(count: int, rate: float, ratio: float, answers: int) -> dict[str, Any]:
    """How often an interval at any of so many times leaves out the rate: from below, from above."""
    draw, missed, risk = np.random.default_rng(2), np.zeros(2, np.int64), -np.log(DELTA / 2)
    for size in chunks(count):
        draws = Draws(draw.random((size, answers)) < hit_share(rate, ratio), ratio)
        for side, (given, claim) in enumerate(((draws, rate), (draws.others, 1 - rate))):
            missed[side] += int((log_wealth(given, np.array([claim]))[-1, :, 0] >= risk).sum())
    return {
        "rate": rate,
        "ratio": ratio,
        "too_high": share(int(missed[0]), count),
        "too_low": share(int(missed[1]), count),
    }


def new_camera(people: Population, count: int, shift: float, passed: float) -> dict[str, Any]:
    """Whether the certificate is withdrawn before more than ALPHA of all in-distribution rows so far were flagged.

    The labels allow it where the answers between the change and then are so many that a bet on the new rate wins, with
    bad luck that comes once in a hundred times, what the wealth must gain: 1 / DELTA, and the price of not knowing the
    rate and the time beforehand.
    """
    draw = np.random.default_rng(3)
    found = {"allowed": 0, "withdrawn_of_allowed": 0, "overrun": 0, "withdrawn_before": 0}
    rates, rows_needed = [], []
    for size in chunks(count):
        thresholds = people.thresholds(draw, size)
        before = people.rate_above(thresholds)
        after = people.rate_above(thresholds - shift * people.ind.std())
        numbers = draw.binomial(BEFORE, before + passed * (1 - before))  # answers before the change
        length = int(numbers.max()) + LABELS_AFTER
        place = np.arange(length)[None]
        late = place >= numbers[:, None]
        rate = np.where(late, after[:, None], before[:, None])
        hits = draw.random((size, length)) < hit_share(rate, 1 / passed)
        gaps = draw.geometric(np.broadcast_to((after + passed * (1 - after))[:, None], hits.shape))
        served = BEFORE + np.cumsum(np.where(late, gaps, 0), axis=1)
        over = late & (np.cumsum(hits, axis=1) > ALPHA * served)
        overrun = np.where(over.any(1), over.argmax(1), length)
        wealth = log_wealth(Draws(hits, 1 / passed), np.array([ALPHA]))[:, :, 0].T
        crossed = wealth >= -np.log(DELTA)
        first = np.where(crossed.any(1), crossed.argmax(1), length + 1)
        new, claimed = hit_share(after, 1 / passed), hit_share(ALPHA, 1 / passed)
        on_hit, on_miss = np.log(new / claimed), np.log((1 - new) / (1 - claimed))
        answers = overrun - numbers
        won = answers * (new * on_hit + (1 - new) * on_miss)
        luck = BAD_LUCK * np.sqrt(answers * new * (1 - new)) * np.abs(on_hit - on_miss)
        price = -np.log(DELTA) + np.log((STAKES > ALPHA).sum()) + np.log(numbers * np.log(numbers) ** 2)
        allowed = (overrun < length) & (after > ALPHA) & (won - luck >= price)
        ends = overrun < length
        found["allowed"] += int(allowed.sum())
        found["withdrawn_of_allowed"] += int((allowed & (first < overrun)).sum())
        found["overrun"] += int(ends.sum())
        found["withdrawn_before"] += int((ends & (first < overrun)).sum())
        rates.append(after)
        seen = crossed.any(1) & late[np.arange(size), np.minimum(first, length - 1)]
        rows_needed.append(served[np.arange(size), np.minimum(first, length - 1)][seen] - BEFORE)
    return {
        "shift": shift,
        "passed_share": passed,
        "mean_rate_after": float(np.concatenate(rates).mean()),
        "median_rows_to_withdrawal": float(np.median(np.concatenate(rows_needed))),
        "withdrawn_before_overrun_where_allowed": share(found["withdrawn_of_allowed"], found["allowed"]),
        "withdrawn_before_overrun": share(found["withdrawn_before"], found["overrun"]),
    }


def false_discoveries(people: Population, count: int, online: int, fdr: float) -> dict[str, Any]:
    """Mean share of in-distribution images among the selected, and of OOD images that are selected."""
    draw, images, share_ood = np.random.default_rng(4), 500, 0.1
    false: dict[str, list[float]] = {"batch": [], "stream": []}
    power: dict[str, list[float]] = {"batch": [], "stream": []}
    for number in range(count):
        ood = draw.random(images) < share_ood
        scores = np.where(ood, draw.choice(people.ood, images), people.draw(draw, (images,)))
        known = np.sort(people.draw(draw, (CALIBRATION,)))
        p_values = (1 + CALIBRATION - np.searchsorted(known, scores, "left")) / (CALIBRATION + 1)
        selections = {"batch": select_batch(p_values, fdr)}
        if number < online:
            stream = OnlineSelection(fdr)
            selections["stream"] = np.array([stream.select(p_value) for p_value in p_values])
        for name, selected in selections.items():
            false[name].append(float((selected & ~ood).sum() / max(1, selected.sum())))
            power[name].append(float((selected & ood).sum() / max(1, ood.sum())))
    return {
        name: {
            "fdr": fdr,
            "deployments": len(false[name]),
            "false": float(np.mean(false[name])),
            "error": float(3.29 * np.std(false[name]) / np.sqrt(len(false[name]))),  # half of a 99.9 % interval
            "found": float(np.mean(power[name])),
        }
        for name in false
    }


def main() -> None:
    """Parse the command line, simulate, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--deployments", type=int, default=10_000)
    parser.add_argument("--measure", action="store_true", help="score the zoo's images again first")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--output", type=Path, required=True)
    given = parser.parse_args()
    if given.measure:
        measure(given.threads)
    stored = json.loads(SCORES.read_text())
    people, count = Population(np.sort(stored["ind"]), np.array(stored["ood"])), given.deployments
    found: dict[str, Any] = {}

    def tell(name: str, *results: dict[str, Any]) -> None:
        found[name] = results
        for result in results:
            print(name, json.dumps(result), flush=True)

    tell("false_withdrawals", *(false_withdrawals(people, count, passed, 2000) for passed in (0.05, 0.2)))
    tell("intervals", *(missed_rates(count, *case, 1000) for case in ((0.05, 20.0), (0.03, 5.0), (0.01, 1.0))))
    tell("new_camera", *(new_camera(people, count, shift, passed) for passed in (0.05, 0.2) for shift in SHIFTS))
    tell("false_discoveries", *(false_discoveries(people, count, count // 5, fdr) for fdr in (0.1, 0.2)))
    given.output.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
