"""The law of inputs: the same files give the same rows however they are packed, and every file has a row or a count."""

import bz2
import gzip
import io
import itertools
import lzma
import os
import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from tars import png

from diffood.runtime.images.decode import DecodedImage, ImageLimits, ImageShape
from diffood.runtime.inputs.items import Item
from diffood.runtime.inputs.labels import IMAGE_ENDINGS, LABEL_ENDINGS, LeftOut
from diffood.runtime.inputs.open import open_inputs
from diffood.runtime.inputs.reading import ReadOptions

LIMITS, SHAPE = ImageLimits(max_bytes=5000, max_pixels=1000), ImageShape(1, 4, 4)
Files = Mapping[str, bytes]
Rows = dict[str, tuple[str, str, str, bytes]]

CONTENTS = [png(1), png(2), b"", b"words\n", png(3)[:40], b"x" * 5001, b"\0" * 600]
FOLDERS = ["", "d/", "d/deep/er/", "E f/", ".hidden/", "d/.hid/"]
STEMS = ["a", "b", "a-1", "ü", "A", ".dot", "a b", "0001.seg"]
ENDINGS = [
    "",
    ".png",
    ".JPG",
    ".jpeg",
    ".webp",
    ".avif",
    ".heic",
    ".tga",
    ".jp2",
    ".svg",
    ".TXT",
    ".cls",
    ".json",
    ".md",
]

trees = st.dictionaries(
    st.builds("".join, st.tuples(st.sampled_from(FOLDERS), st.sampled_from(STEMS), st.sampled_from(ENDINGS))),
    st.sampled_from(CONTENTS),
    min_size=1,
    max_size=12,
)


def write(files: Files, folder: Path) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def tar(files: Files, before: str = "") -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(before + name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return stream.getvalue()


def two_tars(files: Files) -> bytes:
    """Two tars, one behind the other."""
    names = list(files)
    middle = len(names) // 2
    return tar({name: files[name] for name in names[:middle]}) + tar({name: files[name] for name in names[middle:]})


def zipped(files: Files, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return stream.getvalue()


PACKED: dict[str, Callable[[Files], bytes]] = {
    "plain.tar": tar,
    "dotted.tar": lambda files: tar(files, "./"),
    "gzip.tar.gz": lambda files: gzip.compress(tar(files)),
    "gzip.tgz": lambda files: gzip.compress(tar(files)),
    "bzip2.tar.bz2": lambda files: bz2.compress(tar(files)),
    "xz.tar.xz": lambda files: lzma.compress(tar(files)),
    "plain as.tar.gz": tar,
    "gzip as.tar": lambda files: gzip.compress(tar(files)),
    "no ending": tar,
    "two.tar": two_tars,
    "two.tar.gz": lambda files: gzip.compress(two_tars(files)),
    "deflated.zip": zipped,
    "stored.zip": lambda files: zipped(files, zipfile.ZIP_STORED),
    "zip as.tar": zipped,
}


def rows_of(name: str, prefix: str = "") -> tuple[Rows, LeftOut]:
    """What each item becomes, by its id without the container's name, and what was left out."""
    reading = ReadOptions(LIMITS)
    found: Rows = {}
    for item in open_inputs([name], reading):
        assert isinstance(item, Item)
        assert item.id.startswith(prefix)
        assert item.id not in found
        found[item.id.removeprefix(prefix)] = row(item.load(SHAPE, LIMITS))
    return found, reading.left_out


def row(loaded: DecodedImage) -> tuple[str, str, str, bytes]:
    pixels = b"" if loaded.pixels is None else loaded.pixels.tobytes()
    return loaded.sha256, loaded.note, loaded.error, pixels


def expected_names(files: Files) -> tuple[set[str], int]:
    """Names that have rows, and the number of labels; written by the documentation alone."""
    shown = sorted(name for name in files if not any(part.startswith(".") for part in name.split("/")))
    labels = set()
    for _, group in itertools.groupby(shown, lambda name: name[: (name + ".").index(".", name.rfind("/") + 1)]):
        names = list(group)
        if any(os.path.splitext(name)[1].lower() in IMAGE_ENDINGS for name in names):  # noqa: PTH122
            labels |= {name for name in names if name.lower().endswith(LABEL_ENDINGS)}
    return set(shown) - labels, len(labels)


def folder_of_links(files: Files, root: Path) -> Path:
    """Links to the files, in real folders."""
    links = root / "links"
    links.mkdir()
    for name in files:
        (links / name).parent.mkdir(parents=True, exist_ok=True)
        (links / name).symlink_to(root / "files" / name)
    return links


def linked_folders(files: Files, root: Path) -> Path:
    """A link to each file and folder of the top level."""
    linked = root / "linked"
    linked.mkdir()
    for entry in (root / "files").iterdir():
        (linked / entry.name).symlink_to(entry)
    return linked


@given(trees)
def test_the_same_files_give_the_same_rows_in_any_form(files: dict[str, bytes]) -> None:
    names, labels = expected_names(files)
    hidden = sum(any(part.startswith(".") for part in name.split("/")) for name in files)
    assume(names)
    root = Path(tempfile.mkdtemp())
    try:
        folder = write(files, root / "files")
        expected, left_out = rows_of(str(folder))
        assert set(expected) == names
        assert left_out.labels == labels
        for links in (folder_of_links(files, root), linked_folders(files, root)):
            assert rows_of(str(links))[0] == expected, links
        for name, pack in PACKED.items():
            (root / name).write_bytes(pack(files))
            found, left_out = rows_of(f"{root}/{name}", f"{root}/{name}/")
            assert found == expected, name
            assert left_out == LeftOut(labels, hidden), name
            assert len(found) + left_out.labels + left_out.hidden == len(files), name
        assert rows_of(f"{folder}/**", f"{folder}/")[0] == expected
        shown = [name for name in files if not any(part.startswith(".") for part in name.split("/"))]
        (root / "list").write_text("".join(f"files/{name}\n" for name in shown))
        assert rows_of(f"@{root}/list", "files/") == (expected, LeftOut(labels))
    finally:
        shutil.rmtree(root)


def test_copies_of_every_form_in_one_run_have_their_own_rows(tmp_path: Path, subtests: pytest.Subtests) -> None:
    for count in [1, 3]:
        with subtests.test(count=count):
            files = {f"{number}.png": png(number) for number in range(count)} | {"notes.md": b"words"}
            write(files, (folder := tmp_path / str(count)) / "files")
            for name, pack in PACKED.items():
                (folder / name).write_bytes(pack(files))
            found, _ = rows_of(str(folder))
            assert len(found) == (1 + len(PACKED)) * len(files)
            assert sorted(name.rpartition("/")[2] for name in found) == sorted([*files] * (1 + len(PACKED)))
