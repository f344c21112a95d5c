"""Every detector of the field against a second writing of it, and laws that all of them keep."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from sklearn.covariance import EmpiricalCovariance
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler, normalize

from diffood.calibration.metrics.rates import auroc
from diffood.runtime.method.scoring import Float
from research.scorers.distances import KNN_NEIGHBOUR, NNGUIDE_NEIGHBOURS
from research.scorers.given import ClassifiedImages, FittingImages, LinearHead
from research.scorers.registry import SCORERS

CLASSES, WIDTH = 5, 100
GENERATOR = np.random.default_rng(7)
CENTRES = np.abs(GENERATOR.normal(0, 1.5, (CLASSES, WIDTH))) * (GENERATOR.random((CLASSES, WIDTH)) < 0.5)
HEAD = LinearHead((CENTRES - CENTRES.mean(0)) / 15, GENERATOR.normal(0, 0.1, CLASSES))


def classified(features: Float) -> ClassifiedImages:
    moved = np.maximum(features + GENERATOR.normal(0, 0.05, features.shape), 0)
    return ClassifiedImages(HEAD.logits(features), features, moved)


def drawn(count: int) -> tuple[ClassifiedImages, np.ndarray]:
    labels = GENERATOR.integers(CLASSES, size=count)
    return classified(np.maximum(CENTRES[labels] + GENERATOR.normal(0, 0.4, (count, WIDTH)), 0)), labels


TRAINED, LABELS = drawn(400)
GIVEN = FittingImages(TRAINED, LABELS, drawn(200)[0], HEAD)
IND = drawn(80)[0]
OOD = classified(np.abs(GENERATOR.normal(0, 0.8, (80, WIDTH))))  # of no class


def logsumexp(logits: Float) -> Float:
    return np.log(np.exp(logits).sum(1))


def probabilities(logits: Float) -> Float:
    return np.exp(logits) / np.exp(logits).sum(1, keepdims=True)


def mahalanobis(fitted: Float, labels: np.ndarray, features: Float) -> Float:
    means = np.stack([fitted[labels == label].mean(0) for label in np.unique(labels)])
    centred = np.concatenate([fitted[labels == label] - means[k] for k, label in enumerate(np.unique(labels))])
    covariance = EmpiricalCovariance(assume_centered=True).fit(centred)
    return np.stack([covariance.mahalanobis(features - mean) for mean in means], 1)


def vim(images: ClassifiedImages) -> Float:
    origin = -np.linalg.lstsq(HEAD.weight, HEAD.bias, rcond=None)[0]
    covariance = EmpiricalCovariance(assume_centered=True).fit(TRAINED.features - origin).covariance_
    values, vectors = np.linalg.eig(covariance)
    residual = vectors[:, np.argsort(-values)[WIDTH // 2 :]].real
    alpha = TRAINED.logits.max(1).mean() / np.linalg.norm((TRAINED.features - origin) @ residual, axis=1).mean()
    return alpha * np.linalg.norm((images.features - origin) @ residual, axis=1) - logsumexp(images.logits)


def neco(images: ClassifiedImages) -> Float:
    scaler = StandardScaler().fit(TRAINED.features)
    pca = PCA(CLASSES).fit(scaler.transform(TRAINED.features))
    standard = scaler.transform(images.features)
    return -np.linalg.norm(pca.transform(standard), axis=1) / np.linalg.norm(standard, axis=1)


def fdbd(images: ClassifiedImages) -> Float:
    found = []
    for logits, features in zip(images.logits, images.features, strict=True):
        best = int(logits.argmax())
        others = [k for k in range(CLASSES) if k != best]
        reach = [(logits[best] - logits[k]) / np.linalg.norm(HEAD.weight[best] - HEAD.weight[k]) for k in others]
        found.append(-np.mean(reach) / np.linalg.norm(features - TRAINED.features.mean(0)))
    return np.array(found)


def nnguide(images: ClassifiedImages) -> Float:
    bank = normalize(TRAINED.features) * logsumexp(TRAINED.logits)[:, None]
    nearest = np.sort(normalize(images.features) @ bank.T, axis=1)[:, ::-1][:, :NNGUIDE_NEIGHBOURS]
    return -logsumexp(images.logits) * nearest.mean(1)


def nci(images: ClassifiedImages) -> Float:
    centred = images.features - TRAINED.features.mean(0)
    along = [h @ HEAD.weight[k] / np.sqrt(h @ h) for h, k in zip(centred, images.logits.argmax(1), strict=True)]
    return -np.array(along) - 0.0001 * images.features.sum(1)


def klm(images: ClassifiedImages) -> Float:
    fitted, predicted = probabilities(GIVEN.validation.logits), GIVEN.validation.logits.argmax(1)
    means = [fitted[predicted == k].mean(0) for k in set(predicted)]
    return np.array([min(float((p * np.log(p / d)).sum()) for d in means) for p in probabilities(images.logits)])


def with_largest(change: Callable[[Float, Float], Float], share: float) -> Callable[[ClassifiedImages], Float]:
    """Energy of features changed by what their largest are, row by row."""

    def score(images: ClassifiedImages) -> Float:
        found = []
        for row in images.features:
            largest = np.zeros(WIDTH)
            kept = np.argsort(-row)[: round(WIDTH * (1 - share))]
            largest[kept] = row[kept]
            found.append(change(row, largest) * np.exp(row.sum() / largest.sum()))
        return -logsumexp(HEAD.logits(np.array(found)))

    return score


def adascale(images: ClassifiedImages) -> Float:
    def moved(seen: ClassifiedImages, n: int) -> float:
        row, after = seen.features[n], seen.perturbed[n]
        order = np.argsort(-row)
        return after[order[:5]].sum() + 10 * np.abs(row - after)[order[:1]].sum()

    usual = [moved(GIVEN.validation, n) for n in range(200)]
    found = []
    for n in range(len(images.features)):
        share = 0.75 + 0.1 * np.mean([value > moved(images, n) for value in usual])
        one = ClassifiedImages(images.logits[n : n + 1], images.features[n : n + 1])
        found.append(with_largest(lambda row, _: row, round(WIDTH * share) / WIDTH)(one)[0])
    return np.array(found)


def weiper(images: ClassifiedImages) -> Float:
    draws = np.random.default_rng(0).standard_normal((100, CLASSES, WIDTH))
    layers = []
    for draw in draws:
        lengths = np.linalg.norm(HEAD.weight, axis=1)[:, None]
        layers.append(HEAD.weight + 1.8 * lengths * draw / np.linalg.norm(draw, axis=1)[:, None])
    found = -0.1 * np.mean([probabilities(images.features @ w.T + HEAD.bias).max(1) for w in layers], 0)

    def project(seen: ClassifiedImages) -> Float:
        return np.concatenate([seen.features @ w.T + HEAD.bias for w in layers], 1)

    for values, fitted, smoothing, floor, weight in (
        (images.features, TRAINED.features, 4, 0.01, 1.0),
        (project(images), project(TRAINED), 15, 0.025, 2.5),
    ):
        gap = (fitted.max() - fitted.min()) / len(fitted)
        edges = np.linspace(fitted.min() - gap, fitted.max() + gap, 101)
        typical = np.mean([np.histogram(row, edges)[0] / len(row) for row in fitted], 0) + floor
        typical /= typical.sum()
        for n, row in enumerate(values):
            padded = np.pad(np.histogram(row, edges)[0] / len(row), ((smoothing - 1) // 2, smoothing // 2), mode="edge")
            p = np.convolve(padded, np.full(smoothing, 1 / smoothing), "valid") + floor
            p /= p.sum()
            found[n] += weight * ((p * np.log(p / typical)).sum() + (typical * np.log(typical / p)).sum())
    return found


SECOND_WRITINGS: dict[str, Callable[[ClassifiedImages], Float]] = {
    "MSP": lambda images: -probabilities(images.logits).max(1),
    "MaxLogit": lambda images: -images.logits.max(1),
    "Energy": lambda images: -logsumexp(images.logits),
    "GEN": lambda images: np.array(
        [np.mean([(p * (1 - p)) ** 0.1 for p in row]) for row in probabilities(images.logits)]
    ),
    "logit norm": lambda images: -np.std(images.logits, axis=1) * np.sqrt(CLASSES),
    "KLM": klm,
    "KNN": lambda images: (
        NearestNeighbors(n_neighbors=KNN_NEIGHBOUR)
        .fit(normalize(TRAINED.features))
        .kneighbors(normalize(images.features))[0][:, -1]
    ),
    "MDS": lambda images: mahalanobis(TRAINED.features, LABELS, images.features).min(1),
    "MDS++": lambda images: mahalanobis(normalize(TRAINED.features), LABELS, normalize(images.features)).min(1),
    "RMDS": lambda images: (
        mahalanobis(TRAINED.features, LABELS, images.features).min(1)
        - mahalanobis(TRAINED.features, 0 * LABELS, images.features)[:, 0]
    ),
    "ViM": vim,
    "NECO": neco,
    "fDBD": fdbd,
    "NNGuide": nnguide,
    "NCI": nci,
    "ReAct": lambda images: (
        -logsumexp(
            HEAD.logits(images.features.clip(max=np.sort(TRAINED.features.ravel())[round(0.9 * TRAINED.features.size)]))
        )
    ),
    "ASH": with_largest(lambda _, largest: largest, 0.9),
    "SCALE": with_largest(lambda row, _: row, 0.85),
    "AdaSCALE": adascale,
    "WeiPer": weiper,
}


def test_detectors_equal_a_second_writing(subtests: pytest.Subtests) -> None:
    assert SCORERS.keys() == SECOND_WRITINGS.keys()
    for name, fit in SCORERS.items():
        with subtests.test(name):
            tolerance = 1e-3 if name == "ReAct" else 1e-7  # a quantile between two of 40,000 activations, and the upper
            for images in (IND, OOD):
                np.testing.assert_allclose(fit(GIVEN)(images), SECOND_WRITINGS[name](images), rtol=tolerance)


def test_detectors_score_each_image_by_itself_and_rank_what_is_of_no_class_higher(subtests: pytest.Subtests) -> None:
    for name, fit in SCORERS.items():
        with subtests.test(name):
            score = fit(GIVEN)
            ind, ood = score(IND), score(OOD)
            some = np.array([31, 4])
            chosen = ClassifiedImages(IND.logits[some], IND.features[some], IND.perturbed[some])
            np.testing.assert_allclose(score(chosen), ind[some], rtol=1e-9)
            assert auroc(ind, ood) > 0.9


def test_detectors_of_direction_do_not_see_how_long_features_are(subtests: pytest.Subtests) -> None:
    longer = replace(IND, features=3 * IND.features)
    for name in ("KNN", "MDS++"):
        with subtests.test(name):
            score = SCORERS[name](GIVEN)
            np.testing.assert_allclose(score(longer), score(IND), rtol=1e-9)


def test_detectors_equal_pytorch_ood(subtests: pytest.Subtests) -> None:
    theirs = pytest.importorskip("pytorch_ood.detector", reason="needs pytorch-ood 0.4", exc_type=ImportError)
    import torch

    def tensor(values: Float) -> torch.Tensor:
        return torch.from_numpy(np.asarray(values, np.float64))

    head = torch.nn.Linear(WIDTH, CLASSES, dtype=torch.float32)
    head.weight.data, head.bias.data = tensor(HEAD.weight).float(), tensor(HEAD.bias).float()
    features, labels = tensor(TRAINED.features).float(), torch.from_numpy(LABELS)

    def fitted(detector: object) -> object:
        return detector.fit_features(features, labels)  # type: ignore[attr-defined]

    def flat(maps: torch.Tensor) -> torch.Tensor:
        return head(maps.flatten(1))

    maps = lambda rows: tensor(rows).float()[:, :, None, None]  # noqa: E731
    react = theirs.ReAct(None, flat, percentile=0.9).fit_feature_maps(maps(TRAINED.features), labels)
    count = len(LABELS)  # their covariance is a sum
    cases: dict[str, Callable[[ClassifiedImages], torch.Tensor]] = {
        "MSP": lambda i: theirs.MaxSoftmax.score(tensor(i.logits)),
        "MaxLogit": lambda i: theirs.MaxLogit.score(tensor(i.logits)),
        "Energy": lambda i: theirs.EnergyBased.score(tensor(i.logits)),
        "GEN": lambda i: theirs.GEN.score(tensor(i.logits)),
        "KLM": lambda i: (
            theirs.KLMatching(None).fit_logits(tensor(GIVEN.validation.logits)).predict_logits(tensor(i.logits))
        ),
        "KNN": lambda i: fitted(theirs.KNN(None, k=KNN_NEIGHBOUR)).predict_features(tensor(i.features).float()),
        "MDS": lambda i: 2 * count * fitted(theirs.Mahalanobis(None)).predict_features(tensor(i.features).float()),
        "RMDS": lambda i: count * fitted(theirs.RMD(None)).predict_features(tensor(i.features).float()),
        "ViM": lambda i: fitted(theirs.ViM(None, WIDTH // 2, head.weight, head.bias)).predict_features(
            tensor(i.features)
        ),
        "fDBD": lambda i: fitted(theirs.fDBD(None, head)).predict_features(tensor(i.features)),
        "NNGuide": lambda i: fitted(theirs.NNGuide(None, head, k=NNGUIDE_NEIGHBOURS)).predict_features(
            tensor(i.features).float()
        ),
        "NCI": lambda i: fitted(theirs.NCI(None, head, alpha=0.0001)).predict_features(tensor(i.features)),
        "ReAct": lambda i: react.predict_feature_maps(maps(i.features)),
        "ASH": lambda i: theirs.ASH(None, flat, percentile=0.9).predict_feature_maps(maps(i.features)),
        "SCALE": lambda i: theirs.SCALE(None, flat, percentile=0.85).predict_feature_maps(maps(i.features)),
    }
    for name, their_score in cases.items():
        with subtests.test(name):
            rounding = 1e-3 if name == "ViM" else 1e-4  # they work in float32, some eigenvalues are close
            for images in (IND, OOD):
                expected = their_score(images).detach().numpy()
                np.testing.assert_allclose(SCORERS[name](GIVEN)(images), expected, rtol=2e-3, atol=rounding)
