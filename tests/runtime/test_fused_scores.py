"""Fused scores on real images: the same in any batch, order and number of threads, and those of a second writing."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from diffood.calibration.fusing.fusion import fit_fusion
from diffood.errors import UsageError
from diffood.runtime.bundle.bundle import Bundle
from diffood.runtime.bundle.fusion import Fusion
from diffood.runtime.detector import Detector
from diffood.runtime.inputs.open import list_inputs
from diffood.runtime.method.plan import DEFAULT
from diffood.zoo.images import unpack_set

Pixels = npt.NDArray[np.uint8]

# One UNet evaluation an image where only invariance is looked at; every witness that there is a bank or a pass for.
FAST = DEFAULT.changed({"start_times": (120,), "stride": 120, "repeats": 1, "guidance": 0.0})
WITH_BANK = FAST.changed({"witnesses": (*DEFAULT.witnesses, "margin", "inside")})
SHAPE = (8, 1)  # batch and threads
CLOSE = 1e-5  # another batch may sum in another order; on some CPUs it does not, and the difference is 0


@pytest.fixture(scope="module")
def fusion(small_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Fusion:
    """Fitted on thirty clothes."""
    folder = tmp_path_factory.mktemp("fused") / "images"
    unpack_set("fashion-validation", folder, 30)
    detector = Detector.load(small_bundle, WITH_BANK, batch=SHAPE[0], threads=SHAPE[1])
    return fit_fusion(detector, list_inputs([str(folder)])).fusion


@pytest.fixture(scope="module")
def both(clothes: Pixels, digits: Pixels) -> Pixels:
    """Twelve in-distribution and nine out-of-distribution images, no multiple of any batch but 1 and 3."""
    return np.concatenate([clothes[:12], digits[:9]])


@pytest.fixture(scope="module")
def expected(small_bundle: Bundle, fusion: Fusion, both: Pixels) -> npt.NDArray[np.float64]:
    """Scores at SHAPE."""
    score = open_with(small_bundle, fusion, *SHAPE).score(both).score
    assert len(set(score.tolist())) == len(both)  # so that a mixed-up order shows
    return score


def open_with(bundle: Bundle, fusion: Fusion, batch: int, threads: int) -> Detector:
    return Detector.load(bundle, WITH_BANK, batch=batch, threads=threads, fusion=fusion)


def test_another_batch_or_number_of_threads_gives_the_same_scores(
    small_bundle: Bundle, fusion: Fusion, both: Pixels, expected: npt.NDArray[np.float64]
) -> None:
    for batch, threads in itertools.product((1, 3, 8, 32), (1, 2)):
        detector = open_with(small_bundle, fusion, batch, threads)
        assert detector.session.batch == batch
        case = f"batch {batch}, {threads} threads"
        np.testing.assert_allclose(detector.score(both).score, expected, rtol=CLOSE, atol=CLOSE, err_msg=case)


def test_another_order_or_company_gives_the_same_bytes_on_the_same_shape(
    small_bundle: Bundle, fusion: Fusion, both: Pixels, expected: npt.NDArray[np.float64]
) -> None:
    detector = open_with(small_bundle, fusion, *SHAPE)
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(len(both))
        assert np.array_equal(detector.score(both[order]).score, expected[order])
    assert np.array_equal(detector.score(both[5:16]).score, expected[5:16])
    assert np.array_equal(np.concatenate([detector.score(image[None]).score for image in both]), expected)
    assert np.array_equal(open_with(small_bundle, fusion, *SHAPE).score(both).score, expected)  # and opened anew


def test_a_detector_refuses_the_fusion_of_another_plan(small_bundle: Bundle, fusion: Fusion) -> None:
    plain = small_bundle.plan("plain").changed({"guidance": 0.0})
    with pytest.raises(UsageError, match=r"combines jump, .*, margin, inside by tail, the plan jump by tail"):
        Detector.load(small_bundle, plain, batch=1, threads=1).with_fusion(fusion)
    with pytest.raises(UsageError, match=r"inside by tail, the plan jump, .*, inside by sum"):
        Detector.load(small_bundle, WITH_BANK.changed({"combine": "sum"}), batch=1, threads=1, fusion=fusion)


# --- a second writing --------------------------------------------------------------------------------------------


@pytest.fixture
def _one_thread() -> Iterator[None]:
    """Models this small only lose by more threads."""
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def raised(u: Any, power: float) -> Any:
    """Box and Cox's transform of values of at least 1."""
    return u.log() if power == 0 else (u**power - 1) / power


@pytest.mark.usefixtures("_one_thread")
@pytest.mark.parametrize("changes", [{}, {"start_times": (120, 240), "stride": 60, "guidance": 0.0}])
def test_the_default_witnesses_are_those_of_a_second_writing(
    small_bundle: Bundle, clothes: Pixels, digits: Pixels, changes: dict[str, object], tmp_path: Path
) -> None:
    """Within a thousandth of each witness's spread, and the fused score with them."""
    pytest.importorskip("diffusers")
    from second_writing import Tensor, by_hand, load_small_models, torch

    plan = DEFAULT.changed({"stages": (), **changes})
    pixels = np.concatenate([clothes[:5], digits[:5]])[:, None]
    with torch.inference_mode():
        seen = by_hand(load_small_models(small_bundle), plan, pixels)

    def blur(size: int) -> Tensor:
        """The matrix of a Gaussian of one pixel, cut at four, the picture mirrored beyond its border."""
        matrix = torch.zeros(size, size, dtype=torch.float64)
        weights = torch.exp(-(torch.arange(-4, 5, dtype=torch.float64) ** 2) / 2)
        for row in range(size):
            for step, weight in zip(range(-4, 5), weights / weights.sum(), strict=True):
                place = row + step
                matrix[row, -1 - place if place < 0 else 2 * size - 1 - place if place >= size else place] += weight
        return matrix

    height, width = blur(28), blur(28)
    blurred = height @ (seen.denoised.double() - seen.x[:, None, None].double()) @ width.T
    logits = torch.from_numpy(seen.logits).double()
    wanted = {
        "jump": torch.from_numpy(seen.by_start).mean(dim=1),
        "reconstruction": blurred.pow(2).mean(dim=(1, 2, 3, 4, 5)).sqrt(),
        "logit_norm": -(logits - logits.mean(dim=1, keepdim=True)).norm(dim=1),
        "energy": -torch.logsumexp(logits, dim=1),
    }
    assert plan.witnesses == tuple(wanted)
    expected = torch.stack([wanted[name] for name in plan.witnesses], dim=1)
    unpack_set("fashion-validation", tmp_path / "images", 20)
    detector = Detector.load(small_bundle, plan, batch=5, threads=1)
    detector = detector.with_fusion(fit_fusion(detector, list_inputs([str(tmp_path / "images")])).fusion)
    assert detector.fusion is not None
    found = detector.score(pixels)
    spread = expected.std(dim=0).numpy()
    assert np.all(np.abs(found.witnesses - expected.numpy()) <= 1e-3 * spread)

    fused = torch.zeros(len(pixels), dtype=torch.float64)
    for one, column in zip(detector.fusion.record.witnesses, expected.T, strict=True):
        v = (column - one.center) / one.scale
        above, below = raised(1 + v.clamp(min=0), one.power), -raised(1 - v.clamp(max=0), 2 - one.power)
        z = (torch.where(v >= 0, above, below) - one.center_bent) / one.scale_bent
        fused += one.weight * -torch.special.log_ndtr(-z)
    fused = fused.numpy()
    assert np.all(np.abs(found.score - fused) <= 1e-3 * fused.std())
