"""Which engine of a bundle this machine may run: refused without opening a plan file, or returned byte for byte."""

import shlex
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from attacks import undone
from planted_engine import VICTIM, ask, plan_bytes, plant_engine

from diffood.errors import BundleError
from diffood.runtime.bundle.bundle import open_bundle
from diffood.runtime.bundle.engines import Profile, StageFile, list_engines, read_plan
from diffood.runtime.sessions import SessionRequest
from diffood.runtime.sessions.engines import EngineHost, find_engine

NARROW = Profile(smallest=2, usual=8, largest=32)


def test_the_engine_of_this_machine_and_plan_is_found_among_others(small_bundle_copy: Path) -> None:
    plant_engine(small_bundle_copy, compute_capability="12.0")
    plant_engine(small_bundle_copy, "fast")
    wanted = plant_engine(small_bundle_copy)
    plant_engine(small_bundle_copy, library="tensorrt", gpu="a GPU", driver="CUDA 12.8")
    engine = find_engine(ask(small_bundle_copy), VICTIM)
    assert engine.path == wanted
    for number, stage in enumerate(engine.record.stages):
        assert read_plan(engine, stage) == plan_bytes(number)
    assert len(list_engines(open_bundle(small_bundle_copy))) == 4


def test_an_engine_that_does_not_fit_is_refused_before_its_plans_are_opened(
    small_bundle_copy: Path, subtests: pytest.Subtests
) -> None:
    for machine, batch, message in [
        (replace(VICTIM, compute_capability="8.9"), 8, "built for compute capability 8.6, this GPU has 8.9"),
        (replace(VICTIM, library_version="1.7.2"), 8, "built by tensorrt-rtx 1.7.1, 1.7.2 is installed"),
        (VICTIM, 1, "takes 2 to 32 images, --batch is 1"),
        (VICTIM, 33, "takes 2 to 32 images, --batch is 33"),
        (EngineHost("tensorrt", "10.9.0", "8.6"), 8, "has no tensorrt engine in fp32"),
    ]:
        with subtests.test(machine=machine), undone(small_bundle_copy):
            for plan in plant_engine(small_bundle_copy, profile=NARROW).glob("*.plan"):
                plan.unlink()  # whoever opened one would find nothing
            wanted = rf"{message}.*[Rr]un `diffood export --bundle .* --engine {machine.library}"
            with pytest.raises(BundleError, match=wanted):
                find_engine(ask(small_bundle_copy, batch=batch), machine)


def test_the_ends_of_the_profile_are_inside(small_bundle_copy: Path) -> None:
    plant_engine(small_bundle_copy, profile=NARROW)
    for batch in (2, 32):
        assert find_engine(ask(small_bundle_copy, batch=batch), VICTIM).record.profile == NARROW


def test_a_plan_without_an_engine_is_refused_with_the_command_that_builds_one(small_bundle_copy: Path) -> None:
    plant_engine(small_bundle_copy)
    with pytest.raises(BundleError, match=r"-default runs another plan, default\. Run `.* --engine-plan fast`"):
        find_engine(ask(small_bundle_copy, "fast"), VICTIM)


def test_a_plan_that_the_bundle_does_not_name_is_calibrated_first(small_bundle_copy: Path) -> None:
    """Nothing on the command line could name it otherwise; `export --engine` builds the calibration's plan."""
    asked = ask(small_bundle_copy)
    asked = SessionRequest(asked.bundle, asked.plan.changed({"seed": 7}), "fp32", 8)
    with pytest.raises(BundleError, match=r"run `diffood calibrate` with this plan on another .*, then `diffood ex"):
        find_engine(asked, VICTIM)


def test_the_command_in_a_refusal_names_this_machine(small_bundle_copy: Path) -> None:
    plant_engine(small_bundle_copy)
    asked, where = ask(small_bundle_copy), f"--bundle {small_bundle_copy}"
    with pytest.raises(
        BundleError, match=rf"{where} --engine tensorrt-rtx --gpu sm120 --precision fp32 --engine-plan d"
    ):
        find_engine(asked, replace(VICTIM, compute_capability="12.0"))
    with pytest.raises(BundleError, match=rf"{where} --engine tensorrt --precision fp32 --engine-plan default`"):
        find_engine(asked, EngineHost("tensorrt", "10.9", "8.7"))


