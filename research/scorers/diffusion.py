"""Two detectors of the field that ask a diffusion model, fitted on in-distribution images.

Not here: LMD (arXiv 2302.10326), which inpaints every image ten times in a thousand steps each.
"""

from collections.abc import Callable

import numpy as np
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from diffood.runtime.method.scoring import Float

SMALLEST_VARIANCE = 1e-6  # the authors' of CFS
COMPONENTS = 1, 5, 10, 20  # the authors' 50 and 100 are for 50,000 images; here it is fitted on a hundredth


def fit_cfs(activations: Float) -> Callable[[Float], Float]:
    """Canonical Feature Snapshots, CFS(1x2): Rouzoumka et al. 2026, arXiv 2605.11014, with the diagonal head.

    activations [N, S]: pooled means and deviations of an encoder and a decoder block at one low noise level. Gives the
    mean of squared standardised activations [N].
    """
    fitted = activations.astype(np.float64)
    mean, variance = fitted.mean(0), np.maximum(fitted.var(0), SMALLEST_VARIANCE)
    return lambda found: np.asarray(((found.astype(np.float64) - mean) ** 2 / variance).mean(1))


def fit_diffpath(statistics: Float) -> Callable[[Float], Float]:
    """DiffPath-6D: Heng et al. 2024, arXiv 2405.11881: minus the log density of a mixture of Gaussians, [N] of [N, 6].

    The mixture's size and form are chosen by cross-validation, as in the authors' code.
    """
    kinds = {"covariance_type": ["full", "tied", "diag", "spherical"], "n_components": list(COMPONENTS)}
    grid = {f"gaussianmixture__{name}": values for name, values in kinds.items()}
    model = make_pipeline(StandardScaler(), GaussianMixture(max_iter=200, random_state=0))
    chosen = GridSearchCV(model, grid, cv=10).fit(statistics).best_estimator_
    return lambda found: -np.asarray(chosen.score_samples(found))
