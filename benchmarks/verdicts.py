"""The detector against the method written in NumPy and SciPy, on the zoo's images: python benchmarks/verdicts.py.

The shipped bundle is calibrated. Then 500 images of each of the zoo's sets are judged three times: by `Detector`; by
the whole detector as one graph, on ONNX Runtime; and by hand. By hand, the bundle's parts run one by one, the UNet is
asked with the label and with the null label, and what lies between is written from the papers' formulas in float64.
Shared are the noise, which is a rule and not a formula, and the numbers that the calibration fitted.
"""

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pages import RESULTS, copy_zoo, machine_options
from scipy.ndimage import gaussian_filter
from scipy.special import log_ndtr, logsumexp
from scipy.stats import yeojohnson

from diffood.calibration.calibrate import calibrate_files
from diffood.runtime.assembly.detector import CalibratedScale, build_detector
from diffood.runtime.assembly.recipe import make_recipe
from diffood.runtime.bundle.bundle import Bundle, Role, open_bundle
from diffood.runtime.bundle.calibration import Calibration, load_calibrated_fusion
from diffood.runtime.bundle.graphs import read_graph
from diffood.runtime.detector import Detector
from diffood.runtime.inputs.open import list_inputs
from diffood.runtime.method.fusion import FittedWitness
from diffood.runtime.method.noise import make_pool
from diffood.runtime.method.plan import Plan
from diffood.runtime.method.witnesses.registry import measure
from diffood.runtime.sessions.onnxruntime import ProviderSettings, start_session
from diffood.zoo.images import SETS, load_set, unpack_set

PLANS = ("default", "fast")
CALIBRATED_ON = 1500  # of the validation images; the others are judged
PIECE = 50  # images at a time
P_VALUES = ("p_value", "graph_p_value")

Float = npt.NDArray[np.float64]
Pixels = npt.NDArray[np.uint8]
Ask = Callable[[Mapping[str, npt.NDArray[Any]]], dict[str, npt.NDArray[np.float32]]]


class MethodByHand:
    """The method for plans of the textbook schedule with DDIM that compare logits by L1 and combine by tails."""

    def __init__(self, bundle: Bundle, plan: Plan, calibration: Calibration) -> None:
        self.bundle, self.plan, self.calibration = bundle, plan, calibration
        self.classify, self.step = (_load(bundle, role) for role in ("classify", "step_plain"))
        size = int(np.prod(bundle.manifest.noised_shape))
        self.pool = make_pool(plan.seed, plan.repeats, size, size)

    def witnesses(self, pixels: Pixels) -> tuple[Float, Float]:
        """Values of the plan's witnesses for images uint8 [N, C, H, W] after each repeat, [R, N, W]; and logits."""
        x = pixels / 127.5 - 1
        logits = self.classify({"x": x.astype(np.float32)})["logits"].astype(np.float64)
        noise = self.pool.draw(pixels, pixels.shape[1:]).astype(np.float64)
        jumps, squares, after = [], [], []
        for repeat in noise:
            for start in self.plan.start_times:
                denoised = np.clip(self._denoise(x, repeat, start, logits.argmax(axis=1)), -1, 1)
                again = self.classify({"x": denoised.astype(np.float32)})["logits"].astype(np.float64)
                jumps.append(np.abs(_unit(again) - _unit(logits)).sum(axis=1))
                blurred = gaussian_filter(denoised - x, (0, 0, 1, 1), truncate=4)  # of 28 x 28: one pixel
                squares.append((blurred**2).mean(axis=(1, 2, 3)))
            found = {
                "jump": np.mean(jumps, axis=0),
                "reconstruction": np.sqrt(np.mean(squares, axis=0)),
                "logit_norm": -np.linalg.norm(logits - logits.mean(axis=1, keepdims=True), axis=1),
                "energy": -logsumexp(logits, axis=1),
            }
            after.append(np.stack([found[name] for name in self.plan.witnesses], axis=1))
        return np.array(after), logits

    def _denoise(self, x: Float, noise: Float, start: int, label: npt.NDArray[np.int64]) -> Float:
        """Noise images to `start` and denoise them: Song et al. 2021, eq. 12 with sigma = 0."""
        null = np.full_like(label, self.bundle.require_unet("by hand").label_count - 1)
        beta, stride = self.plan.guidance, self.plan.stride
        x = np.sqrt(self._level(start)) * x + np.sqrt(1 - self._level(start)) * noise
        for now in range(start, 0, -stride):
            epsilon = (1 + beta) * self._ask(x, now, label)
            if beta:
                epsilon -= beta * self._ask(x, now, null)
            here, there = self._level(now), self._level(max(0, now - stride))
            clean = (x - np.sqrt(1 - here) * epsilon) / np.sqrt(here)
            x = np.sqrt(there) * clean + np.sqrt(1 - there) * epsilon
        return x

    def _level(self, step: int) -> float:
        return float(self.bundle.alpha_bar[step]) if step else 1.0

    def _ask(self, x: Float, time: int, label: npt.NDArray[np.int64]) -> Float:
        """The UNet's prediction, which is the noise."""
        count = len(x)
        coefficients = np.tile(np.array([0, 1, 0, 1], np.float32), (count, 1))
        times = np.full(count, time, np.float32)
        fed: dict[str, npt.NDArray[Any]] = {
            "x": x.astype(np.float32),
            "time": times,
            "label": label,
            "coefficients": coefficients,
        }
        return self.step(fed)["epsilon"].astype(np.float64)

    def scores(self, after: Float) -> Float:
        """Scores [N] of values after each repeat, in stages."""
        record = self.calibration.fusion
        assert record is not None
        score = _fuse(record.witnesses, after[-1])
        for rule in reversed(record.stages):
            low, high = (np.nan if limit is None else limit for limit in (rule.low, rule.high))
            early = _fuse(rule.witnesses, after[rule.repeats - 1])
            score = np.where((early <= low) | (early > high), early, score)
        return score

    def decide(self, scores: Float) -> tuple[npt.NDArray[np.bool_], Float]:
        """Verdicts and p-values."""
        known = np.array(self.calibration.scores)
        at_least = (known >= scores[:, None]).sum(axis=1)
        return scores > self.calibration.threshold, (1 + at_least) / (len(known) + 1)


