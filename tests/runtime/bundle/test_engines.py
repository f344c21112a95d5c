"""Which engine of a bundle this machine may run: refused without opening a plan file, or returned byte for byte."""

import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from attacks import undone
from planted_engine import describe_plan

from diffood.errors import BundleError
from diffood.runtime.bundle.bundle import open_bundle
from diffood.runtime.bundle.engines import (
    EngineHost,
    EngineRecord,
    PlanFile,
    Profile,
    find_engine,
    list_engines,
    read_plan,
    save_record,
    target_name,
)

HERE = EngineHost("tensorrt-rtx", "1.7.1", "8.6")
PLAN = b"what a builder would write"

Plant = Callable[..., Path]


@pytest.fixture
def plant(small_bundle_copy: Path) -> Plant:
    """Put an engine folder with a true record into the copy; its plan files hold PLAN, for none is run here."""
    bundle = open_bundle(small_bundle_copy)

    def put(**changes: object) -> Path:
        plans = []
        for graph in bundle.manifest.graphs:
            if graph.precision == changes.get("precision", "fp32"):
                data = PLAN + graph.role.encode()
                plans.append(describe_plan(bundle, graph, data))
        truth = {
            "library": HERE.library,
            "library_version": HERE.library_version,
            "precision": "fp32",
            "compute_capability": HERE.compute_capability,
            "gpu": None,
            "driver": None,
            "profile": Profile(smallest=2, usual=8, largest=32),
            "options": {"tf32": "no"},
            "plans": tuple(plans),
        }
        record = EngineRecord.model_validate({**truth, **changes})
        folder = (
            small_bundle_copy / "engines" / target_name(record.library, record.compute_capability, record.precision)
        )
        folder.mkdir(parents=True)
        for plan in record.plans:
            (folder / plan.file).write_bytes(PLAN + plan.role.encode())
        save_record(folder, record)
        return folder

    return put


def test_the_engine_of_this_machine_is_found_among_others(small_bundle_copy: Path, plant: Plant) -> None:
    plant(compute_capability="12.0")
    wanted = plant()
    plant(library="tensorrt", gpu="a GPU", driver="CUDA 12.8")
    bundle = open_bundle(small_bundle_copy)
    engine = find_engine(bundle, HERE, "fp32", batch=8)
    assert engine.path == wanted
    for graph in bundle.manifest.graphs:
        assert read_plan(engine, graph.role) == PLAN + graph.role.encode()
    assert len(list_engines(bundle)) == 3


def test_an_engine_that_does_not_fit_is_refused_before_its_plans_are_opened(
    small_bundle_copy: Path, plant: Plant, subtests: pytest.Subtests
) -> None:
    for machine, batch, message in [
        (EngineHost("tensorrt-rtx", "1.7.1", "8.9"), 8, "built for compute capability 8.6, this GPU has 8.9"),
        (EngineHost("tensorrt-rtx", "1.7.2", "8.6"), 8, "built by tensorrt-rtx 1.7.1, 1.7.2 is installed"),
        (HERE, 1, "takes 2 to 32 rows, --batch is 1"),
        (HERE, 33, "takes 2 to 32 rows, --batch is 33"),
        (EngineHost("tensorrt", "10.9.0", "8.6"), 8, "has no tensorrt engine in fp32"),
    ]:
        with subtests.test(machine=machine), undone(small_bundle_copy):
            for plan in plant().glob("*.plan"):
                plan.unlink()  # whoever opened one would find nothing
            with pytest.raises(
                BundleError, match=rf"{message}.*[Rr]un `diffood export --bundle .* --engine {machine.library}"
            ):
                find_engine(open_bundle(small_bundle_copy), machine, "fp32", batch)


def test_the_ends_of_the_profile_are_inside(small_bundle_copy: Path, plant: Plant, subtests: pytest.Subtests) -> None:
    for batch in [2, 32]:
        with subtests.test(batch=batch), undone(small_bundle_copy):
            plant()
            assert find_engine(open_bundle(small_bundle_copy), HERE, "fp32", batch).record.profile.largest == 32


def test_the_command_in_a_refusal_names_this_machine(small_bundle_copy: Path, plant: Plant) -> None:
    plant()
    with pytest.raises(BundleError, match=rf"--bundle {small_bundle_copy} --engine tensorrt-rtx --gpu sm120 "):
        find_engine(open_bundle(small_bundle_copy), EngineHost("tensorrt-rtx", "1.7.1", "12.0"), "fp32", 8)
    with pytest.raises(BundleError, match=rf"--bundle {small_bundle_copy} --engine tensorrt --precision fp32"):
        find_engine(open_bundle(small_bundle_copy), EngineHost("tensorrt", "10.9", "8.7"), "fp32", 8)


