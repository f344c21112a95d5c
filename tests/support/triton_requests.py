"""What the tests of the Triton model send, and the rows serve-batch gives for it."""

import io
import json
from collections.abc import Mapping
from pathlib import Path

from PIL import Image
from written import open_at

from diffood.runtime.detector import Detector
from diffood.runtime.images.decode import ImageLimits
from diffood.runtime.inputs.open import list_inputs
from diffood.serving.batch import BatchJob, serve_batch
from diffood.serving.local import LocalScorer
from diffood.serving.rows.row import Row
from diffood.zoo.images import load_set

# One UNet evaluation an image, where detection is not looked at.
FAST = {"start_times": (120,), "stride": 120, "repeats": 1, "guidance": 0.0}


def broken_images() -> dict[str, bytes]:
    """Bytes of files that are refused, by a name that says why; "large" has 30,000 bytes."""
    png, frames, bmp = io.BytesIO(), io.BytesIO(), io.BytesIO()
    one, other = (Image.fromarray(pixels) for pixels in load_set("fashion-test").images[:2])
    one.save(png, "PNG")
    one.save(frames, "GIF", save_all=True, append_images=[other])
    one.save(bmp, "BMP")
    header = bytearray(bmp.getvalue())
    header[18:26] = (60_000).to_bytes(4, "little") * 2  # a BMP's width and height
    return {
        "animated.gif": frames.getvalue(),
        "empty.png": b"",
        "huge.bmp": bytes(header),
        "large.png": png.getvalue() + bytes(30_000 - len(png.getvalue())),
        "text.png": b"This is not an image.",
        "truncated.png": png.getvalue()[: len(png.getvalue()) // 2],
        "zeros.png": bytes(100),
    }


def serve_folder(detector: Detector, images: Mapping[str, bytes], place: Path, limits: ImageLimits) -> dict[str, Row]:
    """The rows that serve-batch writes of these images as files, by their names, and without them in the row."""
    folder, output = place / "images", place / "rows.jsonl"
    folder.mkdir()
    for name, data in images.items():
        (folder / name).write_bytes(data)
    with open_at(output) as target:
        scorer = LocalScorer(detector, detector.calibration(), limits)
        serve_batch(BatchJob(scorer, list_inputs([str(folder)]), target))
    rows = [json.loads(line) for line in output.read_text("utf-8").splitlines()]
    return {row["id"]: Row(**{**row, "id": ""}) for row in rows}
