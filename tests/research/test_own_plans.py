"""What a bundle's own graphs say of a split's images scores as its detector does once it is calibrated on them."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffood.calibration.fusing.fusion import fit_fusion
from diffood.runtime.bundle.bundle import Bundle
from diffood.runtime.detector import Detector
from diffood.runtime.inputs.open import list_inputs
from research.left_out.own import PLANS, extract_own, score_own
from research.left_out.sets import split_sets

LIMIT = 40


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory, real_garments: Path, small_bundle: Bundle) -> Path:
    path = tmp_path_factory.mktemp("own") / "clothes-0.own.npz"
    extract_own(small_bundle.path, real_garments, (3, 7, 9), path, LIMIT, threads=1)
    return path


@pytest.mark.parametrize("name", list(PLANS))
def test_scores_are_those_of_the_detector(
    written: Path, real_garments: Path, small_bundle: Bundle, tmp_path: Path, name: str
) -> None:
    found = score_own(written)[name]
    sets = split_sets(real_garments, (3, 7, 9))
    for index, image in enumerate(sets["validation"].images[:LIMIT]):
        Image.fromarray(image).save(tmp_path / f"{index:02d}.png")
    bare = Detector.load(small_bundle, PLANS[name], batch=16, threads=1)
    detector = bare.with_fusion(fit_fusion(bare, list_inputs([str(tmp_path)])).fusion)
    for key, scores in {"test": found.ind, "near-3": found.sets["near-3"]}.items():
        images = sets[key].images[:LIMIT, None]
        np.testing.assert_allclose(detector.score(images).score, scores, rtol=1e-3, atol=1e-4, err_msg=key)
