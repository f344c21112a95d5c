"""Pictures as bytes: encoded in a format, and decoded from data URIs."""

import base64
import io

from PIL import Image


def encoded(image: Image.Image, file_format: str = "PNG", **options: object) -> bytes:
    """The bytes of a file with an image."""
    stream = io.BytesIO()
    image.save(stream, file_format, **options)
    return stream.getvalue()


def decode_uri(uri: str) -> Image.Image:
    """The PNG of a data URI, decoded to its last pixel."""
    kind, _, data = uri.partition(",")
    assert kind == "data:image/png;base64"
    picture = Image.open(io.BytesIO(base64.b64decode(data, validate=True)))
    picture.load()
    return picture
