"""Runs diffood's own command line on the embedded models and images, and shows the result in ten lines."""

import importlib.util
import json
import os
import shlex
import shutil
import subprocess
import sys
import textwrap
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from diffood.errors import EXIT_SET_ASIDE, DiffoodError, MissingExtraError, UsageError
from diffood.report.requirements import DRAW, can_draw
from diffood.runtime.decision import DecisionRule
from diffood.runtime.detector import Detector
from diffood.runtime.images.decode import load_image
from diffood.runtime.images.pixels import to_pixels
from diffood.runtime.json_reader import parse_object
from diffood.runtime.progress import Say
from diffood.zoo.images import load_set, unpack_set
from diffood.zoo.pairs import PAIRS, EmbeddedPair

CALIBRATION_IMAGES = 700
TEST_IMAGES = 400
OOD_IMAGES = 100
MIXED_IMAGES = 20  # of each set, in the folder for serve-batch
STRIP_KNOWN = 2
HEADER_PIXELS = 60_000  # per side; decoded, such a file would take 3.6 GB
MARKER = ".diffood-demo"  # says that a folder is a demo's and may be replaced, also when the demo was interrupted
PRODUCTS = {MARKER, "images", "bundle", "verdicts.jsonl", "evaluation", "scores.png", "strip.png", "summary.json"}
EXPORT_PACKAGES = ("torch", "diffusers", "onnx", "onnxscript")

VERB = (
    "from diffood.runtime.child import end_with_parent; end_with_parent({parent}); from diffood.cli import main; main()"
)
WIDTH = 80  # columns of the result


@dataclass(frozen=True)
class DemoResult:
    """What summary.json holds.

    Attributes:
        model: Name of the embedded pair.
        auroc: By OOD set, in [0, 1].
        mean_auroc: Mean over the OOD sets.
        false_alarms: As in evaluation.json.
        sets: Metrics by OOD set, as in evaluation.json.
        threshold: Score above which an image is flagged.
        guarantee: What the calibration promises, as a sentence.
        calibration_images: Images the threshold was fitted on.
        unet_evaluations_per_image: Mean over the test images.
        images_per_second: Of serve-batch, on this machine.
        set_aside: Reason by file that serve-batch refused.
    """

    model: str
    auroc: dict[str, float]
    mean_auroc: float
    false_alarms: dict[str, Any]
    sets: dict[str, dict[str, Any]]
    threshold: float
    guarantee: str
    calibration_images: int
    unet_evaluations_per_image: float
    images_per_second: float
    set_aside: dict[str, str]


def run_demo(pair: EmbeddedPair, output: Path, say: Say) -> DemoResult:
    """Run every step into a folder: unpack images, export, calibrate, serve, evaluate; then show the result.

    Args:
        pair: The models and images.
        output: Folder to write to; a folder of an earlier demo is replaced.
        say: Receives each line to show.

    Raises:
        UsageError: The folder holds something else.
        MissingExtraError: Packages of the extra `export` are missing, and the pair has no bundle.
        DiffoodError: A step failed.
    """
    missing = [name for name in EXPORT_PACKAGES if importlib.util.find_spec(name) is None]
    if missing and pair.bundle is None:
        raise MissingExtraError(
            f"The embedded models of {pair.name} have to be exported, which needs {', '.join(missing)}: "
            "pip install 'diffood[export]'. Without --model the demo starts from a bundle."
        )
    if output.exists() and not _may_be_replaced(output):
        raise UsageError(f"{output} is neither an empty folder nor an earlier demo's; give --output a new one.")
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    (output / MARKER).touch()
    images, bundle = output / "images", output / "bundle"
    if not can_draw():
        say(f"matplotlib is not installed, so the demo draws no pictures ({DRAW} lets it).")
    say(f"Unpacking real images into {images}")
    say(f"({pair.things}: {pair.source}; {pair.licence})")
    _unpack(pair, images)
    _make_bundle(pair, bundle, missing, say)
    result = _measure(pair, output, say)
    if can_draw():
        shutil.move(output / "evaluation" / "scores.png", output / "scores.png")
        _draw_strip(pair, output)
    (output / "summary.json").write_text(json.dumps(asdict(result), indent=1) + "\n")
    say("")
    for line in describe_result(result, output):
        say(line)
    return result


