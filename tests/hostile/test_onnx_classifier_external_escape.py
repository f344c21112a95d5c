"""A classifier's ONNX file that names weights outside its folder, behind a link, or of a size that is not there."""

from pathlib import Path

import pytest
from attacks import undone

onnx = pytest.importorskip("onnx")
pytest.importorskip("torch")
from small_graphs import small_graph

from diffood.errors import ExportError
from diffood.export.sources.classifiers.onnx_file import open_onnx


@pytest.fixture
def apart(tmp_path: Path) -> Path:
    """folder/net.onnx with its weights next to it."""
    folder = tmp_path / "folder"
    folder.mkdir()
    onnx.save(small_graph(), folder / "net.onnx", save_as_external_data=True, location="net.data", size_threshold=0)
    return folder / "net.onnx"


def change(path: Path, key: str, value: str) -> None:
    model = onnx.load(path, load_external_data=False)
    (entry,) = (entry for entry in model.graph.initializer[0].external_data if entry.key == key)
    entry.value = value
    path.write_bytes(model.SerializeToString())


def test_a_place_outside_the_folder_is_never_read(apart: Path, subtests: pytest.Subtests) -> None:
    (apart.parent.parent / "secret.data").write_bytes(b"x" * 2**16)
    for place in ["../secret.data", "/etc/passwd", "", "..", "sub/net.data", "absent.data"]:
        with subtests.test(place=place), undone(apart.parent):
            (apart.parent / "sub").mkdir()
            (apart.parent / "sub" / "net.data").write_bytes(b"x" * 2**16)
            change(apart, "location", place)
            with pytest.raises(ExportError, match="is not a regular file of its folder"):
                open_onnx(apart)


def test_a_link_out_of_the_folder_is_never_followed(apart: Path, tmp_path: Path) -> None:
    (apart.parent / "net.data").replace(tmp_path / "elsewhere.data")
    (apart.parent / "net.data").symlink_to(tmp_path / "elsewhere.data")
    with pytest.raises(ExportError, match="is not a regular file of its folder"):
        open_onnx(apart)


def test_a_claim_of_bytes_that_are_not_there_is_refused(apart: Path, subtests: pytest.Subtests) -> None:
    for key, value, message in [
        ("length", str(10**12), "more than 2147483647 bytes"),
        ("offset", str(10**9), "cannot be read"),
        ("length", "-1", "cannot be read"),
    ]:
        with subtests.test(key=key, value=value), undone(apart.parent):
            change(apart, key, value)
            with pytest.raises(ExportError, match=message):
                open_onnx(apart)
