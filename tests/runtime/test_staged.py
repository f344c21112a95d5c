"""Stages over a batch: each image has the score of the stage that ends it, whatever company it is in."""

import numpy as np
import numpy.typing as npt
import pytest
from stage_graphs import Found, run_plan, witness_values

from diffood.calibration.fusing.fusion import fit_fusion
from diffood.runtime.assembly.recipe import Recipe, list_stages, make_recipe
from diffood.runtime.bundle.bundle import Bundle
from diffood.runtime.bundle.fusion import Fusion
from diffood.runtime.detector import Detector
from diffood.runtime.inputs.open import list_inputs
from diffood.runtime.judge import FusionJudge
from diffood.runtime.method.fusion import fuse
from diffood.runtime.method.plan import DEFAULT, Plan
from diffood.runtime.method.scoring import Float
from diffood.runtime.method.witnesses.registry import measurable
from diffood.runtime.sessions import Session, SessionRequest
from diffood.runtime.sessions.backends import open_session
from diffood.runtime.staged import StagePart, run_stages
from diffood.zoo.images import unpack_set

Pixels = npt.NDArray[np.uint8]
PLAN = DEFAULT.changed({"start_times": (120,), "stride": 120, "repeats": 3, "guidance": 0.0, "stages": (0, 1)})


@pytest.fixture(scope="module")
def fusion(small_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Fusion:
    folder = tmp_path_factory.mktemp("images")
    unpack_set("fashion-validation", folder, 80)
    detector = Detector.load(small_bundle, PLAN, batch=16, threads=1)
    return fit_fusion(detector, list_inputs([str(folder)])).fusion


@pytest.fixture(scope="module")
def images(clothes: Pixels, digits: Pixels) -> Pixels:
    return np.concatenate([clothes[:24], digits[:16]])[:, None]


@pytest.fixture(scope="module")
def recipe(small_bundle: Bundle) -> Recipe:
    return make_recipe(small_bundle, PLAN, "fp32")


@pytest.fixture(scope="module")
def engine(small_bundle: Bundle) -> Session:
    return open_with(small_bundle, PLAN, threads=2)


@pytest.fixture(scope="module")
def found(recipe: Recipe, images: Pixels) -> Found:
    return run_plan(recipe, images)


def open_with(bundle: Bundle, plan: Plan, threads: int) -> Session:
    return open_session("onnxruntime-cpu", SessionRequest(bundle, plan, "fp32", batch=8, threads=threads))


def scores_of(parts: list[StagePart], count: int) -> Float:
    scores = np.full(count, np.nan)
    for part in parts:
        scores[part.rows] = part.judgement.scores
    return scores


def test_each_image_has_the_score_of_the_stage_that_ends_it(
    engine: Session, fusion: Fusion, images: Pixels, found: Found
) -> None:
    parts = run_stages(engine, list_stages(PLAN), images, FusionJudge(PLAN, fusion))
    assert sorted(np.concatenate([part.rows for part in parts]).tolist()) == list(range(len(images)))
    assert len(parts) > 1, "no image ends early: nothing is chosen"
    record = fusion.record
    for part in parts:
        repeats, last = part.stage.last, part.stage.number == len(record.stages)
        names = PLAN.witnesses if last else measurable(PLAN.witnesses, repeats)
        fitted = record.witnesses if last else record.stages[part.stage.number].witnesses
        values = witness_values(found, names, repeats)[part.rows]
        np.testing.assert_allclose(part.judgement.scores, fuse(fitted, record.combine, values), rtol=1e-4)
        for row, score in zip(part.rows, part.judgement.scores, strict=True):
            ends = [rule.ends(float(score)) for rule in record.stages if rule.repeats == repeats]
            assert last or ends == [True], row


def test_a_score_does_not_depend_on_the_order_nor_the_company_nor_the_threads(
    small_bundle: Bundle, engine: Session, fusion: Fusion, images: Pixels
) -> None:
    judge, stages = FusionJudge(PLAN, fusion), list_stages(PLAN)
    together = scores_of(run_stages(engine, stages, images, judge), len(images))
    order = np.random.default_rng(0).permutation(len(images))
    turned = scores_of(run_stages(engine, stages, images[order], judge), len(images))
    np.testing.assert_array_equal(turned, together[order])
    alone = open_with(small_bundle, PLAN, threads=1)
    for rows in ([0], [7, 30, 2], [39, 38, 37, 36, 35]):
        few = scores_of(run_stages(alone, stages, images[rows], judge), len(rows))
        np.testing.assert_array_equal(few, together[rows])


def test_the_first_denoised_image_is_kept(engine: Session, fusion: Fusion, images: Pixels, found: Found) -> None:
    for part in run_stages(engine, list_stages(PLAN), images, FusionJudge(PLAN, fusion)):
        if part.stage.last == 0:
            assert part.evidence.denoised is None
            continue
        assert part.evidence.denoised is not None
        np.testing.assert_allclose(part.evidence.denoised, found["denoised"][part.rows], rtol=0, atol=2e-5)


def test_a_plan_of_one_witness_is_that_witness(small_bundle: Bundle, images: Pixels) -> None:
    plan = Plan(start_times=(60, 120), stride=60, repeats=2, guidance=0.0)
    recipe = make_recipe(small_bundle, plan, "fp32")
    (part,) = run_stages(open_with(small_bundle, plan, 1), list_stages(plan), images[:5], FusionJudge(plan, None))
    expected = witness_values(run_plan(recipe, images[:5]), ("jump",), 2)
    np.testing.assert_allclose(part.judgement.scores, expected[:, 0], rtol=1e-4)
    assert part.rows.tolist() == [0, 1, 2, 3, 4]
