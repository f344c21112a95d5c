"""An engine folder with a true record for the attacks to start from; its plan files are bytes that nothing runs."""

import hashlib
from pathlib import Path

from diffood.runtime.bundle.bundle import Bundle, GraphEntry, open_bundle
from diffood.runtime.bundle.engines import EngineHost, EngineRecord, PlanFile, Profile, save_record

VICTIM = EngineHost("tensorrt-rtx", "1.7.1", "8.6")


def describe_plan(bundle: Bundle, graph: GraphEntry, data: bytes) -> PlanFile:
    """The true record of a plan file with these bytes."""
    return PlanFile(
        role=graph.role,
        file=f"{graph.role}.plan",
        sha256=hashlib.sha256(data).hexdigest(),
        size=len(data),
        onnx_sha256=bundle.manifest.files[graph.file].sha256,
    )


def plant_engine(bundle_path: Path) -> Path:
    """Give the bundle an FP32 engine that VICTIM may run with 1 to 64 rows; returns its folder."""
    bundle = open_bundle(bundle_path)
    folder = bundle_path / "engines" / "tensorrt-rtx-sm86-fp32"
    folder.mkdir(parents=True)
    plans = []
    for graph in bundle.manifest.graphs:
        if graph.precision == "fp32":
            data = f"plan of {graph.role}".encode() * 100
            (folder / f"{graph.role}.plan").write_bytes(data)
            plans.append(describe_plan(bundle, graph, data))
    record = EngineRecord(
        library=VICTIM.library,
        library_version=VICTIM.library_version,
        precision="fp32",
        compute_capability=VICTIM.compute_capability,
        gpu=None,
        driver=None,
        profile=Profile(smallest=1, usual=16, largest=64),
        options={},
        plans=tuple(plans),
    )
    save_record(folder, record)
    return folder
