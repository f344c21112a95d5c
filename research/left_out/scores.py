"""Scores of every set of a cache by the field's detectors and by the project's own plans."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from diffood.calibration.fusing.witnesses import fit_witnesses
from diffood.calibration.metrics.intervals import ScoredSets
from diffood.runtime.method.fusion import fuse
from diffood.runtime.method.plan import DEFAULT, FAST, PLAIN
from diffood.runtime.method.scoring import Float, jump
from diffood.runtime.method.witnesses.logits import energy, logit_norm
from research.left_out.cache import SplitCache, noising_key
from research.left_out.fusing import fit_in_stages, fit_tail
from research.left_out.own import score_own
from research.scorers.diffusion import fit_cfs, fit_diffpath
from research.scorers.given import ClassifiedImages, FittingImages, LinearHead, Score
from research.scorers.registry import SCORERS

CFS_BLOCKS = ("down_blocks.1", "up_blocks.1")
OWN = "diffood "  # begins the names of the project's plans
EVALUATIONS = {
    "diffood default": "3",
    "diffood snapshot": "0.5",
    "diffood fast": "1",
    "diffood plain": "4",
    **dict.fromkeys(("fDBD of x̂", "MDS++ of x̂", "RMDS of x̂", "AdaSCALE by x̂", "candidate", "CFS"), "1"),
    "DiffPath-6D": "10",
}
"""UNet evaluations of an image; all other detectors need none. Two are means: half of the images end a stage before."""


def score_all(cache: SplitCache) -> dict[str, ScoredSets]:
    """Scores of the test images and of all out-of-distribution sets by detector.

    The project's come first; a cache without a UNet, and without what a bundle says, has those of the field alone.
    """
    found = {}
    if cache.denoised_too:
        found["diffood default"] = _scored(cache, _fit_default(cache))
        found["diffood fast"] = _scored(cache, _fit_fast(cache))
        found["diffood plain"] = _scored(cache, lambda name: _jumps(cache, name, PLAIN.repeats))
    given = fitting_images(cache)
    if cache.denoised_too:
        found |= _score_denoised(cache, given)
    for detector, fit in SCORERS.items():
        found[detector] = _scored(cache, partial(_score_of, fit(given), partial(classified, cache)))
    paths = cache.path.with_suffix(".paths.npz")
    found |= _score_by_diffusion(paths) if paths.exists() else {}
    own = cache.path.with_suffix(".own.npz")
    return (score_own(own) if own.exists() else {}) | found


def _score_denoised(cache: SplitCache, given: FittingImages) -> dict[str, ScoredSets]:
    """Detectors of the field on the image denoised by one evaluation, fitted on clean images, and a fusion with these.

    AdaSCALE has the denoised image in the place of the perturbed one. The candidate is what did best of some forty
    fusions on the clothes without classes 3, 7 and 9: reconstruction, fDBD and MDS++ of the image, RMDS of x̂.
    """
    key = f"{noising_key(FAST.start_times[0])}/one"
    fitted = {detector: SCORERS[detector](given) for detector in ("fDBD", "MDS++", "RMDS")}

    def denoised(name: str) -> ClassifiedImages:
        logits, features = (cache[f"{name}/{key}/{kind}"].astype(np.float64) for kind in ("logits", "features"))
        return ClassifiedImages(logits, features)

    def moved(name: str) -> ClassifiedImages:
        return replace(classified(cache, name), perturbed=denoised(name).features)

    def parts(name: str) -> list[Float]:
        images = classified(cache, name)
        own = [fitted[detector](images) for detector in ("fDBD", "MDS++")]
        return [cache[f"{name}/{key}/reconstruction"], *own, fitted["RMDS"](denoised(name))]

    candidate = fit_tail(parts("validation"))
    adascale = SCORERS["AdaSCALE"](replace(given, validation=moved("validation")))
    found = {"candidate": _scored(cache, lambda name: candidate(parts(name)))}
    for detector, score in fitted.items():
        found[f"{detector} of x̂"] = _scored(cache, partial(_score_of, score, denoised))
    return found | {"AdaSCALE by x̂": _scored(cache, partial(_score_of, adascale, moved))}


def _score_of(score: Score, images: Callable[[str], ClassifiedImages], name: str) -> Float:
    return score(images(name))


def _score_by_diffusion(path: Path) -> dict[str, ScoredSets]:
    """Scores by CFS and DiffPath-6D, of as many images of each set as were taken."""
    cache = SplitCache(path)
    cfs, diffpath = fit_cfs(_snapshots(cache, "validation")), fit_diffpath(cache["validation/path"])
    names = [key.removesuffix("/path") for key in cache.keys if key.endswith("/path")]
    scores: dict[str, dict[str, Float]] = {
        "CFS": {name: cfs(_snapshots(cache, name)) for name in names if name != "validation"},
        "DiffPath-6D": {name: diffpath(cache[f"{name}/path"]) for name in names if name != "validation"},
    }
    return {detector: ScoredSets(by.pop("test"), by) for detector, by in scores.items()}


def _snapshots(cache: SplitCache, name: str) -> Float:
    return np.concatenate([cache.block(name, "blocks", block) for block in CFS_BLOCKS], 1)


def _scored(cache: SplitCache, score: Callable[[str], Float]) -> ScoredSets:
    sets = [name for name in cache.sets if name.startswith(("near-", "far-"))]
    return ScoredSets(score("test"), {name: score(name) for name in sets})


def classified(cache: SplitCache, name: str) -> ClassifiedImages:
    """What the classifier says of a set."""
    logits, features, perturbed = (
        cache[f"{name}/{key}"].astype(np.float64) for key in ("logits", "features", "perturbed")
    )
    return ClassifiedImages(logits, features, perturbed)


def fitting_images(cache: SplitCache) -> FittingImages:
    """What detectors of the field are fitted on."""
    head = LinearHead(cache["head_weight"].astype(np.float64), cache["head_bias"].astype(np.float64))
    return FittingImages(classified(cache, "train"), cache["train/labels"], classified(cache, "validation"), head)


def _jumps(cache: SplitCache, name: str, repeats: int) -> Float:
    """The paper's score [N] by the plain plan, after one repeat or both."""
    (start,), norm = PLAIN.start_times, PLAIN.norm
    before = cache[f"{name}/logits"]
    after = [cache[f"{name}/{noising_key(start, repeat)}/guided/logits"] for repeat in range(repeats)]
    return np.asarray(np.mean([jump(before, logits, norm) for logits in after], 0))


