"""Plans in stages on real images: the same scores as of a pass that never ends early, at its true cost."""

import itertools
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from endless_stream import Endless

from diffood.calibration.fusing.fusion import fit_fusion
from diffood.calibration.fusing.stages import stop_early
from diffood.errors import UsageError
from diffood.runtime.bundle.bundle import Bundle
from diffood.runtime.bundle.fusion import Fusion
from diffood.runtime.detector import BATCHES_PER_TURN, Detector
from diffood.runtime.inputs.open import list_inputs
from diffood.runtime.method.fusion import fuse
from diffood.runtime.method.plan import DEFAULT, Plan
from diffood.runtime.method.witnesses.registry import measurable, measure
from diffood.runtime.sessions import Session, StageTensors
from diffood.zoo.images import unpack_set

Pixels = npt.NDArray[np.uint8]

BATCH = 8
STAGED = DEFAULT.changed({"start_times": (120, 240), "stride": 120, "repeats": 4, "stages": (0, 1, 2), "seed": 3})
ONE_STEP = DEFAULT.changed({"start_times": (120,), "stride": 120, "repeats": 1, "guidance": 0.0})


class Counting:
    """A session that counts the images of each stage."""

    def __init__(self, session: Session) -> None:
        self._session, self.batch, self.threads = session, session.batch, session.threads
        self.backend, self.precision, self.engine_sha256 = session.backend, session.precision, session.engine_sha256
        self.images: dict[int, int] = {}

    def run(self, stage: int, feeds: StageTensors) -> StageTensors:
        self.images[stage] = self.images.get(stage, 0) + len(feeds["image"])
        return self._session.run(stage, feeds)


@pytest.fixture(scope="module")
def images(clothes: Pixels, digits: Pixels) -> Pixels:
    """Twenty in- and twenty out-of-distribution images, in turn."""
    return np.stack([clothes[:20], digits[:20]], axis=1).reshape(40, 28, 28)


