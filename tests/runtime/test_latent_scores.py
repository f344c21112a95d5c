"""Latent bundles at run time: the method written a second time gives the same scores; no image knows its company."""

import runpy
import shutil
from pathlib import Path
from typing import Any

import exported
import latent_models
import numpy as np
import numpy.typing as npt
import pytest
from detector_files import assert_answers_as_detector
from second_writing import Classify, Models, by_hand, diffusers, noise_levels, torch
from stage_graphs import assert_whole_agrees

from diffood.bench.plain_loop import PlainLoop
from diffood.calibration.calibrate import calibrate_files
from diffood.calibration.fusing.fusion import fit_fusion
from diffood.runtime.assembly.recipe import make_recipe
from diffood.runtime.bundle.bundle import Bundle, open_bundle
from diffood.runtime.detector import Detector
from diffood.runtime.inputs.open import list_inputs
from diffood.runtime.method.fusion import fuse
from diffood.runtime.method.plan import Plan
from diffood.runtime.method.witnesses.registry import measure

Pixels = npt.NDArray[np.uint8]

BATCH = 5  # divides no case's trajectories
PLAN = Plan(start_times=(10, 21), stride=7, repeats=2, guidance=2.0)
UNGUIDED = PLAN.changed({"guidance": 0.0})
REFERENCE = PLAN.changed({"schedule": "reference"})


@pytest.fixture(scope="module")
def four(clothes: Pixels, digits: Pixels) -> Pixels:
    """Two in-distribution and two out-of-distribution images, uint8 [4, 1, 28, 28]."""
    return np.concatenate([clothes[:2], digits[:2]])[:, None]


@pytest.fixture(scope="module")
def vq_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle of a UNet2DModel without labels and its VQModel, as LDMPipeline saves them."""
    return exported.copy_exported(exported.VQ, tmp_path_factory.mktemp("vq") / "bundle")


def classify(pipeline: Path) -> Classify:
    """The pipeline's classifier."""
    model = runpy.run_path(str(pipeline / "small.py"))["small"]().eval()
    return lambda x: model((x + 1) / 2)


def levels() -> Any:
    """alpha_bar of the pipelines' scheduler."""
    return noise_levels(diffusers.DDPMScheduler(num_train_timesteps=latent_models.STEPS))


@pytest.fixture(scope="module")
def dit_models(dit_pipeline: Path) -> Models:
    """What `dit_bundle` was exported from, asked as diffusers asks it."""
    vae = diffusers.AutoencoderKL.from_pretrained(dit_pipeline / "vae").eval()
    scale, shift = vae.config.scaling_factor, vae.config.shift_factor
    return Models(
        unet=diffusers.DiTTransformer2DModel.from_pretrained(dit_pipeline / "transformer").eval(),
        alpha_bar=levels(),
        prediction="epsilon",
        classify=classify(dit_pipeline),
        labels=latent_models.CLASSES + 1,
        encode=lambda x: (vae.encode(x).latent_dist.mode() - shift) * scale,
        decode=lambda z: vae.decode(z / scale + shift).sample,
    )


@pytest.fixture(scope="module")
def vq_models() -> Models:
    """What the other bundle was exported from."""
    vq_pipeline = exported.models_of(exported.VQ)
    vqvae = diffusers.VQModel.from_pretrained(vq_pipeline / "vqvae").eval()
    scale = vqvae.config.scaling_factor
    return Models(
        unet=diffusers.UNet2DModel.from_pretrained(vq_pipeline / "unet").eval(),
        alpha_bar=levels(),
        prediction="epsilon",
        classify=classify(vq_pipeline),
        encode=lambda x: vqvae.encode(x).latents * scale,
        decode=lambda z: vqvae.decode(z / scale).sample,
    )


def assert_same_scores(models: Models, bundle: Bundle, plan: Plan, pixels: Pixels) -> None:
    with torch.inference_mode():
        expected = by_hand(models, plan, pixels)
    assert expected.by_start.min() > 0.05, "a score of nearly zero compares nothing"
    detector = Detector.load(bundle, plan, batch=BATCH, threads=1)
    np.testing.assert_allclose(detector.score(pixels).by_start, expected.by_start, rtol=0, atol=1e-4)
    found = [evidence.denoised for _, evidence in detector.observe(enumerate(pixels))]
    np.testing.assert_allclose(np.stack(found), expected.denoised[:, 0, -1].numpy(), rtol=0, atol=1e-4)
    assert np.abs(np.stack(found)).max() <= 1
    assert_whole_agrees(make_recipe(bundle, plan, "fp32"), pixels, expected)


def test_a_dit_scores_as_a_second_writing_of_the_method(
    dit_models: Models, dit_bundle: Bundle, four: Pixels, subtests: pytest.Subtests
) -> None:
    for case, plan in {
        "textbook": PLAN,
        "unguided": UNGUIDED,
        "reference": REFERENCE,
        "pndm4": PLAN.changed({"sampler": "pndm4"}),
        "features": REFERENCE.changed({"space": "features"}),
    }.items():
        with subtests.test(case=case):
            assert_same_scores(dit_models, dit_bundle, plan, four)


def test_a_latent_unet_with_a_code_book_scores_as_a_second_writing_of_the_method(
    vq_models: Models, vq_bundle: Bundle, four: Pixels, subtests: pytest.Subtests
) -> None:
    for schedule in ["textbook", "reference"]:
        with subtests.test(schedule=schedule):
            plan = UNGUIDED.changed({"schedule": schedule, "repeats": 1})
            assert_same_scores(vq_models, vq_bundle, plan, four)


