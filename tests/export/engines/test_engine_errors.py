"""What is said when an engine cannot be built, for what no machine without a GPU can bring about."""

import importlib.util
import sys

import pytest

from diffood.errors import ExportError, MissingExtraError
from diffood.export.engines.build import ask_platform
from diffood.export.engines.errors import build_failed, builder_died, describe_node, graph_refused

TENSORRT = importlib.util.find_spec("tensorrt") is not None


FAILURES = [
    (
        ["[virtualMemoryBuffer.cpp::resizePhysical::145] Error Code 2: OutOfMemory (no further information)"],
        "memory ran out. Lower --workspace or the largest batch",
    ),
    (
        ["Requested amount of GPU memory could not be allocated: out of memory", "Error Code 10: Internal Error ("],
        "memory ran out",
    ),
    (
        ["IBuilder: Error Code 1: Myelin ([tactic.cpp:1: f] Tactic Selection: no tactics within workspace limit.)"],
        "a node needs more than --workspace allows (512 MB). Raise it",
    ),
    (
        [
            "IBuilder::buildSerializedNetwork: Error Code 10: Internal Error (Could not find any implementation "
            "for node {ForeignNode[a...b]}. In computeCosts at optimizer/cgraph/tactics.cpp:1)"
        ],
        "says: Could not find any implementation for node {ForeignNode[a...b]}. Often memory is what lacks",
    ),
]


def test_a_failed_build_says_what_to_change() -> None:
    for logged, message in FAILURES:
        said = str(build_failed("tensorrt 10.9", "step.onnx", 512, logged))
        assert said.startswith("tensorrt 10.9 cannot build step.onnx: ")
        assert message in said
        assert ".cpp" not in said


def test_an_operator_newer_than_tensorrt_says_which_version_or_opset_it_needs() -> None:
    node = describe_node("norm_1", "GroupNormalization", 'creator && "Plugin not found"')
    assert node == (
        "node 'norm_1' (operator GroupNormalization) needs TensorRT 10.9 or newer, or graphs exported with --opset 20"
    )


def test_many_refused_nodes_are_counted_and_not_listed() -> None:
    said = str(graph_refused("tensorrt 10.3", "step.onnx", [f"node {index}" for index in range(12)]))
    assert "node 4; and 7 more. " in said
    assert "node 5" not in said


def test_a_death_is_told_by_its_cause() -> None:
    for code, message in (
        (-9, "probably out of memory. Lower --workspace"),
        (-6, "crashed with signal 6, SIGABRT; it said last: terminate called"),
        (3221225477, "stopped with exit code 3221225477"),
        (0, "stopped with exit code 0"),
    ):
        said = str(builder_died("tensorrt", code, "terminate called"))
        assert said.startswith("the tensorrt builder ")
        assert message in said


@pytest.mark.skipif(TENSORRT, reason="TensorRT is installed")
def test_tensorrt_that_is_not_installed_names_the_extra() -> None:
    with pytest.raises(MissingExtraError, match=r"pip install 'diffood\[tensorrt\]'"):
        ask_platform("tensorrt")


@pytest.mark.skipif(sys.platform == "darwin" or not TENSORRT, reason="TensorRT is not installed")
def test_tensorrt_builds_for_the_gpu_of_this_machine_or_says_that_it_finds_none() -> None:
    try:
        platform = ask_platform("tensorrt")
    except ExportError as error:
        assert "--engine tensorrt-rtx" in str(error)
    else:
        assert platform.gpu
        assert len(platform.compute_capabilities) == 1