@pytest.fixture(scope="module")
def fusion(small_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Fusion:
    """Fitted on forty clothes, with a limit at stage 1 that lets a few digits through, so that all stages are seen."""
    folder = tmp_path_factory.mktemp("staged") / "images"
    unpack_set("fashion-validation", folder, 40)
    detector = Detector.load(small_bundle, STAGED, batch=BATCH, threads=1)
    return fit_fusion(detector, list_inputs([str(folder)])).fusion


@pytest.fixture(scope="module")
def detector(small_bundle: Bundle, fusion: Fusion) -> Detector:
    """A detector that ends images early."""
    return Detector.load(small_bundle, STAGED, batch=BATCH, threads=1, fusion=fusion)


def stages_of(detector: Detector, images: Pixels) -> list[int]:
    return [result.stage for _, result in detector.stream(enumerate(images[:, None]))]


def test_scores_are_those_of_a_pass_that_never_ends_early(detector: Detector, fusion: Fusion, images: Pixels) -> None:
    never = Detector(detector.bundle, STAGED, detector.session)
    record = fusion.record
    repeats = (*STAGED.stages, STAGED.repeats)
    fitted = (*(rule.witnesses for rule in record.stages), record.witnesses)
    rows = [
        [
            fuse(witnesses, STAGED.combine, measure(measurable(STAGED.witnesses, r), evidence.first(r)))
            for r, witnesses in zip(repeats, fitted, strict=True)
        ]
        for _, evidence in never.observe(enumerate(images[:, None]))
    ]
    expected, stage = stop_early(np.array(rows), record.stages)
    found = detector.score(images)
    np.testing.assert_array_equal(found.score, expected)
    assert stages_of(detector, images) == (stage + 1).tolist()
    assert set(stage) == {0, 1, 2, 3}  # else the above would say little
    cost = STAGED.evaluations(detector.bundle.tables(STAGED), 1)
    assert found.evaluations.tolist() == [repeats[j] * cost for j in stage]


def test_score_and_stage_do_not_depend_on_order_or_company(
    detector: Detector, images: Pixels, subtests: pytest.Subtests
) -> None:
    for seed in [0, 1]:
        with subtests.test(seed=seed):
            together, stages = detector.score(images), stages_of(detector, images)
            rows = np.random.default_rng(seed).permutation(len(images))[: 40 - 13 * seed]
            np.testing.assert_array_equal(detector.score(images[rows]).score, together.score[rows])
            assert stages_of(detector, images[rows]) == [stages[row] for row in rows]


def test_no_evaluation_is_spent_that_is_not_counted(small_bundle: Bundle, fusion: Fusion, images: Pixels) -> None:
    session = Counting(Detector.load(small_bundle, STAGED, batch=BATCH, threads=1).session)
    found = Detector(small_bundle, STAGED, session, fusion).score(images)
    spent = [0, 1, 1, 2]  # repeats of each stage
    repeats = sum(spent[stage] * count for stage, count in session.images.items())
    assert session.images[0] == len(images) > session.images[3] > 0
    assert repeats * STAGED.evaluations(small_bundle.tables(STAGED), 1) == found.evaluations.sum()


def test_a_stream_pulls_no_more_than_it_works_on(
    small_bundle: Bundle, fusion: Fusion, images: Pixels, subtests: pytest.Subtests
) -> None:
    for case, high in {"all end at once": -1e9, "as fitted": None}.items():
        with subtests.test(case=case):
            record = fusion.record
            if high is not None:
                first = record.stages[0].model_copy(update={"high": high})
                record = record.model_copy(update={"stages": (first, *record.stages[1:])})
            streaming = Detector.load(small_bundle, STAGED, batch=BATCH, threads=1, fusion=Fusion(record))
            source = Endless(images)
            for number, (key, _) in enumerate(itertools.islice(streaming.stream(source), 60)):
                assert key == number
                assert source.pulled <= number + BATCHES_PER_TURN * BATCH


def test_reconstruction_is_the_same_with_and_without_the_jump(small_bundle: Bundle, images: Pixels) -> None:
    kept = ONE_STEP.changed({"witnesses": ("reconstruction",)})
    found = Detector.load(small_bundle, kept, batch=BATCH, threads=1).score(images)
    assert np.isnan(found.by_start).all()
    both = ONE_STEP.changed({"witnesses": ("jump", "reconstruction")})
    with_jump = Detector.load(small_bundle, both, batch=BATCH, threads=1).observe(enumerate(images[:, None]))
    expected = [measure(("reconstruction",), evidence)[0] for _, evidence in with_jump]
    np.testing.assert_array_equal(found.score, expected)


def test_impossible_stages_are_refused(subtests: pytest.Subtests) -> None:
    for fields, words in [
        ({"stages": (4,)}, "end before the last of 4 repeats"),
        ({"stages": (2, 1)}, "ascend"),
        ({"stages": (0,), "witnesses": ("jump", "reconstruction")}, "cannot be measured there"),
    ]:
        with subtests.test(fields=fields, words=words), pytest.raises(UsageError, match=words):
            STAGED.changed(fields)


def test_fewer_repeats_lose_the_stages_after_them() -> None:
    assert STAGED.changed({"repeats": 2}).stages == (0, 1)
    assert STAGED.changed({"repeats": 2, "stages": (1,)}).stages == (1,)


def test_a_fusion_of_other_stages_is_refused(small_bundle: Bundle, fusion: Fusion) -> None:
    other: Plan = STAGED.changed({"stages": (1,)})
    with pytest.raises(UsageError, match=r"stages \[0, 1, 2\].*the plan .*stages \[1\]"):
        Detector.load(small_bundle, other, batch=BATCH, threads=1, fusion=fusion)


def test_one_witness_in_stages_is_fitted_too(small_bundle: Bundle, clothes_folder: Path) -> None:
    alone = ONE_STEP.changed({"witnesses": ("jump",), "repeats": 2, "stages": (1,)})
    assert alone.fused
    found = fit_fusion(
        Detector.load(small_bundle, alone, batch=BATCH, threads=1), list_inputs([str(clothes_folder)])[:24]
    ).fusion
    assert [rule.repeats for rule in found.record.stages] == [1]
