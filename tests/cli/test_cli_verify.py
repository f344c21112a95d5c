"""diffood verify and the variants it lets through: refused before, served after, refused where the gate fails."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from diffood.runtime.bundle.bundle import MANIFEST
from diffood.zoo.images import unpack_set

onnx = pytest.importorskip("onnx")

MACHINE = ("--batch", "32", "--threads", "1")
# One UNet evaluation an image: these tests look at the gate, not at detection.
FAST = (*MACHINE, "--plan", "plain", "--start-time", "120", "--stride", "120", "--repeats", "1", "--guidance", "0")
LENIENT = ("--max-flips", "0.5", "--max-auroc-shift", "1")

Run = Callable[..., Any]  # gives conftest.Done


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders ind, of 200 clothes, and digits, of 40."""
    root = tmp_path_factory.mktemp("sets")
    unpack_set("fashion-test", root / "ind", 200)
    unpack_set("digits", root / "digits", 40)
    return root


@pytest.fixture(scope="module")
def calibrated_variants(
    int8_bundle: Path, tmp_path_factory: pytest.TempPathFactory, clothes_folder: Path, start: Run
) -> Path:
    """A bundle with FP32 and INT8 graphs, calibrated in FP32 and not verified; read-only."""
    bundle = Path(shutil.copytree(int8_bundle, tmp_path_factory.mktemp("variants") / "bundle"))
    done = start("calibrate", bundle, "--images", clothes_folder, *FAST)
    assert done.code == 0, done
    return bundle


@pytest.fixture
def variants(calibrated_variants: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may verify or break."""
    return Path(shutil.copytree(calibrated_variants, tmp_path / "bundle"))


def serve(run: Run, bundle: Path, sets: Path, *words: object) -> Any:
    return run("serve-batch", bundle, sets / "digits", "--output", bundle.parent / "rows.jsonl", *MACHINE, *words)


def test_an_uncalibrated_bundle_is_checked_as_far_as_it_can_be(run: Run, bundle_copy: Path) -> None:
    done = run("verify", bundle_copy, *MACHINE)
    assert done.code == 0, done
    table = {tuple(line.split()[:1]): line for line in done.out.splitlines()}
    assert "as exported" in table["hashes",]
    assert " ok " in table["golden",]
    assert " ok " in table["contract",]
    assert "skipped" in table["parity",]
    assert "diffood calibrate" in table["parity",]


def test_a_variant_is_refused_until_it_was_verified(run: Run, variants: Path, sets: Path) -> None:
    serve(run, variants, sets, "--precision", "int8").assert_one_line(1, "int8 on onnxruntime-cpu", "diffood verify")
    assert serve(run, variants, sets).code == 0  # what was calibrated runs
    assert "fp32 on onnxruntime-cpu" in serve(run, variants, sets, "--precision", "auto").out

    words = ("verify", variants, "--images", sets / "ind", "--ood", f"digits={sets / 'digits'}", *MACHINE, *LENIENT)
    done = run(*words, "--json")
    assert done.code == 0, done
    (record,) = done.content["parity"]
    assert (record["reference"]["precision"], record["variant"]["precision"]) == ("fp32", "int8")
    assert (record["images"], record["sets"]["digits"]["images"], record["problems"]) == (200, 40, [])
    assert json.loads((variants / "parity.json").read_text())["records"] == [record]

    assert "int8 on onnxruntime-cpu" in serve(run, variants, sets, "--precision", "int8").out
    faster = "int8" if record["images_per_second"] > record["reference_images_per_second"] else "fp32"
    assert f"{faster} on onnxruntime-cpu: " in serve(run, variants, sets, "--precision", "auto").out

    done = run("verify", variants, "--images", sets / "ind", *MACHINE, *LENIENT)  # again, for people
    assert done.code == 0, done
    assert "of 200 verdicts flip" in done.out
    assert len(json.loads((variants / "parity.json").read_text())["records"]) == 1


def test_a_variant_with_broken_scales_fails_and_stays_refused(run: Run, variants: Path, sets: Path) -> None:
    multiply_scales(variants, "step_plain.int8.onnx", 30.0)
    done = run("verify", variants, "--images", sets / "ind", "--ood", f"digits={sets / 'digits'}", *MACHINE)
    assert done.code == 1
    failed = [line for line in done.out.splitlines() if " FAILED " in line]
    assert [line.split()[0] for line in failed if "int8" in line][-1] == "parity"
    assert "refused: " in failed[-1]
    done = serve(run, variants, sets, "--precision", "int8")
    done.assert_one_line(1, "The parity gate refused it", "verdicts flip")
    assert "fp32" in serve(run, variants, sets, "--precision", "auto").out


def test_too_few_images_say_how_many_are_needed(run: Run, variants: Path, sets: Path) -> None:
    done = run("verify", variants, "--images", sets / "digits", *MACHINE)
    done.assert_one_line(1, "40 in-distribution images are too few", "at least 200")
    assert not (variants / "parity.json").exists()


def test_without_images_verdicts_are_not_compared(run: Run, variants: Path) -> None:
    done = run("verify", variants, *MACHINE)
    assert done.code == 0
    assert "no images to compare verdicts on: give --images DIR" in done.out


def test_a_backend_asked_for_by_name_must_be_there(run: Run, variants: Path) -> None:
    done = run("verify", variants, "--backend", "tensorrt-rtx", *MACHINE)
    assert done.code == 1
    assert any("tensorrt-rtx" in line and " FAILED " in line for line in done.out.splitlines())


def test_a_changed_file_ends_the_verification(run: Run, variants: Path) -> None:
    with (variants / "classify.int8.onnx").open("r+b") as file:
        file.seek(1000)
        file.write(bytes([file.read(1)[0] ^ 1]))
    run("verify", variants, *MACHINE).assert_one_line(1, "classify.int8.onnx was changed after export")


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (("--precision", "fp8"), "'fp8' is not one of fp32, fp16, int8"),
        (("--precision", "fp16"), "has no fp16 graphs"),
        (("--ood", "digits"), "is not NAME=DIR"),
    ],
)
def test_wrong_words_are_explained(run: Run, variants: Path, words: tuple[str, ...], part: str) -> None:
    run("verify", variants, *words, *MACHINE).assert_one_line(2, part)


def multiply_scales(bundle: Path, name: str, factor: float) -> None:
    """Break an INT8 graph as a fault in quantisation would: its file, and the manifest that vouches for it."""
    model = onnx.load(bundle / name)
    for tensor in model.graph.initializer:
        if tensor.name.endswith("_scale") and not tensor.dims:
            value = onnx.numpy_helper.to_array(tensor) * np.float32(factor)
            tensor.CopyFrom(onnx.numpy_helper.from_array(value.astype(np.float32), tensor.name))
    onnx.save(model, bundle / name)
    data = (bundle / name).read_bytes()
    manifest = json.loads((bundle / MANIFEST).read_text())
    manifest["files"][name] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
    (bundle / MANIFEST).write_text(json.dumps(manifest))
