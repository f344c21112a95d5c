"""The official loop in torch: the same scores as the detector's, in both conventions, and only of the same models."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from diffood import zoo
from diffood.errors import ExportError
from diffood.runtime.bundle.bundle import Bundle
from diffood.runtime.detector import Detector
from diffood.runtime.images.pixels import from_pixels
from diffood.runtime.method.noise import content_key, draw_noise
from diffood.runtime.method.plan import REFERENCE, Plan

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from diffood.bench.torch_loop import are_of, open_torch_loop
from diffood.export.sources.classifiers.source import ClassifierSource
from diffood.export.sources.model_sources import ModelSources

ZOO = ModelSources(zoo.UNET, ClassifierSource(f"{zoo.CLASSIFIER}:{zoo.FACTORY}", zoo.CLASSIFIER_WEIGHTS))
CHEAP = REFERENCE.changed({"start_times": (120,), "stride": 60, "repeats": 2})  # 2 steps, twice, doubled


@pytest.mark.parametrize(
    "plan",
    [
        REFERENCE,
        REFERENCE.changed({"schedule": "textbook"}),
        CHEAP.changed({"guidance": 0.0}),
    ],
    ids=["as the paper's code", "textbook", "unguided"],
)
def test_scores_are_the_detectors(
    zoo_bundle: Bundle, clothes: npt.NDArray[np.uint8], digits: npt.NDArray[np.uint8], plan: Plan
) -> None:
    x = from_pixels(np.concatenate([clothes[:2], digits[:2]])[:, None])
    drawn = [[draw_noise(content_key(image), plan.seed, r, image.shape) for image in x] for r in range(plan.repeats)]
    loop = open_torch_loop(zoo.BUNDLE, ZOO, plan, 1, False, rows=16)
    with torch.inference_mode():
        found = loop.score(torch.from_numpy(x), torch.from_numpy(np.array(drawn))).numpy()
    expected = Detector.load(zoo_bundle, plan, batch=12, threads=1).score(x)
    np.testing.assert_allclose(found, expected.by_start, atol=1e-3)
    assert loop.evaluations == 4 * Detector.load(zoo_bundle, plan, threads=1).evaluations


def test_every_image_takes_the_plans_evaluations_whatever_the_batch(clothes: npt.NDArray[np.uint8]) -> None:
    x = from_pixels(clothes[:5, None])
    for rows in (1, 4, 64):  # images a batch: one, two, all
        assert open_torch_loop(zoo.BUNDLE, ZOO, CHEAP, 1, False, rows=rows).run(x) == 5 * 8


def test_models_of_another_bundle_are_refused(zoo_bundle: Bundle, tmp_path: Path) -> None:
    assert are_of(zoo_bundle.manifest, ZOO)
    unpaired = ModelSources(zoo.UNET, ClassifierSource(f"{zoo.CLASSIFIER}:{zoo.FACTORY}"))  # random weights
    assert not are_of(zoo_bundle.manifest, unpaired)
    with pytest.raises(ExportError, match="classifier's weights"):
        open_torch_loop(zoo.BUNDLE, unpaired, CHEAP, 1, False, rows=4)


def test_a_plan_the_loop_does_not_know_is_refused() -> None:
    with pytest.raises(ExportError, match="pndm4"):
        open_torch_loop(zoo.BUNDLE, ZOO, CHEAP.changed({"sampler": "pndm4"}), 1, False, rows=4)


def test_a_compiler_that_is_missing_leaves_the_row_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "/no/such/compiler")
    monkeypatch.setattr(torch._inductor.config.cpp, "cxx", ("/no/such/compiler",))
    monkeypatch.setattr(torch._inductor.config, "force_disable_caches", True)
    with pytest.raises(ExportError, match=r"torch\.compile does not work here"):
        open_torch_loop(zoo.BUNDLE, ZOO, CHEAP, 1, True, rows=2)
