"""The official loop in torch: the same scores as the detector's, in both conventions, and only of the same models."""

import numpy as np
import numpy.typing as npt
import pytest

from diffood import zoo
from diffood.errors import ExportError
from diffood.runtime.bundle.bundle import Bundle
from diffood.runtime.detector import Detector
from diffood.runtime.images.pixels import from_pixels
from diffood.runtime.method.noise import make_pool
from diffood.runtime.method.plan import REFERENCE, Plan

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from diffood.bench.torch_loop import TorchVariant, open_torch_loop
from diffood.export.sources.classifiers.source import ClassifierSource
from diffood.export.sources.model_sources import ModelSources
from diffood.zoo.models import embedded_models

ZOO = ModelSources(zoo.UNET, ClassifierSource(f"{zoo.CLASSIFIER}:{zoo.FACTORY}", zoo.CLASSIFIER_WEIGHTS))
CHEAP = REFERENCE.changed({"start_times": (120,), "stride": 60, "repeats": 2})  # 2 steps, twice, doubled


def check_scores(plan: Plan, zoo_bundle: Bundle, clothes: npt.NDArray[np.uint8], digits: npt.NDArray[np.uint8]) -> None:
    pixels = np.concatenate([clothes[:2], digits[:2]])[:, None]
    size = pixels[0].size
    noise = make_pool(plan.seed, plan.repeats, size, size).draw(pixels, pixels.shape[1:])
    loop = open_torch_loop(zoo.BUNDLE, ZOO, plan, 1, TorchVariant(), rows=16)
    with torch.inference_mode():
        found = loop.score(torch.from_numpy(from_pixels(pixels)), torch.from_numpy(noise)).numpy()
    detector = Detector.load(zoo_bundle, plan, batch=4, threads=1)
    np.testing.assert_allclose(found, detector.score_pixels(pixels).by_start, atol=1e-3, err_msg=str(plan))
    assert loop.evaluations == 4 * detector.evaluations, plan


def test_scores_are_the_detectors(
    zoo_bundle: Bundle, clothes: npt.NDArray[np.uint8], digits: npt.NDArray[np.uint8]
) -> None:
    two_starts = CHEAP.changed({"start_times": (120, 240)})
    for plan in (two_starts, two_starts.changed({"schedule": "textbook"}), CHEAP.changed({"guidance": 0.0})):
        check_scores(plan, zoo_bundle, clothes, digits)


@pytest.mark.slow
def test_scores_of_the_papers_own_plan_are_the_detectors(
    zoo_bundle: Bundle, clothes: npt.NDArray[np.uint8], digits: npt.NDArray[np.uint8]
) -> None:
    check_scores(REFERENCE, zoo_bundle, clothes, digits)


def test_half_precision_gives_nearly_the_same_scores(clothes: npt.NDArray[np.uint8]) -> None:
    x = torch.from_numpy(from_pixels(clothes[:2, None]))
    noise = torch.randn(CHEAP.repeats, *x.shape, generator=torch.Generator().manual_seed(0))
    single, half = (
        open_torch_loop(zoo.BUNDLE, ZOO, CHEAP, 1, TorchVariant(half=half), rows=4) for half in (False, True)
    )
    with torch.inference_mode():
        found, wanted = half.score(x, noise), single.score(x, noise)
    assert found.dtype == torch.float32
    assert 0 < float((found - wanted).abs().max()) < 2e-2


def test_every_image_takes_the_plans_evaluations_whatever_the_batch(clothes: npt.NDArray[np.uint8]) -> None:
    for rows in (1, 4, 64):  # images a batch: one, two, all
        assert open_torch_loop(zoo.BUNDLE, ZOO, CHEAP, 1, TorchVariant(), rows=rows).run(clothes[:5, None]) == 5 * 8


def test_models_of_another_bundle_are_refused(zoo_bundle: Bundle, small_bundle: Bundle) -> None:
    assert embedded_models(zoo_bundle.manifest) == ZOO
    assert embedded_models(small_bundle.manifest) is None
    unpaired = ModelSources(zoo.UNET, ClassifierSource(f"{zoo.CLASSIFIER}:{zoo.FACTORY}"))  # random weights
    with pytest.raises(ExportError, match="classifier's weights"):
        open_torch_loop(zoo.BUNDLE, unpaired, CHEAP, 1, TorchVariant(), rows=4)


def test_a_plan_the_loop_does_not_know_is_refused() -> None:
    with pytest.raises(ExportError, match="pndm4"):
        open_torch_loop(zoo.BUNDLE, ZOO, CHEAP.changed({"sampler": "pndm4"}), 1, TorchVariant(), rows=4)


@pytest.mark.slow
def test_a_compiler_that_is_missing_leaves_the_row_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "/no/such/compiler")
    monkeypatch.setattr(torch._inductor.config.cpp, "cxx", ("/no/such/compiler",))
    monkeypatch.setattr(torch._inductor.config, "force_disable_caches", True)
    with pytest.raises(ExportError, match=r"torch\.compile does not work here"):
        open_torch_loop(zoo.BUNDLE, ZOO, CHEAP, 1, TorchVariant(compiled=True), rows=2)
