"""Calls of a fixed number of rows, shared among threads: whole, in order, the same rows whoever computes them."""

import itertools

import numpy as np
import numpy.typing as npt
import pytest
from fast_plans import FAST

from diffood.runtime.assembly.recipe import list_stages, make_recipe
from diffood.runtime.bundle.bundle import Bundle
from diffood.runtime.sessions import SessionRequest, StageTensors
from diffood.runtime.sessions.fixed_calls import FixedCalls
from diffood.runtime.sessions.onnxruntime import (
    ProviderSettings,
    fixed_calls,
    images_per_call,
    load_stage,
    open_session,
)
from diffood.zoo.images import load_set

Pixels = npt.NDArray[np.uint8]


@pytest.fixture(scope="module")
def images() -> Pixels:
    """Real images, clothes and others, uint8 [40, 1, 28, 28]."""
    return np.concatenate([load_set("fashion-test").images[:20], load_set("digits").images[:20]])[:, None]


def calls_of(bundle: Bundle, rows: int, threads: int) -> FixedCalls:
    recipe = make_recipe(bundle, FAST, "fp32")
    stage = load_stage(bundle.path, recipe, list_stages(FAST)[0], ProviderSettings(threads=1))
    return fixed_calls(stage, rows, threads)


def assert_equal(found: StageTensors, expected: StageTensors, rows: slice = slice(None)) -> None:
    assert found.keys() == expected.keys()
    for name, value in found.items():
        np.testing.assert_array_equal(value, expected[name][rows], err_msg=name)


def test_every_row_is_there_once_and_in_order_whoever_computes_it(
    small_bundle: Bundle, images: Pixels, subtests: pytest.Subtests
) -> None:
    for rows, threads in itertools.product([1, 3, 8], [1, 2, 3]):
        calls = calls_of(small_bundle, rows, threads)
        expected = calls.run({"image": images, "unused": images})
        for count in [0, 1, 2, 5, 17, 40]:
            with subtests.test(rows=rows, threads=threads, count=count):
                assert_equal(calls.run({"image": images[:count]}), expected, slice(count))
        backwards = calls.run({"image": images[::-1]})
        assert_equal({name: value[::-1] for name, value in backwards.items()}, expected)


def test_few_images_cost_few_rows() -> None:
    made: list[int] = []

    def call(feeds: StageTensors) -> StageTensors:
        made.append(len(feeds["image"]))
        return {"found": feeds["image"] * 2}

    for count, expected in [(1, [4]), (4, [4]), (9, [4, 4, 4])]:
        made.clear()
        found = FixedCalls(call, ["image"], 4).run({"image": np.arange(count)})
        assert made == expected
        assert found["found"].tolist() == [2 * number for number in range(count)]


def test_a_call_has_about_as_many_evaluations_whatever_the_plan(small_bundle: Bundle) -> None:
    for changes, expected in [({}, 4), ({"repeats": 2}, 2), ({"repeats": 2, "guidance": 2.0}, 1), ({"repeats": 9}, 1)]:
        recipe = make_recipe(small_bundle, FAST.changed(changes), "fp32")
        assert images_per_call(recipe, list_stages(recipe.plan)[0]) == expected, changes


def test_one_image_at_a_time_is_not_filled_up(small_bundle: Bundle, images: Pixels) -> None:
    """A call of one image, whose last bits may differ from those of a call of four."""
    many, one = (
        open_session("onnxruntime-cpu", SessionRequest(small_bundle, FAST, "fp32", batch, threads=1))
        for batch in (4, 1)
    )
    expected, found = many.run(0, {"image": images}), [one.run(0, {"image": image[None]}) for image in images]
    for name, value in expected.items():
        np.testing.assert_allclose(
            np.concatenate([each[name] for each in found]), value, rtol=0, atol=1e-5, err_msg=name
        )
    assert [calls.rows for calls in (*many._stages, *one._stages)] == [4, 1]


def test_an_error_in_any_share_is_raised_and_the_next_call_is_whole(small_bundle: Bundle, images: Pixels) -> None:
    session = open_session("onnxruntime-cpu", SessionRequest(small_bundle, FAST, "fp32", batch=8, threads=2))
    expected = session.run(0, {"image": images})
    with pytest.raises(Exception, match=r"[Ii]nvalid"):
        session.run(0, {"image": images[:, :, :14]})
    assert_equal(session.run(0, {"image": images}), expected)
