"""Measures the zoo's bundle for its model card: python -m research.measure --bundle DIR --output FILE.json.

Classifier accuracy, guided samples that are classified as their label, and AUROC of plain DiffOOD by start time.
"""

import argparse
import json
from pathlib import Path

import numpy as np

from diffood.calibration.metrics.rates import auroc
from diffood.export.int8.parts import load_part
from diffood.runtime.bundle.bundle import Bundle, open_bundle
from diffood.runtime.detector import Detector
from diffood.runtime.images.pixels import from_pixels
from diffood.runtime.method.plan import PLAIN
from diffood.zoo import BUNDLE
from diffood.zoo.images import SETS, load_set

START_TIMES = (360, 420, 480)
SAMPLES = 500
SAMPLE_STRIDE = 40  # 25 steps from pure noise
STRIDE = 120
SEED = 0  # of the samples


def classifier_accuracy(bundle: Bundle) -> float:
    """Share of the held-out test images whose largest logit is their label."""
    test = load_set("fashion-test")
    logits = load_part(bundle, "classify")({"x": from_pixels(test.images[:, None])})["logits"]
    return float((logits.argmax(axis=1) == test.labels).mean())


def guided_accuracy(bundle: Bundle) -> float:
    """Share of SAMPLES images, sampled from pure noise for a label, that are classified as that label.

    The bundle's step graph is run by itself: a detector denoises for the class it predicts, and for no other.
    """
    image, last = bundle.manifest.image, len(bundle.alpha_bar) - 1
    table = bundle.tables(PLAIN.changed({"start_times": (last,), "stride": SAMPLE_STRIDE}))[0]
    label = np.arange(SAMPLES) % len(bundle.manifest.class_names)
    shape = (SAMPLES, image.channels, image.height, image.width)
    x = np.random.default_rng(SEED).standard_normal(shape, np.float32)
    step = load_part(bundle, "step_guided")
    for time, coefficients in zip(table.times, table.coefficients, strict=True):
        fed = {
            "x": x,
            "time": np.full(SAMPLES, time),
            "label": label,
            "coefficients": np.tile(coefficients, (SAMPLES, 1)),
            "guidance": np.full(SAMPLES, PLAIN.guidance, np.float32),
        }
        x = step(fed)["x_next"]
    logits = load_part(bundle, "classify")({"x": np.clip(x, -1, 1)})["logits"]
    return float((logits.argmax(axis=1) == label).mean())


def detection_by_start(bundle: Bundle, limit: int | None, batch: int, threads: int) -> dict[str, dict[str, float]]:
    """AUROC of each OOD set and their mean, by start time: R = 2, stride 120, guidance 2, logits, L1."""
    table: dict[str, dict[str, float]] = {}
    for start in START_TIMES:
        plan = PLAIN.changed({"start_times": (start,), "stride": STRIDE})
        detector = Detector.load(bundle, plan, batch=batch, threads=threads)
        known = detector.score(load_set("fashion-test").images[:limit]).score
        row = {
            name: auroc(known, detector.score(load_set(name).images[:limit]).score)
            for name, entry in SETS.items()
            if entry.role == "ood"
        }
        row["mean"] = float(np.mean(list(row.values())))
        row["unet_evaluations"] = detector.evaluations
        table[str(start)] = row
        print(start, json.dumps({name: round(value, 4) for name, value in row.items()}), flush=True)
    return table


def main() -> None:
    """Parse the command line, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", type=Path, default=BUNDLE)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--limit", type=int, help="images of each set; all without")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--threads", type=int, default=0)
    arguments = parser.parse_args()
    bundle = open_bundle(arguments.bundle)
    measured = {
        "classifier_accuracy": classifier_accuracy(bundle),
        "guided_accuracy": guided_accuracy(bundle),
    }
    print(json.dumps(measured), flush=True)
    detection = detection_by_start(bundle, arguments.limit, arguments.batch, arguments.threads)
    arguments.output.write_text(json.dumps({**measured, "auroc_by_start": detection}, indent=1) + "\n")


if __name__ == "__main__":
    main()