def _measure(pair: EmbeddedPair, output: Path, say: Say) -> DemoResult:
    """Calibrate the bundle, serve a folder with broken files in it, and evaluate."""
    images, bundle = output / "images", output / "bundle"
    calibration = _run(
        say, "calibrate", bundle, "--images", images / "validation", "--fpr", 0.05, "--confidence", 0.95, "--json"
    )
    served = _run(
        say, "serve-batch", bundle, images / "mixed", "--output", output / "verdicts.jsonl", "--json",
        accept=(0, EXIT_SET_ASIDE),
    )  # fmt: skip
    sets = [part for name in pair.unseen for part in ("--ood", f"{name}={images / name}")]
    evaluation = _run(
        say, "evaluate", bundle, "--ind", images / "test", *sets, "--output", output / "evaluation", "--json"
    )
    rows = map(parse_object, (output / "verdicts.jsonl").read_bytes().splitlines())
    return DemoResult(
        model=pair.name,
        auroc=evaluation["auroc"],
        mean_auroc=evaluation["mean_auroc"],
        false_alarms=evaluation["false_alarms"],
        sets=evaluation["sets"],
        threshold=evaluation["threshold"],
        guarantee=evaluation["guarantee"],
        calibration_images=calibration["n"],
        unet_evaluations_per_image=evaluation["unet_evaluations_per_image"],
        images_per_second=served["images_per_second"],
        set_aside={row["id"]: row["error"] for row in rows if row["status"] == "rejected"},
    )


def _may_be_replaced(output: Path) -> bool:
    """Whether a folder is empty or holds only what a demo writes."""
    if not output.is_dir():
        return False
    names = {entry.name for entry in output.iterdir()}
    return not names or (MARKER in names and all(map(_is_product, names)))


def _is_product(name: str) -> bool:
    """Whether a demo writes a file or folder of this name; verbs add endings, and a dot before what is not complete."""
    name = name if name in PRODUCTS else name.removeprefix(".")
    return any(name == product or name.startswith(f"{product}.") for product in PRODUCTS)


def _unpack(pair: EmbeddedPair, images: Path) -> None:
    unpack_set(pair.validation, images / "validation", CALIBRATION_IMAGES)
    unpack_set(pair.test, images / "test", TEST_IMAGES)
    for name, stored in pair.unseen.items():
        unpack_set(stored, images / name, OOD_IMAGES)
    mixed = images / "mixed"
    for name, stored in {pair.things: pair.test, **pair.unseen}.items():
        unpack_set(stored, mixed / name, MIXED_IMAGES)
    _write_broken(pair, mixed / "broken")


def _write_broken(pair: EmbeddedPair, folder: Path) -> None:
    """Write five files that cannot be scored: damaged, empty, no image, several images, too large."""
    folder.mkdir()
    whole = Image.fromarray(load_set(pair.test).images[0])
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


def _make_bundle(pair: EmbeddedPair, bundle: Path, missing: list[str], say: Say) -> None:
    """Export the weights, or copy the shipped bundle where packages are missing."""
    if missing and pair.bundle is not None:
        say(f"{', '.join(missing)} not installed, so the demo starts from the shipped bundle of the same weights")
        say("(pip install 'diffood[export]' lets it export them itself).")
        shutil.copytree(pair.bundle, bundle)
        return
    command = (
        "export", "--unet", pair.unet, "--classifier", pair.classifier,
        "--classifier-weights", pair.classifier_weights, "--class-names", pair.class_names, "--output", bundle,
    )  # fmt: skip
    _run(say, *command)


