"""An engine folder with a true record for the attacks to start from; its plan files are bytes that nothing runs."""

import hashlib
from pathlib import Path
from typing import Any

from diffood.runtime.assembly.identity import identify_stage
from diffood.runtime.assembly.recipe import list_stages
from diffood.runtime.bundle.bundle import Bundle, Precision, open_bundle
from diffood.runtime.bundle.engines import EngineRecord, Profile, StageFile, save_record, target_name
from diffood.runtime.method.plan import Plan
from diffood.runtime.sessions import SessionRequest
from diffood.runtime.sessions.engines import EngineHost

VICTIM = EngineHost("tensorrt-rtx", "1.7.1", "8.6")


def plan_bytes(number: int) -> bytes:
    """What stands for the engine of a stage."""
    return f"engine of stage {number}".encode() * 100


def describe_stages(bundle: Bundle, plan: Plan, precision: Precision) -> tuple[StageFile, ...]:
    """True entries of plan files that hold `plan_bytes`."""
    return tuple(
        StageFile(
            file=f"stage{stage.number + 1}.plan",
            sha256=hashlib.sha256(plan_bytes(stage.number)).hexdigest(),
            size=len(plan_bytes(stage.number)),
            built_from=identify_stage(bundle, plan, precision, stage),
        )
        for stage in list_stages(plan)
    )


def plant_engine(bundle_path: Path, plan_name: str = "default", **changes: Any) -> Path:
    """Give the bundle an FP32 engine that VICTIM may run with 1 to 64 images, unless changed; returns its folder."""
    bundle = open_bundle(bundle_path)
    plan = changes.get("plan", bundle.plan(plan_name if plan_name in bundle.manifest.plans else None))
    truth = {
        "library": VICTIM.library,
        "library_version": VICTIM.library_version,
        "precision": "fp32",
        "plan_name": plan_name,
        "plan": plan,
        "compute_capability": VICTIM.compute_capability,
        "gpu": None,
        "driver": None,
        "profile": Profile(smallest=1, usual=16, largest=64),
        "options": {},
        "stages": describe_stages(bundle, plan, changes.get("precision", "fp32")),
    }
    record = EngineRecord.model_validate({**truth, **changes})
    name = target_name(record.library, record.compute_capability, record.precision, plan_name)
    folder = bundle_path / "engines" / name
    folder.mkdir(parents=True)
    for number, stage in enumerate(record.stages):
        (folder / stage.file).write_bytes(plan_bytes(number))
    save_record(folder, record)
    return folder


def ask(
    bundle_path: Path, plan_name: str | None = None, batch: int = 8, precision: Precision = "fp32"
) -> SessionRequest:
    """A request for a plan of the bundle as it is now."""
    bundle = open_bundle(bundle_path)
    return SessionRequest(bundle, bundle.plan(plan_name), precision, batch)
