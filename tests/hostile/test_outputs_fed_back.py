"""Attack: a run is led to the images that it keeps, by a link that is planted later, or by a line of a list."""

import os
from pathlib import Path

import pytest
from tars import png

from diffood.errors import RejectedImage
from diffood.runtime.images.decode import DEFAULT_LIMITS
from diffood.runtime.inputs.items import Item
from diffood.runtime.inputs.open import open_inputs
from diffood.runtime.inputs.reading import ReadOptions
from diffood.runtime.inputs.watch import ListedFolder, WatchedFolder


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ReadOptions:
    """A camera's folder, and one into which the run writes, in the working directory."""
    for name in ("cam", "kept/deep"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "x.png").write_bytes(png(1))
    monkeypatch.chdir(tmp_path)
    return ReadOptions(outputs=(str(tmp_path / "kept" / "deep"),))


def said(items: list[Item]) -> dict[str, str]:
    """Why each item is refused; "" for a good one."""
    found = {}
    for item in items:
        try:
            found[item.id] = str(item.read(DEFAULT_LIMITS) and "")
        except RejectedImage as error:
            found[item.id] = str(error)
    return found


def test_a_link_to_what_the_run_writes_is_not_followed(places: ReadOptions, subtests: pytest.Subtests) -> None:
    for number, target in enumerate(("../kept/deep", "../kept", "..")):
        link = Path("cam", f"link{number}")
        with subtests.test(target):
            link.symlink_to(target)
            found = said([item for item in open_inputs(["cam"], places) if isinstance(item, Item)])
            listed = ListedFolder(WatchedFolder(Path("cam"), settle_seconds=0), places.outputs)
            assert found == said([item for _ in range(2) for item in listed.next_items()])
            assert found.pop("x.png") == ""
            assert found.keys() == {link.name}
            assert "The link is not followed" in found[link.name]
            link.unlink()


def test_a_line_that_names_what_the_run_writes_is_one_row(places: ReadOptions) -> None:
    Path("list.txt").write_text(f"cam\nkept/deep\nkept\n{os.getcwd()}\n./cam/../kept/\ncam/x.png\n")  # noqa: PTH109
    found = said([item for item in open_inputs(["@list.txt"], places) if isinstance(item, Item)])
    assert found.pop("cam/x.png") == ""
    assert len(found) == 4
    assert all("This run writes into the folder" in reason for reason in found.values())
