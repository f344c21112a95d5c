"""Attack: an image file that ends too early, at any byte; a grey remainder must never be scored."""

import io

import numpy as np
import pytest
from PIL import Image

from diffood.errors import RejectedImage
from diffood.runtime.images.decode import ImageLimits, ImageShape, decode

pytestmark = pytest.mark.filterwarnings("ignore:::PIL")  # pytest turns on what diffood turns off

END_MARK = {"PNG": 4, "GIF": 2}  # bytes after the pixels that carry nothing: the last checksum, the terminator


def test_every_shorter_file_is_refused(subtests: pytest.Subtests) -> None:
    for file_format in ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM"]:
        with subtests.test(file_format=file_format):
            pixels = np.random.default_rng(0).integers(0, 256, (12, 12), dtype=np.uint8)
            stream = io.BytesIO()
            Image.fromarray(pixels).save(stream, file_format)
            data = stream.getvalue()
            decode(data, ImageShape(1, 12, 12), ImageLimits())
            for length in range(len(data) - END_MARK.get(file_format, 0)):
                with pytest.raises(RejectedImage):
                    decode(data[:length], ImageShape(1, 12, 12), ImageLimits())
