"""Exports one torch module to ONNX and proves it: dynamic batch, all weights in the bundle, outputs equal to torch."""

import contextlib
import io
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import torch
from onnx.external_data_helper import ExternalDataInfo, uses_external_data
from torch import nn

from diffood.errors import ExportError
from diffood.export.onnx.weights_file import WeightsFile
from diffood.export.request import OPSET
from diffood.runtime.bundle.operators import find_forbidden
from diffood.runtime.records import one_line

PROOF_BATCHES = (1, 2, 5)
ADVICE = " Try another torch or onnxruntime version."  # where a proof fails
EXAMPLE_BATCH = 2  # an example batch of 1 silently freezes the batch dimension

GraphInputs = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Proof:
    """What was measured.

    Attributes:
        error: Largest error against torch, relative to the largest output.
        rows: Inputs it was measured on.
    """

    error: float
    rows: int


def export_onnx(
    module: nn.Module,
    example: GraphInputs,
    outputs: tuple[str, ...],
    path: Path,
    opset: int = OPSET,
    weights: WeightsFile | None = None,
) -> str | None:
    """Write a module as ONNX with a dynamic batch.

    Args:
        module: In evaluation mode.
        example: Inputs by name, at least two rows: with one row torch freezes the batch.
        outputs: Names of its outputs.
        path: The file to write.
        opset: Of the graph.
        weights: File for large weights; None to keep them inside.

    Returns:
        Name of the file that holds the weights, None where the graph does.

    Raises:
        ExportError: torch cannot export it, or the batch froze.
    """
    batch = torch.export.Dim("batch", min=1, max=65536)
    try:
        with torch.no_grad(), _quiet():
            program = torch.onnx.export(
                module,
                tuple(example.values()),
                input_names=list(example),
                output_names=list(outputs),
                dynamic_shapes={name: {0: batch} for name in example},
                opset_version=opset,
                dynamo=True,
            )
        assert program is not None
        outside = weights is not None and weights.move(program.model)
        model = program.model_proto
    except Exception as error:
        raise ExportError(f"torch cannot export {path.name}: {_first_cause(error)}") from error
    strip_metadata(model)
    onnx.save(model, path)
    data = weights.path.name if weights is not None and outside else None
    prove_structure(path, tuple(example), outputs, opset, data)
    return data


def _first_cause(error: BaseException) -> str:
    """What was wrong at first: the exporter's own error only says that there was one."""
    while error.__cause__ is not None:
        error = error.__cause__
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def strip_metadata(model: onnx.ModelProto) -> None:
    """Drop the exporter's notes: stack traces with paths of the machine that exported."""
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.initializer, *graph.input, *graph.output, *graph.value_info):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")


def prove_structure(
    path: Path, inputs: tuple[str, ...], outputs: tuple[str, ...], opset: int = OPSET, data: str | None = None
) -> None:
    """Check a saved file: valid ONNX of this opset, names, allowed operators, a free batch, weights in it or in `data`.

    Raises ExportError saying what is wrong.
    """
    model = onnx.load(path, load_external_data=False)
    try:
        onnx.checker.check_model(path)
    except onnx.checker.ValidationError as error:
        raise ExportError(f"{path.name} is not valid ONNX: {error}") from None
    if forbidden := find_forbidden(path.read_bytes()):
        raise ExportError(f"{path.name} {forbidden}; write that part of the model with other operations.")
    found = {entry.domain: entry.version for entry in model.opset_import}
    if found.get("") != opset:
        raise ExportError(f"{path.name} came out at opset {found.get('')}, not {opset}; use another torch version.")
    places = {ExternalDataInfo(tensor).location for tensor in model.graph.initializer if uses_external_data(tensor)}
    if places - {data}:
        raise ExportError(f"{path.name} keeps weights in {', '.join(sorted(places))}; a bundle holds them itself.")
    for values, names in ((model.graph.input, inputs), (model.graph.output, outputs)):
        if {value.name for value in values} != set(names):
            raise ExportError(f"{path.name} has {[v.name for v in values]} where {list(names)} belong.")
        for value in values:
            first = value.type.tensor_type.shape.dim[0]
            if not first.dim_param:
                raise ExportError(
                    f"The batch of {value.name} in {path.name} froze at {first.dim_value}: the module must not "
                    "depend on the batch size (no reshape to a fixed batch, no chunk)."
                )


