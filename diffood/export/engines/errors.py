"""Explains to the user what goes wrong while an engine is built, from what TensorRT logged. Imports no TensorRT."""

import re

from diffood.errors import ExportError, MissingExtraError
from diffood.runtime.bundle.engines import EngineLibrary
from diffood.runtime.child import KILLED, describe_exit

# What operators of our graphs need, where a builder refuses them.
NEEDS = {
    "GroupNormalization": "needs TensorRT 10.9 or newer, or graphs exported with --opset 20",
    "Attention": "needs TensorRT 10.14 or newer, or graphs of a lower --opset",
    "QuantizeLinear": "must be symmetric int8, with a zero point of 0",
    "DequantizeLinear": "must be symmetric int8, with a zero point of 0 and no int32 bias",
}
# "ITensor::getDimensions: Error Code 4: API Usage Error (" and "…Error Code 1: Myelin ([pass.cpp:337: check] "
WHERE = re.compile(r"^.*?Error Code \d+: [^(\n]*\((?:\[[^\]\n]*\] )?")
MOST_NAMED = 5  # unsupported nodes in one message


def missing_library(library: EngineLibrary, error: Exception) -> MissingExtraError:
    """A module is not installed, or one of its own libraries cannot be loaded."""
    if isinstance(error, ModuleNotFoundError):
        what = f"{error.name}, which is not installed"
    else:
        what = f"a library that cannot be loaded ({error})"
    return MissingExtraError(f"`--engine {library}` needs {what}: pip install 'diffood[{library}]'")


def cannot_build_here(reason: str) -> ExportError:
    """TensorRT finds no GPU here, or cannot be loaded. reason: a sentence that says which."""
    return ExportError(
        f"`--engine tensorrt` builds on the GPU that the engine will run on, which failed: {reason} "
        "`--engine tensorrt-rtx --gpu sm89` builds without a GPU."
    )


def library_too_old(version: str, oldest: tuple[int, int]) -> ExportError:
    """The installed TensorRT cannot build what diffood exports."""
    return ExportError(
        f"TensorRT {version} is installed, {oldest[0]}.{oldest[1]} or newer is needed: upgrade it, or JetPack."
    )


def describe_node(name: str, operator: str, said: str) -> str:
    """One refused node, for a message. said: by the parser, a C++ condition with a sentence in it."""
    node = f"node {name!r} (operator {operator})"
    if operator in NEEDS:
        return f"{node} {NEEDS[operator]}"
    if said == "false" or "Plugin not found" in said:
        return f"{node} is not supported"
    reason = _sentence(said.partition("\n")[2] or said.rpartition(": ")[2])
    return f"{node} is refused ({reason})"


def _sentence(said: str) -> str:
    """The sentence in a message of TensorRT, without its place in the source and without its advice."""
    return re.split(r"\. |;|\n", WHERE.sub("", said))[0].strip()


def graph_refused(library: str, graph: str, nodes: list[str]) -> ExportError:
    """The parser refused a graph. library: with its version; nodes: as describe_node gives them."""
    if not nodes:
        return ExportError(f"{library} cannot read {graph} as ONNX. Export the bundle again.")
    more = f"; and {len(nodes) - MOST_NAMED} more" if len(nodes) > MOST_NAMED else ""
    return ExportError(
        f"{library} cannot build {graph}: {'; '.join(nodes[:MOST_NAMED])}{more}. Export the model without that, with "
        f"another --opset or --precision, or install a newer {library.split(maxsplit=1)[0]}."
    )


def build_failed(library: str, graph: str, workspace_mb: int | None, logged: list[str]) -> ExportError:
    """The builder failed on a parsed graph. logged: its errors, the last one says why it gave up."""
    said = " ".join(logged).lower()
    if any(words in said for words in ("outofmemory", "out of memory", "insufficient memory")):
        reason = "memory ran out. Lower --workspace or the largest batch of --engine-batch, or close other programs."
    elif "workspace" in said:
        limit = f"{workspace_mb} MB" if workspace_mb else "all there is"
        reason = f"a node needs more than --workspace allows ({limit}). Raise it, or lower the largest batch."
    else:
        reason = f"the builder says: {_sentence(logged[-1])}. "
        if "any implementation" in said:  # TensorRT also says so where memory was too small to try one
            reason += "Often memory is what lacks: lower the largest batch of --engine-batch. "
        reason += f"Try another --precision or --opset, or a newer {library.split(maxsplit=1)[0]}."
    return ExportError(f"{library} cannot build {graph}: {reason}")


def builder_died(library: str, code: int, last_words: str) -> ExportError:
    """The builder's process ended without an answer. code: as subprocess gives it, negative for a signal."""
    how = f"the {library} builder ended: {describe_exit(code)}"
    if code == KILLED:
        return ExportError(f"{how}. Lower --workspace or the largest batch of --engine-batch, or close other programs.")
    said = f"; it said last: {last_words}" if last_words else ""
    return ExportError(f"{how}{said}. Try another --precision, a lower largest batch, or another version of {library}.")
