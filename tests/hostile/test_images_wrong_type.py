"""Attack: something that is no image, or an image whose decoder starts another program, named .png."""

import pytest

from diffood.errors import RejectedImage
from diffood.runtime.images.decode import ImageLimits, ImageShape, decode


def test_it_is_refused_in_one_line(subtests: pytest.Subtests) -> None:
    for data in [
        b"Dear reader,\nthis is a letter.\n",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n",
        b"%PDF-1.4\n1 0 obj<</Type/Catalog>>endobj\n",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"\x7fELF\x02\x01\x01" + bytes(57),
        b"PK\x03\x04" + bytes(26),
        b"\x89PNG\r\n\x1a\n",
        b"\xff\xd8\xff\xe0",
        b"RIFF\x04\x00\x00\x00WEBP",
        b"\n\r\x1b\x00\xff" * 20,
    ]:
        with subtests.test(data=data):
            with pytest.raises(RejectedImage) as refusal:
                decode(data, ImageShape(1, 28, 28), ImageLimits())
            assert str(refusal.value).isprintable()
            assert " at 0x" not in str(refusal.value)


def test_an_eps_is_not_even_identified() -> None:
    with pytest.raises(RejectedImage, match="not an image in a format diffood reads"):
        decode(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", ImageShape(1, 28, 28), ImageLimits())