def test_an_engine_being_built_is_not_looked_at(small_bundle_copy: Path, plant: Plant) -> None:
    folder = plant()
    (folder.parent / ".tensorrt-rtx-sm86-fp16.k3x").mkdir()
    assert [engine.path for engine in list_engines(open_bundle(small_bundle_copy))] == [folder]


def test_a_bundle_without_engines_says_how_to_build_one(small_bundle_copy: Path) -> None:
    bundle = open_bundle(small_bundle_copy)
    assert list_engines(bundle) == []
    with pytest.raises(BundleError, match=r"has no tensorrt-rtx engine in fp32: run `diffood export"):
        find_engine(bundle, HERE, "fp32", 8)


def test_the_digest_changes_with_any_plan_and_not_with_their_order(small_bundle_copy: Path, plant: Plant) -> None:
    plant()
    (engine,) = list_engines(open_bundle(small_bundle_copy))
    plans = engine.record.plans
    other = plans[0].model_copy(update={"sha256": "0" * 64})

    def digest(*entries: PlanFile) -> str:
        return type(engine)(engine.path, engine.record.model_copy(update={"plans": entries})).digest

    assert digest(*reversed(plans)) == engine.digest
    assert digest(other, *plans[1:]) != engine.digest


def test_an_engine_without_a_role_says_so(small_bundle_copy: Path, plant: Plant) -> None:
    plant()
    (engine,) = list_engines(open_bundle(small_bundle_copy))
    record = engine.record.model_copy(update={"plans": engine.record.plans[1:]})
    missing = engine.record.plans[0].role
    with pytest.raises(BundleError, match=rf"has no {missing} engine; .*build the engine again"):
        read_plan(type(engine)(engine.path, record), missing)


def test_engines_are_checked_without_any_engine_library() -> None:
    loaded = "any(m.startswith(('tensorrt', 'cuda')) for m in sys.modules)"
    program = f"import sys, diffood.runtime.bundle.engines; sys.exit({loaded})"
    assert subprocess.run([sys.executable, "-c", program], check=False, timeout=120).returncode == 0


def test_an_engine_of_another_gpu_model_is_refused(small_bundle_copy: Path, plant: Plant) -> None:
    """TensorRT chooses kernels by timing them on the GPU at hand; its engines are of one model, not of a generation."""
    plant(library="tensorrt", library_version="10.9", gpu="NVIDIA RTX A2000", driver="CUDA 12.8")
    bundle = open_bundle(small_bundle_copy)
    here = EngineHost("tensorrt", "10.9", "8.6", "NVIDIA RTX A2000")
    assert find_engine(bundle, here, "fp32", 8).record.gpu == here.gpu
    with pytest.raises(BundleError, match=r"was built on NVIDIA RTX A2000, this GPU is NVIDIA RTX A6000.*Run `diffood"):
        find_engine(bundle, EngineHost("tensorrt", "10.9", "8.6", "NVIDIA RTX A6000"), "fp32", 8)


def test_an_engine_built_by_the_command_of_a_refusal_is_not_refused_again(
    small_bundle_copy: Path, plant: Plant, subtests: pytest.Subtests
) -> None:
    """For whatever batch: the rows that the command names take it, and all that an engine takes by default."""
    from diffood.cli.options.engines import EngineOptions

    for batch in [1, 33, 64, 65, 128, 4096]:
        with subtests.test(batch=batch), undone(small_bundle_copy):
            folder, bundle = plant(), open_bundle(small_bundle_copy)
            with pytest.raises(BundleError, match=f"--batch is {batch}") as refused:
                find_engine(bundle, HERE, "fp32", batch)
            words = shlex.split(str(refused.value).split("`")[1])
            given = dict(zip(words[2::2], words[3::2], strict=True))
            options = EngineOptions(engine=given["--engine"], gpu=given["--gpu"])
            if "--engine-batch" in given:
                options = replace(options, engine_batch=given["--engine-batch"])
            request = options.read((given["--precision"],))
            shutil.rmtree(folder)
            plant(profile=request.profile)
            assert request.gpus == ("sm86",)
            for rows in {1, 64, batch}:
                assert find_engine(bundle, HERE, "fp32", rows)


def test_the_command_of_a_refusal_quotes_a_path_with_spaces(small_bundle_copy: Path) -> None:
    spaced = small_bundle_copy.rename(small_bundle_copy.parent / "my bundle")
    with pytest.raises(BundleError, match=f"--bundle '{spaced}' --engine"):
        find_engine(open_bundle(spaced), HERE, "fp32", 8)
