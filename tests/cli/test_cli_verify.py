"""diffood verify and the variants it lets through: refused before, served after, refused where the gate fails."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from halved_graphs import reseal
from PIL import Image

from diffood.runtime.bundle.bundle import Bundle
from diffood.zoo.images import unpack_set

onnx = pytest.importorskip("onnx")
FloatArray = npt.NDArray[np.float32]

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
    small_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory, clothes_folder: Path, run: Run
) -> Path:
    """A bundle with FP32 and INT8 graphs, calibrated in FP32 and not verified; read-only."""
    bundle = Path(shutil.copytree(small_bundle.path, tmp_path_factory.mktemp("variants") / "bundle"))
    add_rounded_graphs(bundle)
    done = run("calibrate", bundle, "--images", clothes_folder, *FAST)
    assert done.code == 0, done
    return bundle


@pytest.fixture
def variants(calibrated_variants: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may verify or break."""
    return Path(shutil.copytree(calibrated_variants, tmp_path / "bundle"))


def serve(run: Run, bundle: Path, sets: Path, *words: object) -> Any:
    return run("serve-batch", bundle, sets / "digits", "--output", bundle.parent / "rows.jsonl", *MACHINE, *words)


def test_an_uncalibrated_bundle_is_checked_as_far_as_it_can_be(run: Run, small_bundle_copy: Path) -> None:
    done = run("verify", small_bundle_copy, *MACHINE)
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

    (variants.parent / "large").mkdir()
    for index in range(3):
        Image.new("RGB", (64, 48)).save(variants.parent / "large" / f"{index}.png")
    large = ("--ood", f"large={variants.parent / 'large'}")
    done = run("verify", variants, "--images", sets / "ind", *large, *MACHINE, *LENIENT)  # again, for people
    assert done.code == 0, done
    assert "converted   of 3 images of large: 3 RGB to grey, 3 resized, 3 stretched to another aspect" in done.out
    assert "of 200 verdicts flip" in done.out
    assert len(json.loads((variants / "parity.json").read_text())["records"]) == 1


def test_a_variant_that_computes_one_convolution_wrongly_fails_and_stays_refused(
    run: Run, variants: Path, sets: Path
) -> None:
    change_weights(variants, "step_plain.int8.onnx", "step_plain.int8.onnx", lambda weights: -weights, only=2)
    reseal(variants, lambda _: None)
    done = run("verify", variants, "--images", sets / "ind", "--ood", f"digits={sets / 'digits'}", *MACHINE)
    assert done.code == 1
    failed = [line for line in done.out.splitlines() if " FAILED " in line]
    assert [line.split()[0] for line in failed if "int8" in line][-1] == "parity"
    assert "refused: " in failed[-1]
    assert "serves    fp32 on onnxruntime-cpu" in done.out.splitlines()
    [reason] = [line for line in done.out.splitlines() if line.startswith("not       int8 on onnxruntime-cpu because ")]
    assert "verdicts flip" in reason
    done = serve(run, variants, sets, "--precision", "int8")
    done.assert_one_line(1, "The parity gate refused it", "verdicts flip")
    assert "fp32" in serve(run, variants, sets, "--precision", "auto").out


def test_int8_that_differs_on_drawn_images_is_judged_by_its_verdicts(run: Run, variants: Path, sets: Path) -> None:
    def promise_exactness(manifest: Any) -> None:
        for graph in manifest["graphs"]:
            graph["error"] = 0.0

    reseal(variants, promise_exactness)
    done = run("verify", variants, *MACHINE)
    assert done.code == 0, done
    golden = next(line for line in done.out.splitlines() if line.startswith("golden    int8"))
    assert " noted " in golden
    assert golden.endswith("no real images, verdicts decide")
    assert "serves    fp32 on onnxruntime-cpu" in done.out.splitlines()
    assert "not       int8 on onnxruntime-cpu because it was never verified" not in done.out
    assert "not       int8 on onnxruntime-cpu because its verdicts were not compared with the calibrated" in done.out

    done = run("verify", variants, "--images", sets / "ind", *MACHINE, *LENIENT)
    assert done.code == 0, done
    [served] = [line for line in done.out.splitlines() if line.startswith("serves ")]
    assert "because" not in done.out
    shown = run("inspect", variants).out
    assert re.search(r"^verified    int8 on onnxruntime-cpu: golden noted, ", shown, re.MULTILINE)
    assert re.search(r"^verified    int8 on onnxruntime-cpu: passed, \d+ of 200 verdicts flip", shown, re.MULTILINE)
    assert served.replace("serves    ", "serves      ") in shown.splitlines()
    chosen = "int8" if "--precision auto int8 on onnxruntime-cpu" in served else "fp32"
    assert f"engine      {chosen} on onnxruntime-cpu: " in serve(run, variants, sets, "--precision", "auto").out


def test_an_engine_that_computes_wrongly_is_not_served_though_it_was_calibrated(
    run: Run, variants: Path, sets: Path, clothes_folder: Path
) -> None:
    change_weights(variants, "classify.onnx", "classify.onnx", lambda weights: 3 * weights)
    reseal(variants, lambda _: None)
    words = ("--images", clothes_folder, *FAST, "--fpr", "0.1")
    assert run("calibrate", variants, *words, "--overwrite").code == 0
    assert serve(run, variants, sets).code == 0  # nobody knows yet
    done = run("verify", variants, *MACHINE)
    assert done.code == 1
    assert "serves    nothing" in done.out.splitlines()
    [reason] = [line for line in done.out.splitlines() if line.startswith("not       fp32")]
    assert "because golden failed: features within" in reason
    serve(run, variants, sets, "--overwrite").assert_one_line(1, "fp32 on onnxruntime-cpu must not serve", "golden")
    assert run("verify", variants, "--json", *MACHINE).content["serves"]["automatic"] == ""


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


def add_rounded_graphs(bundle: Path) -> None:
    """Add an INT8 variant: the FP32 graphs with weights of 255 levels."""
    graphs = []
    for role in ("classify", "step_plain", "step_guided"):
        change_weights(bundle, f"{role}.onnx", f"{role}.int8.onnx", round_to_int8)
        entry = {"role": role, "file": f"{role}.int8.onnx", "precision": "int8", "opset": 21, "error": 0.02}
        graphs.append(entry | {"weights": {}})
    reseal(bundle, lambda manifest: manifest["graphs"].extend(graphs))


def round_to_int8(weights: FloatArray) -> FloatArray:
    step = np.abs(weights).max() / 127
    return np.round(weights / step) * step if step else weights


def change_weights(
    bundle: Path, name: str, target: str, change: Callable[[FloatArray], FloatArray], only: int | None = None
) -> None:
    """Write a graph again with changed weights of its convolutions, or of one."""
    model = onnx.load(bundle / name)
    kernels = [tensor for tensor in model.graph.initializer if len(tensor.dims) == 4]
    for tensor in kernels if only is None else kernels[only : only + 1]:
        value = onnx.numpy_helper.to_array(tensor)
        tensor.CopyFrom(onnx.numpy_helper.from_array(change(value).astype(np.float32), tensor.name))
    onnx.save(model, bundle / target)
