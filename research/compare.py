"""Compares witnesses and their fusions on the zoo's sets: python -m research.compare --help.

One pass a seed measures every witness; every row of the table is made from it, so all differences are paired. With
--digits the digits of an archive are in-distribution and clothes are not, for a bundle of models trained on them.
"""

import argparse
import json
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from diffood.calibration.fusing.fitting import fit_witnesses
from diffood.calibration.fusing.fusing import fit_fusion, split_sources
from diffood.calibration.fusing.staged import fit_stage, score_in_stages
from diffood.calibration.metrics.bootstrap import compare_fpr, mean_fpr_interval
from diffood.calibration.metrics.intervals import (
    Difference,
    Interval,
    ScoredSets,
    mean_auroc_difference,
    mean_auroc_interval,
)
from diffood.calibration.metrics.rates import auroc
from diffood.runtime.bundle.bundle import open_bundle
from diffood.runtime.detector import Detector
from diffood.runtime.inputs.open import list_inputs
from diffood.runtime.method.plan import DEFAULT, FAST, Combination, Plan
from diffood.runtime.method.scoring import Float
from diffood.runtime.method.witnesses.registry import WITNESSES, Witness, measure
from diffood.runtime.pipeline import observe_files
from diffood.zoo import BUNDLE
from diffood.zoo.images import SETS, load_set
from research.datasets import load_training_data

NAMES: tuple[Witness, ...] = tuple(WITNESSES)
FITTED_OF, TESTED = 1000, 1000  # held-out digits; what is left is turned upside down
OTHER_SETS = ("animals", "textures", "photos")

Pixels = npt.NDArray[np.uint8]
Columns = Mapping[Witness, Float]


@dataclass(frozen=True)
class Way:
    """One row: a witness alone on all repeats (how is None: as measured), or several, combined, in stages or not."""

    name: str
    witnesses: tuple[Witness, ...]
    how: Combination | None
    stages: tuple[int, ...] = ()


@dataclass(frozen=True)
class Measured:
    """Every witness of every image, by number of repeats. columns: [n], fitted on; sets: [N, W], "ind" among them."""

    columns: Mapping[int, Columns]
    sets: Mapping[str, Mapping[int, Float]]


@dataclass(frozen=True)
class Row:
    """What one way finds. auroc by set; differences and ratio: the default's less, and over, this one's."""

    name: str
    auroc: dict[str, float]
    mean: Interval
    fpr: Interval
    gain: Difference
    fpr_ratio: Interval | None


def ways() -> list[Way]:
    """The default first, then other fusions, then each witness alone."""
    chosen, how, stages = DEFAULT.witnesses, DEFAULT.combine, DEFAULT.stages
    rows = [Way("default", chosen, how, stages), Way("default, not in stages", chosen, how)]
    rows.append(Way("default, equal sum", chosen, "sum", stages))
    for left_out in chosen:
        rows.append(Way(f"default without {left_out}", tuple(w for w in chosen if w != left_out), how, stages))
    rows.append(Way("default and knn", (*chosen, "knn"), how, stages))
    rows.append(Way("jump, reconstruction, knn, equal sum", ("jump", "reconstruction", "knn"), "sum"))
    return rows + [Way(name, (name,), None) for name in NAMES]


def fashion_sets() -> dict[str, Pixels]:
    """Clothes to fit on ("fit") and to test on ("ind"), and the five OOD sets."""
    names = {"fit": "fashion-validation", "ind": "fashion-test"}
    names |= {name: name for name, entry in SETS.items() if entry.role == "ood"}
    return {name: load_set(stored).images for name, stored in names.items()}


def digit_sets(archive: Path) -> dict[str, Pixels]:
    """Held-out digits to fit on and to test on; clothes, the OOD sets but digits, and other digits upside down."""
    held_out = load_training_data(archive).held_out
    fit, ind, rest = np.split(held_out, [FITTED_OF, FITTED_OF + TESTED])
    others = {name: load_set(name).images for name in OTHER_SETS}
    return (
        {"fit": fit, "ind": ind, "clothes": load_set("fashion-test").images} | others | {"upside-down": rest[:, ::-1]}
    )