Outputs = Callable[[GraphInputs], Sequence[npt.NDArray[np.float32]]]


def run_torch(module: nn.Module) -> Outputs:
    """The outputs a torch module gives."""

    def run(sample: GraphInputs) -> Sequence[npt.NDArray[np.float32]]:
        with torch.no_grad():
            outputs = module(**sample)
            return [value.numpy() for value in (outputs if isinstance(outputs, tuple) else (outputs,))]

    return run


def run_onnx(path: Path, outputs: tuple[str, ...]) -> Outputs:
    """The outputs ONNX Runtime gives on the CPU. Raises ExportError where it cannot load the graph."""
    try:
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions have no class in common
        reason = one_line(error)[-300:]
        raise ExportError(f"ONNX Runtime cannot run {path.name}: {reason}") from None
    return lambda sample: session.run(list(outputs), {name: value.numpy() for name, value in sample.items()})


class RecordedOutputs:
    """Outputs of a run on some samples, kept in a nameless file so that the model may be freed before a comparison."""

    def __init__(self, run: Outputs, samples: Iterator[GraphInputs], folder: Path) -> None:
        self._file: IO[bytes] = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - close() closes it
        self._counts: list[int] = []
        for sample in samples:
            arrays = run(sample)
            self._counts.append(len(arrays))
            for array in arrays:
                np.save(self._file, array, allow_pickle=False)

    def replay(self) -> Outputs:
        """The outputs again, for the same samples in the same order."""
        self._file.seek(0)
        counts = iter(self._counts)
        return lambda _: [np.load(self._file, allow_pickle=False) for _ in range(next(counts))]

    def close(self) -> None:
        """Delete the file."""
        self._file.close()


def prove_equal(
    expected: Outputs, path: Path, outputs: tuple[str, ...], samples: Iterator[GraphInputs], limit: float
) -> Proof:
    """Compare a saved graph with what is expected on every sample.

    Args:
        expected: Gives the outputs wanted for a sample.
        path: The graph.
        outputs: Names of the outputs to compare.
        samples: Inputs by name.
        limit: Largest error allowed, relative to the largest output.

    Raises:
        ExportError: The error is larger, or an output has another shape.
    """
    run, worst, rows = run_onnx(path, outputs), 0.0, 0
    for sample in samples:
        batch = len(next(iter(sample.values())))
        for name, want, got in zip(outputs, expected(sample), run(sample), strict=True):
            if want.shape != got.shape:
                raise ExportError(f"{path.name} gives {name} of shape {got.shape} where torch gives {want.shape}.")
            if not np.isfinite(want).all():
                raise ExportError(
                    f"The model of {path.name} itself gives NaN or infinity in {name}, batch {batch}: check its "
                    "weights and what is done to its input."
                )
            error = float(np.abs(want - got).max() / max(1.0, float(np.abs(want).max())))
            if not error <= limit:
                detail = f" at times {sample['time'].tolist()}" if "time" in sample else ""
                if not np.isfinite(got).all():
                    raise ExportError(f"{path.name} overflows: {name} is not finite, batch {batch}{detail}.{ADVICE}")
                raise ExportError(
                    f"{path.name} differs from torch by {error:.2e} in {name}, batch {batch}{detail}; "
                    f"at most {limit:.0e} is allowed.{ADVICE}"
                )
            worst = max(worst, error)
        rows += batch
    return Proof(worst, rows)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hide the exporter's own reports; what matters is proven afterwards."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            for logger in loggers:
                logger.setLevel(logging.ERROR)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