def _run(say: Say, *command: object, accept: tuple[int, ...] = (0,)) -> dict[str, Any]:
    """Run one verb as a user would; with --json its output is returned instead of shown."""
    words = [str(word) for word in command]
    for line in ("", *wrap_command(["diffood", *words])):
        say(line)
    quiet = "--json" in words
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        [sys.executable, "-c", VERB.format(parent=os.getpid()), *words],
        stdout=subprocess.PIPE if quiet else None,
        env=environment,
        start_new_session=True,  # Ctrl-C comes to this process, which passes it on, once
    ) as process:
        try:
            out, _ = process.communicate()
        except KeyboardInterrupt:
            process.terminate()  # it ends in good order too
            raise
    if process.returncode not in accept:
        raise DiffoodError(f"`diffood {words[0]}` failed with exit code {process.returncode}; its message is above.")
    return parse_object(out) if quiet else {}


def wrap_command(words: list[str]) -> list[str]:
    """A command line that can be copied, continued on the next line before an option that would make it too wide."""
    parts: list[str] = []
    for word in words:
        if parts and not word.startswith("--"):
            parts[-1] += f" {shlex.quote(word)}"
        else:
            parts.append(shlex.quote(word))
    lines = [f"$ {parts[0]}"]
    for part in parts[1:]:
        if len(f"{lines[-1]} {part} \\") > WIDTH:
            lines[-1] += " \\"
            lines.append(f"    {part}")
        else:
            lines[-1] += f" {part}"
    return lines


def _draw_strip(pair: EmbeddedPair, output: Path) -> None:
    """Draw the first two known images and the first of each OOD set: none was picked by hand."""
    from diffood.report.charts.image_strip import StripImage, draw_strip

    detector = Detector.open(output / "bundle")
    manifest, images = detector.bundle.manifest, output / "images"
    rule = DecisionRule.of(detector.calibration())
    chosen = [(pair.things, images / "test" / f"{index:04d}.png") for index in range(STRIP_KNOWN)]
    chosen += [(name, images / name / "0000.png") for name in pair.unseen]
    decoded = [(name, load_image(path, manifest.image).pixels) for name, path in chosen]
    columns = []
    for name, result in detector.stream((name, pixels) for name, pixels in decoded if pixels is not None):
        evidence, denoised = result.evidence, result.evidence.denoised
        assert denoised is not None  # the default plan denoises in its first stage
        decisions = rule.decide(np.array([result.score]), np.array([result.predicted]))
        columns.append(
            StripImage(
                title=name,
                original=evidence.pixels,
                denoised=to_pixels(denoised),
                class_name=manifest.class_names[result.predicted],
                confidence=result.confidence,
                p_value=float(decisions.p_values[0]),
                is_ood=bool(decisions.is_ood[0]),
            )
        )
    draw_strip(columns, output / "strip.png")


def describe_result(result: DemoResult, output: Path) -> list[str]:
    """The result in words a newcomer understands, in at most WIDTH columns."""
    alarms = result.false_alarms
    low, high = alarms["interval"]
    detected = [metrics["detection_rate"] for metrics in result.sets.values()]
    rows = [
        ["Never seen", *result.sets, "mean"],
        ["  detected", *(f"{rate:.1%}" for rate in [*detected, sum(detected) / len(detected)])],
        ["  AUROC", *(f"{area:.2%}" for area in [*result.auroc.values(), result.mean_auroc])],
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    table = [
        f"{row[0]:<13}" + "".join(f"{cell:>{width + 2}}" for cell, width in zip(row[1:], widths[1:], strict=True))
        for row in rows
    ]
    pictures = f"{output / 'scores.png'}, {output / 'strip.png'}" if can_draw() else f"none; {DRAW} draws them"
    indent = 15 * " "
    guarantee = textwrap.wrap(f"Guarantee      {result.guarantee}", WIDTH, subsequent_indent=indent)
    return [
        f"False alarms   {alarms['rate']:.1%} of {alarms['count']} fresh {PAIRS[result.model].things} "
        f"(95% interval {low:.1%} to {high:.1%})",
        *guarantee,
        *table,
        f"Speed          {result.images_per_second:.1f} images per second on this machine, "
        f"{result.unet_evaluations_per_image:.1f} UNet evaluations each",
        f"Set aside      {len(result.set_aside)} broken files; {output / 'summary.json'} says why",
        f"Pictures       {pictures}",
    ]