def _witnesses(cache: SplitCache, name: str, repeats: int) -> dict[str, Float]:
    """Values of the default plan's witnesses after so many repeats."""
    (start,), logits = DEFAULT.start_times, cache[f"{name}/logits"]
    errors = [cache[f"{name}/{noising_key(start, repeat)}/guided/reconstruction"] for repeat in range(repeats)]
    found = {
        "jump": _jumps(cache, name, repeats),
        "reconstruction": np.sqrt(np.mean(np.square(errors), 0)),
        "logit_norm": logit_norm(logits),
        "energy": energy(logits),
    }
    return {witness: found[witness] for witness in DEFAULT.witnesses}


def _fit_default(cache: SplitCache) -> Callable[[str], Float]:
    """The default plan, fitted on the validation images as `calibrate` fits it."""
    repeats = (*DEFAULT.stages, DEFAULT.repeats)
    columns = {count: _witnesses(cache, "validation", count) for count in repeats}
    return fit_in_stages(
        DEFAULT, columns, lambda name, count: np.stack(list(_witnesses(cache, name, count).values()), 1)
    )


def _fit_fast(cache: SplitCache) -> Callable[[str], Float]:
    """The plan of one evaluation without guidance, likewise."""

    def measure(name: str) -> Mapping[str, Float]:
        logits = cache[f"{name}/logits"]
        error = cache[f"{name}/{noising_key(FAST.start_times[0])}/one/reconstruction"]
        found = {"reconstruction": error, "logit_norm": logit_norm(logits), "energy": energy(logits)}
        return {witness: found[witness] for witness in FAST.witnesses}

    fitted = fit_witnesses(measure("validation"), FAST.combine)
    return lambda name: fuse(fitted, FAST.combine, np.stack(list(measure(name).values()), 1))
