"""Pictures in data URIs, decoded."""

import base64
import io

from PIL import Image


def decode_uri(uri: str) -> Image.Image:
    """The PNG of a data URI, decoded to its last pixel."""
    kind, _, data = uri.partition(",")
    assert kind == "data:image/png;base64"
    picture = Image.open(io.BytesIO(base64.b64decode(data, validate=True)))
    picture.load()
    return picture
