"""Feature maps inside a network: which are found, and what is made of them."""

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest

from diffood.runtime.assembly.pooling import pool_maps, pooled_length
from diffood.runtime.assembly.recipe import make_recipe
from diffood.runtime.assembly.stage import classify_images
from diffood.runtime.bundle.bundle import Bundle
from diffood.runtime.method.plan import CLASSIFIER
from diffood.runtime.onnx import messages
from diffood.runtime.onnx.builder import GraphBuilder
from diffood.runtime.onnx.inner_maps import GROWING, MOST, SHRINKING, find_inner_maps

Pixels = npt.NDArray[np.uint8]


def test_they_are_what_a_network_knows_when_it_leaves_a_size(small_bundle: Bundle, zoo_bundle: Bundle) -> None:
    def sizes(bundle: Bundle, file: str, operators: tuple[str, ...]) -> list[tuple[int, int]]:
        graph = messages.Model.FromString((bundle.path / file).read_bytes()).graph
        return [(found.channels, found.height) for found in find_inner_maps(graph, operators)]

    assert sizes(small_bundle, "classify.onnx", SHRINKING) == [(1, 28), (6, 14), (12, 7)]
    # two networks side by side, each with three blocks
    assert sizes(zoo_bundle, "classify.onnx", SHRINKING) == [(24, 28), (64, 14), (128, 7)] * 2
    assert sizes(zoo_bundle, "step_plain.onnx", GROWING) == [(96, 7), (48, 14)]
    assert sizes(zoo_bundle, "classify.onnx", GROWING) == []


def test_a_graph_that_tells_no_shapes_has_none_and_many_of_a_size_are_the_last(zoo_bundle: Bundle) -> None:
    model = onnx.load_from_string((zoo_bundle.path / "classify.onnx").read_bytes())
    whole = find_inner_maps(model.graph, ("Relu", *SHRINKING))
    assert max([found.size for found in whole].count(size) for size in {found.size for found in whole}) <= MOST
    del model.graph.value_info[:]
    assert find_inner_maps(model.graph, SHRINKING) == ()


@pytest.fixture(scope="module")
def session(zoo_bundle: Bundle) -> onnxruntime.InferenceSession:
    """Images in; the zoo's maps, and what is made of them, out."""
    recipe, builder = make_recipe(zoo_bundle, CLASSIFIER, "fp32"), GraphBuilder()
    maps = recipe.inner["inside"]
    image = builder.input("image", messages.UINT8, ("batch", *recipe.image))
    x = image.cast(messages.FLOAT) / 127.5 - 1.0
    found = recipe.parts.classify(builder, {"x": x}, [inner.name for inner in maps])
    for index, inner in enumerate(maps):
        shape = ("batch", inner.channels, inner.height, inner.width)
        builder.output(f"map{index}", found[inner.name], messages.FLOAT, shape)
    builder.output(
        "pooled",
        pool_maps(maps, found),
        messages.FLOAT,
        ("batch", pooled_length(maps)),
    )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(builder.serialise(recipe.parts.domains), options)


def test_each_channel_gives_its_mean_and_deviation_of_unit_length_a_map(
    session: onnxruntime.InferenceSession, clothes: Pixels
) -> None:
    *maps, pooled = session.run(None, {"image": clothes[:8, None]})
    expected = []
    for found in maps:
        wide = found.astype(np.float64)
        both = np.concatenate([wide.mean(axis=(2, 3)), wide.std(axis=(2, 3))], axis=1)
        expected.append(both / np.linalg.norm(both, axis=1, keepdims=True))
    np.testing.assert_allclose(pooled, np.concatenate(expected, axis=1), rtol=1e-4, atol=1e-6)


def test_an_image_gives_the_same_bits_in_any_company(session: onnxruntime.InferenceSession, clothes: Pixels) -> None:
    images = clothes[:24, None]
    whole = session.run(["pooled"], {"image": images})[0]
    order = np.random.default_rng(0).permutation(24)
    assert np.array_equal(session.run(["pooled"], {"image": images[order]})[0], whole[order])


def test_the_witness_inside_is_given_out_by_the_stage_that_classifies(small_bundle: Bundle) -> None:
    recipe, builder = make_recipe(small_bundle, CLASSIFIER, "fp32"), GraphBuilder()
    traces = classify_images(recipe, builder.input("image", messages.UINT8, ("batch", *recipe.image)))
    assert traces.inner.keys() == {"inside"}
    assert recipe.width("inside") == 2 * (1 + 6 + 12)
    assert make_recipe(small_bundle, small_bundle.plan(None), "fp32").inner == {}
