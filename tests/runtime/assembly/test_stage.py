"""A stage's graph gives what the method written a second time gives, in every schedule, sampler and kind of stage."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from reconstruction import reconstruction
from second_writing import Models, by_hand, load_small_models, torch
from stage_graphs import Found, assert_whole_agrees, run_plan, run_stage

from diffood.runtime.assembly.noise import draw_noise
from diffood.runtime.assembly.recipe import Stage, list_stages, make_recipe
from diffood.runtime.assembly.stage import build_stage
from diffood.runtime.bundle.bundle import Bundle
from diffood.runtime.method.noise import make_pool
from diffood.runtime.method.plan import Plan
from diffood.runtime.onnx import messages
from diffood.runtime.onnx.builder import GraphBuilder

Pixels = npt.NDArray[np.uint8]

SCHEDULES, SAMPLERS = ("textbook", "reference"), ("ddim", "pndm2", "pndm4")


def plan(**choices: Any) -> Plan:
    """Two start times of three and six steps, two repeats, guided, unless chosen otherwise."""
    given = {"start_times": (120, 240), "stride": 40, "repeats": 2, "guidance": 2.0, **choices}
    return Plan.model_validate(given)


@pytest.fixture(scope="module")
def models(small_bundle: Bundle) -> Models:
    """The weights the small bundle was exported from."""
    return load_small_models(small_bundle)


@pytest.fixture(scope="module")
def four(clothes: Pixels, digits: Pixels) -> Pixels:
    """Two in-distribution and two out-of-distribution images, uint8 [4, 1, 28, 28]."""
    return np.concatenate([clothes[:2], digits[:2]])[:, None]


def assert_agrees(models: Models, bundle: Bundle, plan: Plan, pixels: Pixels) -> Found:
    recipe = make_recipe(bundle, plan, "fp32")
    with torch.inference_mode():
        expected = by_hand(models, plan, pixels)
    found = run_plan(recipe, pixels)
    assert expected.by_start.min() > 0, f"{plan}: a jump of zero compares nothing"
    np.testing.assert_allclose(found["jump"].mean(axis=1), expected.by_start, rtol=1e-3, err_msg=str(plan))
    np.testing.assert_allclose(found["denoised"], expected.denoised[:, 0, -1], rtol=0, atol=1e-4, err_msg=str(plan))
    np.testing.assert_allclose(found["logits"], expected.logits, rtol=1e-4, atol=1e-4)
    return found


CASES = {
    "samplers": [
        plan(schedule=schedule, sampler=sampler, guidance=guidance)
        for schedule in SCHEDULES
        for sampler in SAMPLERS
        for guidance in (2.0, 0.0)
    ],
    "comparisons": [
        plan(start_times=(60, 120), schedule=schedule, space=space, norm=norm, compare=compare, seed=5)
        for schedule in SCHEDULES
        for space, norm, compare in (
            ("logits", "l2", "neighbour"),
            ("features", "l1", "neighbour"),
            ("features", "l2", "origin"),
        )
    ],
    # One step; steps that a stride does not divide; starts that do not lie on one grid, two of equal length.
    "short or uneven": [
        plan(start_times=(480,), stride=480, repeats=1),
        *(plan(schedule=schedule, sampler="pndm4", start_times=(75, 125), stride=25) for schedule in SCHEDULES),
        *(plan(schedule=schedule, start_times=(50, 130, 333, 350), stride=60) for schedule in SCHEDULES),
    ],
}


@pytest.mark.parametrize("plans", CASES.values(), ids=CASES)
def test_a_stage_agrees_with_a_second_writing_of_the_method(
    models: Models, small_bundle: Bundle, four: Pixels, plans: list[Plan]
) -> None:
    for chosen in plans:
        assert_agrees(models, small_bundle, chosen, four)


@pytest.mark.parametrize(
    "plans",
    [
        pytest.param([plan(schedule="reference", sampler="pndm4", repeats=1)], id="one"),
        *(pytest.param(plans, id=name, marks=pytest.mark.slow) for name, plans in CASES.items()),
    ],
)
def test_the_whole_detector_agrees_with_a_second_writing_of_the_method(
    models: Models, small_bundle: Bundle, four: Pixels, plans: list[Plan]
) -> None:
    for chosen in plans:
        with torch.inference_mode():
            expected = by_hand(models, chosen, four)
        assert_whole_agrees(make_recipe(small_bundle, chosen, "fp32"), four, expected)


def test_stages_one_after_the_other_give_what_one_stage_gives(
    models: Models, small_bundle: Bundle, four: Pixels, subtests: pytest.Subtests
) -> None:
    for stages in [(0,), (1,), (0, 2)]:
        with subtests.test(stages=stages):
            names = ("jump", "reconstruction", "logit_norm", "energy", "max_logit", "msp")
            staged = plan(start_times=(120,), repeats=3, witnesses=names, stages=stages)
            found = assert_agrees(models, small_bundle, staged, four)
            whole = run_plan(make_recipe(small_bundle, staged.changed({"stages": ()}), "fp32"), four)
            assert found.keys() == whole.keys()
            for name, value in whole.items():
                np.testing.assert_allclose(found[name], value, rtol=0, atol=2e-5, err_msg=name)


def test_reconstruction_is_what_its_formula_gives(small_bundle: Bundle, four: Pixels) -> None:
    chosen = plan(witnesses=("reconstruction", "energy"), start_times=(240,), repeats=1)
    found = run_plan(make_recipe(small_bundle, chosen, "fp32"), four)
    assert found.keys() == {"logits", "features", "denoised", "sound", "reconstruction"}
    assert found["reconstruction"].shape == (4, 1, 1)
    by_image = np.sqrt(found["reconstruction"].mean(axis=(1, 2), dtype=np.float64))
    x = four.astype(np.float64) / 127.5 - 1
    by_formula = [reconstruction(image, end[None, None]) for image, end in zip(x, found["denoised"], strict=True)]
    np.testing.assert_allclose(by_image, by_formula, rtol=1e-5)


def test_noise_in_a_graph_is_that_of_numpy_to_the_bit(small_bundle: Bundle, subtests: pytest.Subtests) -> None:
    """Sums of one level, of two and of more, at the largest pixels too, where a sum would first leave float32."""
    for planes in [(1, 1, 1), (1, 28, 28), (3, 65, 33), (3, 256, 256)]:
        with subtests.test(planes=planes):
            size, latent = math.prod(planes), (2, 5, 3)
            recipe = make_recipe(small_bundle, plan(repeats=3, seed=2**40), "fp32")
            recipe = replace(recipe, image=planes, row=latent, pool=make_pool(2**40, 3, size, math.prod(latent)))
            assert recipe.pool is not None
            builder = GraphBuilder()
            image = builder.input("image", messages.UINT8, ("batch", *planes))
            builder.output("all", draw_noise(image, recipe, Stage(0, 0, 3)), messages.FLOAT, (3, "batch", *latent))
            builder.output("last", draw_noise(image, recipe, Stage(1, 2, 3)), messages.FLOAT, (1, "batch", *latent))
            pixels = np.random.default_rng(1).integers(0, 256, (17, *planes), dtype=np.uint8)
            pixels[0], pixels[1] = 0, 255
            expected = recipe.pool.draw(pixels, latent)
            found = run_stage(builder.serialise({"": 21}), image=pixels)
            np.testing.assert_array_equal(found["all"], expected)
            np.testing.assert_array_equal(found["last"], expected[2:])


@pytest.mark.parametrize("space", ["logits", "features"])
def test_evidence_of_an_image_does_not_depend_on_its_place_in_a_batch(
    small_bundle: Bundle, clothes: Pixels, digits: Pixels, space: str
) -> None:
    # In batches of eight: this UNet embeds a time in three sines a row, and ONNX Runtime takes those that do not fill
    # a vector one by one, by another function. Real embeddings fill whole vectors in each row.
    pixels = np.concatenate([clothes[:9], digits[:7]])[:, None]
    chosen = small_bundle.plan("default").changed({"space": space})
    model = build_stage(make_recipe(small_bundle, chosen, "fp32"), Stage(0, 0, 1))
    together = run_stage(model, image=pixels)
    assert together.keys() >= {"jump", "reconstruction"}
    for seed in range(5):
        order = np.random.default_rng(seed).permutation(len(pixels))
        for name, value in run_stage(model, image=pixels[order]).items():
            np.testing.assert_array_equal(value, together[name][order], err_msg=name)
    for name, value in run_stage(model, image=np.concatenate([pixels[:3], np.zeros_like(pixels[3:])])).items():
        np.testing.assert_array_equal(value[:3], together[name][:3], err_msg=name)


def test_what_is_assembled_multiplies_no_matrices(small_bundle: Bundle) -> None:
    """But for the models' own: TensorRT-RTX has no FP32 product of matrices for Turing GPUs, whose models are FP16."""

    def products(model: bytes) -> int:
        return sum(node.op_type in ("MatMul", "Gemm", "Einsum") for node in messages.Model.FromString(model).graph.node)

    (stage,) = list_stages(small_bundle.plan("fast"))
    found = products(build_stage(make_recipe(small_bundle, small_bundle.plan("fast"), "fp32"), stage))
    assert found == sum(products(small_bundle.read(f"{role}.onnx")) for role in ("classify", "step_plain")) > 0