def test_an_engine_being_built_is_not_looked_at(small_bundle_copy: Path) -> None:
    folder = plant_engine(small_bundle_copy)
    (folder.parent / ".tensorrt-rtx-sm86-fp16-default.k3x").mkdir()
    assert [engine.path for engine in list_engines(open_bundle(small_bundle_copy))] == [folder]


def test_a_bundle_without_engines_says_how_to_build_one(small_bundle_copy: Path) -> None:
    assert list_engines(open_bundle(small_bundle_copy)) == []
    with pytest.raises(BundleError, match=r"has no tensorrt-rtx engine in fp32: run `diffood export"):
        find_engine(ask(small_bundle_copy), VICTIM)


def test_the_digest_is_of_the_plans_own_engines_in_their_order(small_bundle_copy: Path) -> None:
    plant_engine(small_bundle_copy)
    (engine,) = list_engines(open_bundle(small_bundle_copy))
    one, two = engine.record.stages
    other = one.model_copy(update={"sha256": "0" * 64})

    def digest(*stages: StageFile) -> str:
        return type(engine)(engine.bundle, engine.path, engine.record.model_copy(update={"stages": stages})).digest

    assert len({digest(one, two), digest(two, one), digest(other, two)}) == 3
    plant_engine(small_bundle_copy, "fast")
    assert find_engine(ask(small_bundle_copy), VICTIM).digest == digest(one, two)


def test_engines_are_checked_without_any_engine_library() -> None:
    loaded = "any(m.startswith(('tensorrt', 'cuda')) for m in sys.modules)"
    program = f"import sys, diffood.runtime.sessions.engines; sys.exit({loaded})"
    assert subprocess.run([sys.executable, "-c", program], check=False, timeout=120).returncode == 0


def test_an_engine_of_another_gpu_model_is_refused(small_bundle_copy: Path) -> None:
    """TensorRT chooses kernels by timing them on the GPU at hand; its engines are of one model, not of a generation."""
    here = EngineHost("tensorrt", "10.9", "8.6", "NVIDIA RTX A2000")
    plant_engine(
        small_bundle_copy, library="tensorrt", library_version="10.9", gpu="NVIDIA RTX A2000", driver="CUDA 12.8"
    )
    asked = ask(small_bundle_copy)
    assert find_engine(asked, here).record.gpu == here.gpu
    with pytest.raises(BundleError, match=r"was built on NVIDIA RTX A2000, this GPU is NVIDIA RTX A6000.*Run `diffood"):
        find_engine(asked, replace(here, gpu="NVIDIA RTX A6000"))


def test_an_engine_built_by_the_command_of_a_refusal_is_not_refused_again(
    small_bundle_copy: Path, subtests: pytest.Subtests
) -> None:
    """For whatever plan and batch: the images that the command names fit, and all that an engine takes by default."""
    from diffood.cli.options.engines import EngineOptions

    for plan, batch in [("fast", 1), ("default", 33), ("default", 64), ("plain", 65), ("fast", 4096)]:
        with subtests.test(plan=plan, batch=batch), undone(small_bundle_copy):
            folder = plant_engine(small_bundle_copy, plan, profile=NARROW)
            with pytest.raises(BundleError, match=f"--batch is {batch}") as refused:
                find_engine(ask(small_bundle_copy, plan, batch), VICTIM)
            words = shlex.split(str(refused.value).split("`")[1])
            given = dict(zip(words[2::2], words[3::2], strict=True))
            options = EngineOptions(engine="tensorrt-rtx", gpu=given["--gpu"], engine_plan=[given["--engine-plan"]])
            if "--engine-batch" in given:
                options = replace(options, engine_batch=given["--engine-batch"])
            request = options.read(("fp32",))
            assert (request.gpus, request.plans, given["--precision"]) == (("sm86",), (plan,), "fp32")
            shutil.rmtree(folder)
            plant_engine(small_bundle_copy, plan, profile=request.profile)
            for images in {1, 64, batch}:
                assert find_engine(ask(small_bundle_copy, plan, images), VICTIM)


def test_the_command_of_a_refusal_quotes_a_path_with_spaces(small_bundle_copy: Path) -> None:
    spaced = small_bundle_copy.rename(small_bundle_copy.parent / "my bundle")
    with pytest.raises(BundleError, match=f"--bundle '{spaced}' --engine"):
        find_engine(ask(spaced), VICTIM)
