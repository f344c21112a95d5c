"""The demo: runs diffood's own command line on the embedded models and images, and sums it up."""

import importlib.util
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from diffood import zoo
from diffood.errors import EXIT_SET_ASIDE, DiffoodError, UsageError
from diffood.report.charts import StripImage, draw_strip
from diffood.runtime.decision import Rule
from diffood.runtime.detector import Detector
from diffood.runtime.images.decode import from_pixels
from diffood.zoo.images import SETS, load_set, unpack_set

CALIBRATION_IMAGES = 700
TEST_IMAGES = 400
OOD_IMAGES = 100
MIXED_IMAGES = 20  # of each set, in the folder that serve-batch is given
STRIP_IMAGES = 2  # of each set
HEADER_PIXELS = 60_000  # a side; such a file would take 3.6 GB decoded
OOD_SETS = tuple(name for name, entry in SETS.items() if entry.role == "ood")
MARKER = ".diffood-demo"  # says that a folder is a demo's and may be replaced, also when the demo was interrupted
PRODUCTS = {MARKER, "images", "bundle", "verdicts.jsonl", "evaluation", "scores.png", "strip.png", "summary.json"}
EXPORT_PACKAGES = ("torch", "diffusers", "onnx", "onnxscript")

Say = Callable[[str], None]