def measure_sets(
    bundle_path: Path, sets: Mapping[str, Pixels], plan: Plan, limit: int | None, batch: int, threads: int
) -> Measured:
    """Every witness on the images that `calibrate` would fit on, and on all of the other sets; none ends early."""
    plan = plan.changed({"witnesses": NAMES})
    detector = Detector.load(open_bundle(bundle_path), plan, batch=batch, threads=threads)
    with tempfile.TemporaryDirectory() as place:
        folders = {name: _write(Path(place) / name, images[:limit]) for name, images in sets.items()}
        parts = split_sources(list_inputs([str(folders.pop("fit"))]))
        fitted = fit_fusion(detector, parts.fit)
        bank = fitted.fusion.bank
        found: dict[str, dict[int, list[Float]]] = {name: {r: [] for r in fitted.columns} for name in folders}
        for name, folder in folders.items():
            for outcome in observe_files(detector, list_inputs([str(folder)])):
                assert outcome.result is not None, outcome.loaded.error
                for repeats, rows in found[name].items():
                    rows.append(measure(NAMES, outcome.result.first(repeats), bank))
    return Measured(fitted.columns, {name: {r: np.stack(rows) for r, rows in by.items()} for name, by in found.items()})


def _write(folder: Path, images: Pixels) -> Path:
    folder.mkdir()
    for index, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{index:04d}.png")
    return folder


def score(way: Way, measured: Measured) -> ScoredSets:
    """What one way, fitted on the columns, makes of every set."""
    chosen, last = [NAMES.index(name) for name in way.witnesses], max(measured.columns)
    if way.how is None:
        scores = {name: found[last][:, chosen[0]] for name, found in measured.sets.items()}
        return ScoredSets(scores.pop("ind"), scores)
    columns = {r: {name: found[name] for name in way.witnesses} for r, found in measured.columns.items()}
    rules = [fit_stage(repeats, columns[repeats], way.how) for repeats in way.stages]
    fitted, repeats = fit_witnesses(columns[last], way.how), (*way.stages, last)
    scores = {
        name: score_in_stages(rules, fitted, way.how, [found[r][:, chosen] for r in repeats])[0]
        for name, found in measured.sets.items()
    }
    return ScoredSets(scores.pop("ind"), scores)


def scored_ways(measured: Measured, fast: Measured) -> dict[str, ScoredSets]:
    """All rows' scores by name, the default's first, the fast plan's from its own pass second."""
    found = {way.name: score(way, measured) for way in ways()}
    default = next(iter(found))
    return {default: found[default], "fast": score(Way("fast", FAST.witnesses, FAST.combine), fast), **found}


def compare(ways: Mapping[str, ScoredSets]) -> list[Row]:
    """Every way's numbers, and the default against each on the same images."""
    default = next(iter(ways.values()))
    return [
        Row(
            name,
            {key: auroc(scored.ind, found) for key, found in scored.sets.items()},
            mean_auroc_interval(scored),
            mean_fpr_interval(scored),
            mean_auroc_difference(default, scored),
            compare_fpr(default, scored).ratio,
        )
        for name, scored in ways.items()
    ]


def table(rows: list[Row]) -> str:
    """The rows in Markdown, in percent."""
    names = list(rows[0].auroc)
    lines = [
        f"| | {' | '.join(names)} | mean AUROC | default is better by | FPR@95 | default's over this |",
        "|" + "---|" * (len(names) + 5),
    ]
    for row in rows:
        ratio = f"{row.fpr_ratio.value:.2f} ({row.fpr_ratio.low:.2f}–{row.fpr_ratio.high:.2f})" if row.fpr_ratio else ""
        gain = f"{100 * row.gain.value:+.2f} ({100 * row.gain.low:+.2f} to {100 * row.gain.high:+.2f})"
        lines.append(
            f"| {row.name} | {' | '.join(f'{100 * area:.2f}' for area in row.auroc.values())} | {_percent(row.mean)} "
            f"| {gain if row is not rows[0] else ''} | {_percent(row.fpr)} | {ratio if row is not rows[0] else ''} |"
        )
    return "\n".join(lines)


def _percent(found: Interval) -> str:
    return f"{100 * found.value:.2f} ({100 * found.low:.2f}–{100 * found.high:.2f})"


def main() -> None:
    """Parse the command line, measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", type=Path, default=BUNDLE)
    parser.add_argument("--digits", type=Path, help="archive of digits, which are then in-distribution")
    parser.add_argument("--seed", type=int, nargs="+", default=[0], help="of the noise; one table each")
    parser.add_argument("--limit", type=int, help="images of each set; all without")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    sets = digit_sets(arguments.digits) if arguments.digits else fashion_sets()
    found = {}
    for seed in arguments.seed:
        measured, fast = (
            measure_sets(
                arguments.bundle,
                sets,
                plan.changed({"seed": seed}),
                arguments.limit,
                arguments.batch,
                arguments.threads,
            )
            for plan in (DEFAULT, FAST)
        )
        rows = compare(scored_ways(measured, fast))
        count = len(measured.columns[DEFAULT.repeats]["jump"])
        print(f"\nseed {seed}, fitted on {count}\n\n{table(rows)}", flush=True)
        found[str(seed)] = {"fitted_on": count, "rows": [asdict(row) for row in rows]}
    arguments.output.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