def test_half_precision_is_near_and_a_half_that_overflows_in_it_stays_as_it_was(
    dit_bundle: Bundle, four: Pixels
) -> None:
    files = {graph.role: graph.file for graph in dit_bundle.manifest.graphs if graph.precision == "fp16"}
    assert (files["encode"], files["decode"]) == ("encode.fp16.onnx", "decode.onnx")
    assert set(dit_bundle.graph("decode", "fp16").weights) == {"float32"}
    (line,) = [line for line in exported.lines_of(exported.DIT) if "stays fp32" in line]
    assert line.split(maxsplit=1) == [
        "decode",
        "stays fp32 in the fp16 variant: decode.fp16.onnx overflows: x is not finite, batch 1.",
    ]
    assert not (dit_bundle.path / "decode.fp16.onnx").exists()
    exact, halved = (
        Detector.load(dit_bundle, PLAN, precision=precision, batch=BATCH, threads=1).score(four)
        for precision in ("fp32", "fp16")
    )
    assert (exact.score != halved.score).all()
    np.testing.assert_allclose(exact.score, halved.score, rtol=0.05)


def test_a_score_does_not_depend_on_the_order_or_the_company(
    dit_bundle: Bundle, clothes: Pixels, digits: Pixels, subtests: pytest.Subtests
) -> None:
    for schedule in ["textbook", "reference"]:
        with subtests.test(schedule=schedule):
            pixels = np.concatenate([clothes[:4], digits[:5]])[:, None]
            detector = Detector.load(dit_bundle, PLAN.changed({"schedule": schedule}), batch=4, threads=1)
            together = detector.score(pixels)
            order = np.random.default_rng(0).permutation(len(pixels))
            np.testing.assert_array_equal(detector.score(pixels[order]).by_start, together.by_start[order])
            for row in (0, 8):
                np.testing.assert_array_equal(detector.score(pixels[[row]]).by_start[0], together.by_start[row])
            wider = Detector.load(dit_bundle, detector.plan, batch=7, threads=1).score(pixels)
            np.testing.assert_array_equal(wider.by_start, together.by_start)


def test_plans_that_end_images_early_give_the_scores_of_the_stage_they_ended_at(
    dit_bundle: Bundle, clothes_folder: Path, clothes: Pixels
) -> None:
    choices = {"witnesses": ("jump", "reconstruction", "energy"), "stages": (0, 1), "repeats": 3}
    plan = PLAN.changed(choices)
    files = list_inputs([str(clothes_folder)])[:40]
    fusion = fit_fusion(Detector.load(dit_bundle, plan, batch=BATCH, threads=1), files).fusion
    detector = Detector.load(dit_bundle, plan, batch=BATCH, threads=1, fusion=fusion)
    results = [result for _, result in detector.stream(enumerate(clothes[:20, None]))]
    ended = {result.evidence.repeats for result in results}
    assert ended >= {1, 3}  # else the next lines would say little
    stages = (*(rule.witnesses for rule in fusion.record.stages), fusion.record.witnesses)
    for result in results:
        witnesses = stages[result.stage - 1]
        values = measure(tuple(witness.name for witness in witnesses), result.evidence)
        assert result.score == fuse(witnesses, plan.combine, values)


def test_the_detector_file_answers_what_the_detector_answers(
    dit_bundle: Bundle, folder: Path, clothes: Pixels, digits: Pixels, tmp_path: Path
) -> None:
    path = Path(shutil.copytree(dit_bundle.path, tmp_path / "bundle"))
    plan = PLAN.changed({"witnesses": ("jump", "reconstruction", "energy"), "stages": (0, 1)})
    detector = Detector.load(open_bundle(path), plan, batch=BATCH, threads=1)
    calibrate_files(detector, list_inputs([str(folder)]), 0.1, 0.9, "pac").save()
    answer = assert_answers_as_detector(path, np.concatenate([clothes[:10], digits[:10]])[:, None])
    assert len(set(answer["stage"].tolist())) > 1


def test_the_loop_by_hand_around_the_graphs_gives_the_same_scores(dit_bundle: Bundle, four: Pixels) -> None:
    for plan in (REFERENCE, PLAN):
        expected = Detector.load(dit_bundle, plan, batch=BATCH, threads=1).score(four).by_start
        found = PlainLoop(dit_bundle, plan, threads=1, rows=8).score(four)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


def test_a_fingerprint_names_both_halves_of_the_autoencoder(dit_bundle: Bundle, small_bundle: Bundle) -> None:
    mine = Detector.load(dit_bundle, UNGUIDED, batch=2, threads=1).fingerprint
    files = dit_bundle.manifest.files
    assert (mine.encode_sha256, mine.decode_sha256) == (files["encode.onnx"].sha256, files["decode.onnx"].sha256)
    other = mine.model_copy(update={"decode_sha256": "0" * 64})
    assert other != mine
    assert mine.difference(other) == f"decode_sha256: {files['decode.onnx'].sha256[:16]} there, {'0' * 16} here"
    pixel = Detector.load(small_bundle, small_bundle.plan("plain"), batch=2, threads=1).fingerprint
    assert "decode_sha256: None there" in pixel.difference(mine)