def run_demo(output: Path, say: Say) -> dict[str, Any]:
    """Run the chain into `output` and return what summary.json holds. Raises DiffoodError where a step fails."""
    if output.exists() and not _may_be_replaced(output):
        raise UsageError(f"{output} is not an empty folder nor a demo's; give --output a new one.")
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    (output / MARKER).touch()
    images, bundle = output / "images", output / "bundle"
    say(f"Unpacking real images into {images}")
    _unpack(images)
    _make_bundle(bundle, say)
    calibration = _run(
        say, "calibrate", bundle, "--images", images / "validation", "--fpr", 0.05, "--confidence", 0.95, "--json"
    )
    served = _run(
        say, "serve-batch", bundle, images / "mixed", "--output", output / "verdicts.jsonl", "--json",
        accept=(0, EXIT_SET_ASIDE),
    )  # fmt: skip
    sets = [part for name in OOD_SETS for part in ("--ood", f"{name}={images / name}")]
    evaluation = _run(
        say, "evaluate", bundle, "--ind", images / "test", *sets, "--output", output / "evaluation", "--json"
    )
    shutil.move(output / "evaluation" / "scores.png", output / "scores.png")
    _draw_strip(bundle, output / "strip.png")
    refused = [row for row in _rows(output / "verdicts.jsonl") if row["status"] == "rejected"]
    summary = {
        "auroc": evaluation["auroc"],
        "mean_auroc": evaluation["mean_auroc"],
        "false_alarms": evaluation["false_alarms"],
        "sets": evaluation["sets"],
        "threshold": evaluation["threshold"],
        "guarantee": evaluation["guarantee"],
        "calibration_images": calibration["n"],
        "unet_evaluations_per_image": evaluation["unet_evaluations_per_image"],
        "images_per_second": served["images_per_second"],
        "set_aside": {row["id"]: row["error"] for row in refused},
    }
    (output / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
    say("")
    say(table(summary))
    say("")
    say(f"Pictures: {output / 'scores.png'} and {output / 'strip.png'}; numbers: {output / 'summary.json'}")
    return summary


def _may_be_replaced(output: Path) -> bool:
    """Whether a folder is empty or holds what a demo leaves and nothing else."""
    if not output.is_dir():
        return False
    names = {entry.name for entry in output.iterdir()}
    return not names or (MARKER in names and names <= PRODUCTS)


def _unpack(images: Path) -> None:
    unpack_set("fashion-validation", images / "validation", CALIBRATION_IMAGES)
    unpack_set("fashion-test", images / "test", TEST_IMAGES)
    for name in OOD_SETS:
        unpack_set(name, images / name, OOD_IMAGES)
    mixed = images / "mixed"
    for name in ("fashion-test", *OOD_SETS):
        unpack_set(name, mixed / name, MIXED_IMAGES)
    _write_broken(mixed / "broken")


def _write_broken(folder: Path) -> None:
    """Write five files as cameras, copies and attackers leave them."""
    folder.mkdir()
    whole = Image.fromarray(load_set("fashion-test").images[0])
    whole.save(folder / "truncated.png")
    data = (folder / "truncated.png").read_bytes()
    (folder / "truncated.png").write_bytes(data[: len(data) // 2])
    (folder / "empty.png").write_bytes(b"")
    (folder / "text.png").write_text("This is not an image.\n")
    whole.save(folder / "animated.gif", save_all=True, append_images=[whole.rotate(90)])
    # A BMP header is little-endian: width at byte 18, height at 22.
    whole.save(folder / "huge.bmp")
    header = bytearray((folder / "huge.bmp").read_bytes())
    header[18:26] = HEADER_PIXELS.to_bytes(4, "little") * 2
    (folder / "huge.bmp").write_bytes(header)


def _make_bundle(bundle: Path, say: Say) -> None:
    missing = [name for name in EXPORT_PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        say(f"{', '.join(missing)} not installed, so the demo starts from the shipped bundle of the same weights")
        say("(pip install 'diffood[export]' lets it export them itself).")
        shutil.copytree(zoo.BUNDLE, bundle)
        return
    command = (
        "export", "--unet", zoo.UNET, "--classifier", f"{zoo.CLASSIFIER}:{zoo.FACTORY}",
        "--classifier-weights", zoo.CLASSIFIER_WEIGHTS, "--class-names", zoo.CLASS_NAMES, "--output", bundle,
    )  # fmt: skip
    _run(say, *command)


def _run(say: Say, *command: object, accept: tuple[int, ...] = (0,)) -> dict[str, Any]:
    """Run one verb as a user would; with --json its output is returned instead of shown."""
    words = [str(word) for word in command]
    say(f"\n$ diffood {shlex.join(words)}")
    quiet = "--json" in words
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "diffood", *words],
        stdout=subprocess.PIPE if quiet else None,
        env=environment,
        check=False,
    )
    if done.returncode not in accept:
        raise DiffoodError(f"`diffood {words[0]}` failed with exit code {done.returncode}; its message is above.")
    content: dict[str, Any] = json.loads(done.stdout) if quiet else {}
    return content


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def _draw_strip(bundle: Path, path: Path) -> None:
    detector = Detector.open(bundle)
    rule = Rule.of(detector.calibration())
    chosen = [(name, pixels) for name in ("fashion-test", *OOD_SETS) for pixels in load_set(name).images[:STRIP_IMAGES]]
    items = [((name, x), x) for name, x in ((name, from_pixels(pixels[None])) for name, pixels in chosen)]
    columns = []
    for (name, x), result in detector.stream(items):
        decisions = rule.decide(np.array([result.score]), np.array([result.evidence.predicted]))
        flagged = bool(decisions.is_ood[0])
        verdict = "flagged" if flagged else "passed"
        caption = f"{result.score:.2f} {verdict}"
        group = "in-distribution" if name == "fashion-test" else name
        columns.append(StripImage(group, x, result.evidence.denoised[0, -1], caption, flagged))
    draw_strip(columns, path)


def table(summary: dict[str, Any]) -> str:
    """The summary in words a newcomer understands."""
    alarms = summary["false_alarms"]
    low, high = alarms["interval"]
    lines = [
        f"False alarms   {alarms['rate']:.1%} of {alarms['count']} fresh clothes were flagged "
        f"(95% interval {low:.1%} to {high:.1%}; at most 5% asked for)",
        f"Guarantee      {summary['guarantee']}",
        "",
        f"{'Never seen':<16}{'images':>7}{'detected':>11}{'AUROC':>9}",
    ]
    for name, metrics in summary["sets"].items():
        lines.append(f"{name:<16}{metrics['count']:>7}{metrics['detection_rate']:>11.1%}{metrics['auroc']:>9.2%}")
    lines += [
        f"{'mean':<16}{'':>18}{summary['mean_auroc']:>9.2%}",
        "",
        f"Speed          {summary['images_per_second']:.1f} images a second on this machine, "
        f"{summary['unet_evaluations_per_image']:.1f} UNet evaluations each",
        f"Set aside      {len(summary['set_aside'])} files of the mixed folder, the others went on:",
    ]
    lines += [f"  {name}: {reason}" for name, reason in summary["set_aside"].items()]
    return "\n".join(lines)
