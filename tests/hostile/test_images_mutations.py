"""Attack: real files of every format with bytes flipped, cut out, doubled or overwritten; thousands of them."""

import numpy as np
import pytest
from image_mutations import mutate, seeds, with_right_checksums

from diffood.errors import RejectedImage
from diffood.runtime.images.decode import ImageLimits, ImageShape, decode

pytestmark = pytest.mark.filterwarnings("ignore:::PIL")  # pytest turns on what diffood turns off

MUTANTS = 400
SHAPE = ImageShape(3, 9, 9)
LIMITS = ImageLimits(max_bytes=2**16, max_pixels=10**6)


def test_only_a_refusal_or_an_image_comes_out(capfd: pytest.CaptureFixture[str], subtests: pytest.Subtests) -> None:
    for name, data in seeds().items():
        with subtests.test(name=name):
            capfd.readouterr()
            decode(data, SHAPE, LIMITS) if not name.endswith(("animated", "pages", "apng")) else None
            rng = np.random.default_rng([len(data), *name.encode()])
            refused = 0
            for number in range(MUTANTS):
                mutant = mutate(data, rng)
                if number % 2 and "png" in name:
                    mutant = with_right_checksums(mutant)
                try:
                    pixels, _ = decode(mutant, SHAPE, LIMITS)
                except RejectedImage as refusal:
                    refused += 1
                    message = str(refusal)
                    assert message.isprintable(), mutant
                    assert len(message) < 400, mutant
                    assert " at 0x" not in message, mutant
                else:
                    assert pixels.shape == (3, 9, 9)
                    assert pixels.dtype == np.uint8
            assert refused > MUTANTS // 20
            if not name.startswith("tiff"):  # libtiff writes to the process's stderr, and Pillow has no switch for it
                assert capfd.readouterr() == ("", "")
