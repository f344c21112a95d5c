"""The twenty detectors by name. None looks at an out-of-distribution image."""

from collections.abc import Callable

from diffood.runtime.method.scoring import Float
from diffood.runtime.method.witnesses.logits import energy, logit_norm, max_logit, msp
from research.scorers.distances import (
    fit_fdbd,
    fit_knn,
    fit_mds,
    fit_mds_normalised,
    fit_nci,
    fit_neco,
    fit_nnguide,
    fit_rmds,
    fit_vim,
)
from research.scorers.given import FittingImages, Score
from research.scorers.logits import fit_klm, gen
from research.scorers.shaping import fit_adascale, fit_ash, fit_react, fit_scale, fit_weiper


def _of_logits(measure: Callable[[Float], Float]) -> Callable[[FittingImages], Score]:
    return lambda _: lambda images: measure(images.logits)


SCORERS: dict[str, Callable[[FittingImages], Score]] = {
    "MSP": _of_logits(msp),
    "MaxLogit": _of_logits(max_logit),
    "Energy": _of_logits(energy),
    "GEN": _of_logits(gen),
    "logit norm": _of_logits(logit_norm),
    "KLM": fit_klm,
    "KNN": fit_knn,
    "MDS": fit_mds,
    "MDS++": fit_mds_normalised,
    "RMDS": fit_rmds,
    "ViM": fit_vim,
    "NECO": fit_neco,
    "fDBD": fit_fdbd,
    "NNGuide": fit_nnguide,
    "NCI": fit_nci,
    "ReAct": fit_react,
    "ASH": fit_ash,
    "SCALE": fit_scale,
    "AdaSCALE": fit_adascale,
    "WeiPer": fit_weiper,
}