def _load(bundle: Bundle, role: Role) -> Ask:
    session = start_session(read_graph(bundle, role, "fp32").model, ProviderSettings())
    names = [value.name for value in session.get_outputs()]
    return lambda feeds: dict(zip(names, session.run(names, dict(feeds)), strict=True))


def _unit(vectors: Float) -> Float:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def _fuse(witnesses: Sequence[FittedWitness], values: Float) -> Float:
    """Yeo and Johnson's transformation of each, then Fisher's statistic, weighted."""
    total = np.zeros(len(values))
    for column, fitted in enumerate(witnesses):
        bent = yeojohnson((values[:, column] - fitted.center) / fitted.scale, fitted.power)
        total -= fitted.weight * log_ndtr(-(bent - fitted.center_bent) / fitted.scale_bent)
    return total


def judge_plan(path: Path, images: Path, name: str, sets: Mapping[str, Pixels], given: Any) -> dict[str, Any]:
    """Calibrate a plan, judge every set three times, and count what differs."""
    bundle = open_bundle(path)
    plan = bundle.plan(name)
    with Detector.load(bundle, plan, batch=given.batch, threads=given.threads) as detector:
        calibrate_files(detector, list_inputs([str(images)]), 0.05, 0.95, "pac").save()
    with Detector.open(path, batch=given.batch, threads=given.threads) as detector:
        calibration = detector.calibration()
        scale = CalibratedScale(calibration, load_calibrated_fusion(bundle, calibration))
        graph = start_session(
            build_detector(make_recipe(bundle, plan, "fp32"), scale), ProviderSettings(threads=given.threads)
        )
        hand = MethodByHand(bundle, plan, calibration)
        found = {key: _differences(detector, graph, hand, pixels) for key, pixels in _announced(name, sets)}
    return {"plan": name, "threshold": calibration.threshold, "calibrated_on": len(calibration.scores), "sets": found}


def _announced(plan: str, sets: Mapping[str, Pixels]) -> Iterator[tuple[str, Pixels]]:
    for name, pixels in sets.items():
        print(f"{plan} plan, {name}: {len(pixels)} images", flush=True)
        yield name, pixels


def _differences(detector: Detector, graph: Any, hand: MethodByHand, pixels: Pixels) -> dict[str, Any]:
    """What differs between the three on one set."""
    flips, graph_flips, flagged, classes = 0, 0, 0, 0
    names = detector.plan.witnesses
    worst: dict[str, float] = dict.fromkeys((*names, *(f"{name} of mean" for name in names), *P_VALUES), 0.0)
    for start in range(0, len(pixels), PIECE):
        piece = pixels[start : start + PIECE]
        after, logits = hand.witnesses(piece)
        is_ood, p_values = hand.decide(hand.scores(after))
        verdicts = detector.predict(piece)
        whole = dict(zip([value.name for value in graph.get_outputs()], graph.run(None, {"image": piece}), strict=True))
        flips += int((verdicts.is_ood != is_ood).sum())
        graph_flips += int((whole["is_ood"] != is_ood).sum())
        flagged += int(is_ood.sum())
        classes += int((verdicts.predicted != logits.argmax(axis=1)).sum())
        measured = np.array([measure(names, evidence) for _, evidence in detector.observe(enumerate(piece))])
        error, size = np.abs(measured - after[-1]), np.abs(after[-1])
        found = [*(error / size).max(axis=0), *error.max(axis=0) / size.mean(axis=0)]
        found += [np.abs(given - p_values).max() for given in (verdicts.p_value, whole["p_value"])]
        worst = {key: max(known, float(value)) for (key, known), value in zip(worst.items(), found, strict=True)}
    counts = {"images": len(pixels), "flagged": flagged, "other_classes": classes}
    return {**counts, "flips": flips, "graph_flips": graph_flips, "largest_difference": worst}


def main() -> None:
    """Parse the command line, judge, write results/verdicts.json."""
    parser = machine_options(__doc__, batch=32)
    parser.add_argument("--limit", type=int, default=500, help="images of each set")
    given = parser.parse_args()
    sets = {name: load_set(name).images[:, None][-given.limit :] for name in SETS}
    with tempfile.TemporaryDirectory() as scratch:
        images = Path(scratch, "validation")
        unpack_set("fashion-validation", images, CALIBRATED_ON)
        found = [judge_plan(copy_zoo(Path(scratch, name)), images, name, sets, given) for name in PLANS]
    (RESULTS / "verdicts.json").write_text(json.dumps(found, indent=1) + "\n")
    for plan in found:
        rows = plan["sets"].values()
        total = {key: sum(row[key] for row in rows) for key in ("images", "flagged", "flips", "graph_flips")}
        worst = {
            key: max(row["largest_difference"][key] for row in rows) for key in next(iter(rows))["largest_difference"]
        }
        print(plan["plan"], total, {key: f"{value:.1e}" for key, value in worst.items()})


if __name__ == "__main__":
    main()
