"""Compares witnesses and their fusions on the zoo's sets: python -m research.compare --help.

One pass a seed measures every witness; every row of the table is made from it, so all differences are paired. With
--digits the digits of an archive are in-distribution and clothes are not, for a bundle of models trained on them;
with --materials surfaces in colour are.
"""

import argparse
import json
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from diffood.calibration.fusing.fusion import fit_fusion
from diffood.calibration.fusing.split import split_sources
from diffood.calibration.fusing.stages import fit_stage, score_in_stages
from diffood.calibration.fusing.witnesses import fit_witnesses
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
from diffood.runtime.images.pixels import Pixels
from diffood.runtime.inputs.open import list_inputs
from diffood.runtime.method.plan import DEFAULT, FAST, Combination, Plan
from diffood.runtime.method.scoring import Float
from diffood.runtime.method.witnesses.definition import SNAPSHOT
from diffood.runtime.method.witnesses.registry import WITNESSES, Witness, measure
from diffood.runtime.pipeline import observe_files
from diffood.zoo import BUNDLE
from diffood.zoo.images import SETS, load_set
from research.datasets import SIDE, load_training_data

NAMES: tuple[Witness, ...] = tuple(name for name in WITNESSES if name != SNAPSHOT)  # which needs another plan
FITTED_OF, TESTED = 1000, 1000  # held-out digits, what is left is turned upside down; or held-out surfaces
OTHER_SETS = ("animals", "textures", "photos")
NO_SURFACES = ("photos", "clothes", "digits")

Columns = Mapping[Witness, Float]


@dataclass(frozen=True)
class ScoreRule:
    """How a score is made of witnesses.

    Attributes:
        name: Of its row.
        witnesses: One, or several to combine.
        combine: None for one witness as measured, on all repeats.
        stages: Repeats after which a clear image ends.
    """

    name: str
    witnesses: tuple[Witness, ...]
    combine: Combination | None
    stages: tuple[int, ...] = ()


@dataclass(frozen=True)
class MeasuredWitnesses:
    """Every witness of every image, by number of repeats.

    Attributes:
        columns: Of the images that combinations are fitted on, [n] for each witness.
        sets: Of the test sets, "ind" among them, [N, W].
    """

    columns: Mapping[int, Columns]
    sets: Mapping[str, Mapping[int, Float]]


@dataclass(frozen=True)
class RuleResult:
    """What one rule detects.

    Attributes:
        name: Of the rule.
        auroc: By OOD set.
        mean: Mean AUROC.
        fpr: Mean FPR@95.
        gain: Mean AUROC of the default minus that of this rule.
        fpr_ratio: Mean FPR@95 of the default over that of this rule; None where it has none.
    """

    name: str
    auroc: dict[str, float]
    mean: Interval
    fpr: Interval
    gain: Difference
    fpr_ratio: Interval | None


def score_rules() -> list[ScoreRule]:
    """The default first, then other fusions, then each witness alone."""
    chosen, combine, stages = DEFAULT.witnesses, DEFAULT.combine, DEFAULT.stages
    rows = [ScoreRule("default", chosen, combine, stages), ScoreRule("default, not in stages", chosen, combine)]
    rows.append(ScoreRule("default, equal sum", chosen, "sum", stages))
    for left_out in chosen:
        rows.append(
            ScoreRule(f"default without {left_out}", tuple(w for w in chosen if w != left_out), combine, stages)
        )
    rows.append(ScoreRule("default, margin and inside", (*chosen, "margin", "inside"), combine, stages))
    return rows + [ScoreRule(name, (name,), None) for name in NAMES]


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


def material_sets(path: Path) -> dict[str, Pixels]:
    """Known surfaces at places not trained on; new pictures of the materials, other materials, what is no surface."""
    with np.load(path, allow_pickle=False) as data:
        fit, ind, _ = np.split(data["held_out"], [FITTED_OF, FITTED_OF + TESTED])
        near = {
            str(name): data["left_out"][data["left_out_labels"] == i] for i, name in enumerate(data["left_out_classes"])
        }
        sets = {"fit": fit, "ind": ind, "new pictures": data["unseen"]} | near | {"photos": data["photographs"]}
    border = (ind.shape[1] - SIDE) // 2
    for name, stored in (("clothes", "fashion-test"), ("digits", "digits")):
        grey = np.pad(load_set(stored).images, [(0, 0), (border, border), (border, border)])
        sets[name] = np.repeat(grey[..., None], 3, axis=3)
    return sets


def measure_sets(
    bundle_path: Path, sets: Mapping[str, Pixels], plan: Plan, limit: int | None, batch: int, threads: int
) -> MeasuredWitnesses:
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
    return MeasuredWitnesses(
        fitted.columns, {name: {r: np.stack(rows) for r, rows in by.items()} for name, by in found.items()}
    )


def _write(folder: Path, images: Pixels) -> Path:
    folder.mkdir()
    for index, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{index:04d}.png")
    return folder


def score(rule: ScoreRule, measured: MeasuredWitnesses) -> ScoredSets:
    """Scores of every set by one rule, fitted on the columns."""
    chosen, last = [NAMES.index(name) for name in rule.witnesses], max(measured.columns)
    if rule.combine is None:
        scores = {name: found[last][:, chosen[0]] for name, found in measured.sets.items()}
        return ScoredSets(scores.pop("ind"), scores)
    columns = {r: {name: found[name] for name in rule.witnesses} for r, found in measured.columns.items()}
    stages = [fit_stage(repeats, columns[repeats], rule.combine) for repeats in rule.stages]
    fitted, repeats = fit_witnesses(columns[last], rule.combine), (*rule.stages, last)
    scores = {
        name: score_in_stages(stages, fitted, rule.combine, [found[r][:, chosen] for r in repeats])[0]
        for name, found in measured.sets.items()
    }
    return ScoredSets(scores.pop("ind"), scores)


def score_all(measured: MeasuredWitnesses, fast: MeasuredWitnesses) -> dict[str, ScoredSets]:
    """All rows' scores by name, the default's first, the fast plan's from its own pass second."""
    found = {rule.name: score(rule, measured) for rule in score_rules()}
    default = next(iter(found))
    return {default: found[default], "fast": score(ScoreRule("fast", FAST.witnesses, FAST.combine), fast), **found}


def compare(scores: Mapping[str, ScoredSets]) -> list[RuleResult]:
    """The numbers of every rule, and the default against each on the same images."""
    default = next(iter(scores.values()))
    return [
        RuleResult(
            name,
            {key: auroc(scored.ind, found) for key, found in scored.sets.items()},
            mean_auroc_interval(scored),
            mean_fpr_interval(scored),
            mean_auroc_difference(default, scored),
            compare_fpr(default, scored).ratio,
        )
        for name, scored in scores.items()
    ]


def table(rows: list[RuleResult]) -> str:
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
    parser.add_argument("--materials", type=Path, help="file of build_materials, whose surfaces are in-distribution")
    parser.add_argument("--seed", type=int, nargs="+", default=[0], help="of the noise; one table each")
    parser.add_argument("--limit", type=int, help="images of each set; all without")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    sets = fashion_sets()
    if arguments.digits or arguments.materials:
        sets = digit_sets(arguments.digits) if arguments.digits else material_sets(arguments.materials)
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
        rows = compare(score_all(measured, fast))
        count = len(measured.columns[DEFAULT.repeats]["jump"])
        print(f"\nseed {seed}, fitted on {count}\n\n{table(rows)}", flush=True)
        found[str(seed)] = {"fitted_on": count, "rows": [asdict(row) for row in rows]}
    arguments.output.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
