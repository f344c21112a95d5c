"""What a user names becomes an ordered list of files: the same whatever the order, with ids that never meet."""

import itertools
import os
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
from denied import deny

from diffood.errors import UsageError
from diffood.runtime.inputs.items import LocalFile
from diffood.runtime.inputs.open import list_inputs

only_linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets a file name be any bytes")


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two folders with files at several depths, in the working directory."""
    make(tmp_path, "one/b.png", "one/a.png", "one/deep/er/c.png", "one/.hidden.png", "one/.cache/d.png", "two/a.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def make(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def ids(sources: Iterable[LocalFile]) -> list[str]:
    return [source.id for source in sources]


def test_a_folder_gives_its_files_at_every_depth_but_hidden_ones(tree: Path) -> None:
    assert ids(list_inputs(["one"])) == ["a.png", "b.png", "deep/er/c.png"]


def test_ids_are_the_same_however_the_folder_is_written(tree: Path) -> None:
    for written in (str(tree / "one"), "./one", "one/", "two/../one"):
        assert ids(list_inputs([written])) == ["a.png", "b.png", "deep/er/c.png"]


def test_paths_lead_to_the_files(tree: Path) -> None:
    assert [source.path for source in list_inputs(["one"])] == [
        Path("one") / name for name in ids(list_inputs(["one"]))
    ]


def test_several_folders_put_their_names_before_ids(tree: Path) -> None:
    assert ids(list_inputs(["two", "one"])) == ["one/a.png", "one/b.png", "one/deep/er/c.png", "two/a.png"]


def test_several_folders_of_one_name_put_their_paths_before_ids(tree: Path) -> None:
    make(tree, "x/camera/1.png", "y/camera/1.png")
    assert ids(list_inputs(["x/camera", "y/camera", "two"])) == ["two/a.png", "x/camera/1.png", "y/camera/1.png"]


def test_a_file_keeps_its_name_as_written(tree: Path) -> None:
    assert ids(list_inputs(["one/b.png", str(tree / "two/a.png")])) == [f"{tree.as_posix()}/two/a.png", "one/b.png"]


def test_globs(tree: Path) -> None:
    for pattern, expected in [
        ("one/*.png", ["one/a.png", "one/b.png"]),
        ("*/a.png", ["one/a.png", "two/a.png"]),
        ("one/**/*.png", ["one/a.png", "one/b.png", "one/deep/er/c.png"]),
        ("one/[ab].png", ["one/a.png", "one/b.png"]),
        ("*/?.png", ["one/a.png", "one/b.png", "two/a.png"]),
    ]:
        assert ids(list_inputs([pattern])) == expected, (pattern, expected)
        absolute = list_inputs([str(tree / pattern)])
        assert ids(absolute) == [f"{tree.as_posix()}/{name}" for name in expected], (pattern, expected)


def test_a_file_whose_name_is_a_pattern_is_that_file(tree: Path) -> None:
    make(tree, "image[1].png", "image1.png")
    assert ids(list_inputs(["image[1].png"])) == ["image[1].png"]


def test_a_list_is_relative_to_its_own_folder_and_keeps_missing_files(tree: Path) -> None:
    (tree / "two" / "list.txt").write_text("a.png\r\n\n../one/b.png\nmissing.png\n")
    sources = list_inputs(["@two/list.txt"])
    assert ids(sources) == ["../one/b.png", "a.png", "missing.png"]
    assert [source.path.exists() for source in sources] == [True, True, False]


def test_a_list_may_name_absolute_paths(tree: Path) -> None:
    (tree / "list.txt").write_text(str(tree / "one" / "a.png"))
    assert list_inputs(["@list.txt"])[0].path == tree / "one" / "a.png"


def test_only_newlines_end_a_name_in_a_list(tree: Path) -> None:
    for name in ["line\u2028separator.png", "next\x85line.png", "form\x0cfeed.png", "spaces inside.png"]:
        make(tree, name)
        (tree / "list.txt").write_text(f"{name}\ntwo/a.png\n", encoding="utf-8")
        assert sorted(ids(list_inputs(["@list.txt"]))) == sorted([name, "two/a.png"]), name


def test_what_names_nothing_is_wrong_usage(tree: Path) -> None:
    for name in [
        "nowhere",
        "one/none.png",
        "one/*.jpg",
        "*.none",
        "@nowhere.txt",
        "@one",
        "x" * 5000,
        "@" + "x" * 5000,
    ]:
        with pytest.raises(UsageError):
            list_inputs([name])
        with pytest.raises(UsageError):
            list_inputs(["one", name])


def test_a_folder_or_list_without_files_is_wrong_usage(tree: Path) -> None:
    make(tree, "empty/.hidden", "list.txt")
    for inputs in (["empty"], ["@list.txt"], []):
        with pytest.raises(UsageError, match="No files in" if inputs else "No INPUT"):
            list_inputs(inputs)


def test_order_does_not_matter(tree: Path) -> None:
    (tree / "list.txt").write_text("one/b.png\nnone.png\n")
    inputs = ["one", "two", "one/*.png", "@list.txt"]
    lists = [list_inputs(order) for order in itertools.permutations(inputs)]
    assert all(sources == lists[0] for sources in lists)
    assert ids(lists[0]) == sorted(ids(lists[0]))


def test_a_folder_given_twice_counts_once(tree: Path) -> None:
    for again in [["one"], ["./one", "one/"], ["two/../one"]]:
        assert ids(list_inputs(["one", *again])) == ids(list_inputs(["one"])), again


def test_a_file_given_twice_counts_once(tree: Path) -> None:
    assert ids(list_inputs(["one/a.png", "one/a.png", "one/[a].png", "./one/a.png"])) == ["one/a.png"]


def test_two_files_never_share_an_id(tree: Path) -> None:
    make(tree, "a.png")
    with pytest.raises(UsageError, match=r"would both have the id 'a\.png'"):
        list_inputs(["one", "a.png"])


def test_links_to_folders_below_the_one_given_lose_nothing_and_double_nothing(tree: Path) -> None:
    before = ids(list_inputs(["one"]))
    for number, target in enumerate(["one", "one/deep", "one/deep/er", "one/deep/loop0"]):
        (tree / "one" / "deep" / f"loop{number}").symlink_to(tree / target)
    for name in ("one", "one/**/*.png", "one/**"):
        found = [name.removeprefix("one/") for name in ids(list_inputs([name]))]
        assert found == before, name


def test_links_to_other_folders_are_followed(tree: Path) -> None:
    (tree / "links").mkdir()
    (tree / "links" / "x").symlink_to(tree / "one")
    (tree / "links" / "y").symlink_to("../two")
    assert ids(list_inputs(["links"])) == ["x/a.png", "x/b.png", "x/deep/er/c.png", "y/a.png"]
    assert ids(list_inputs(["links/**/*.png"])) == [
        "links/x/a.png",
        "links/x/b.png",
        "links/x/deep/er/c.png",
        "links/y/a.png",
    ]
    for source in list_inputs(["links"]):
        assert source.path.exists()


def test_a_link_to_a_hidden_folder_is_followed(tree: Path) -> None:
    """As Kubernetes mounts volumes, and as model hubs and data versioning keep their files."""
    (tree / "one" / "now").symlink_to(".cache")
    assert ids(list_inputs(["one"])) == ["a.png", "b.png", "deep/er/c.png", "now/d.png"]


def test_the_first_of_two_links_by_name_is_followed_whichever_was_made_first(tree: Path) -> None:
    for number, names in enumerate(itertools.permutations("abcd")):
        (tree / str(number)).mkdir()
        for name in names:
            (tree / str(number) / name).symlink_to(tree / "two")
        assert ids(list_inputs([str(number)])) == ["a/a.png", "b", "c", "d"]


def test_a_folder_that_two_links_lead_to_has_its_rows_once_and_the_other_link_says_so(tree: Path) -> None:
    (tree / "links").mkdir()
    for name, target in {"x": "one", "y": "one", "z": "one/deep"}.items():
        (tree / "links" / name).symlink_to(tree / target)
    found = {item.id: item for item in list_inputs(["links"])}
    assert sorted(found) == ["x/a.png", "x/b.png", "x/deep/er/c.png", "y", "z"]
    assert "rows below 'x/'" in found["y"].reason
    assert "rows below 'x/deep/'" in found["z"].reason


def test_a_link_to_a_folder_around_the_one_given_is_refused(tree: Path) -> None:
    (tree / "one" / "up").symlink_to(tree)
    (tree / "one" / "root").symlink_to("/")
    found = {item.id: item for item in list_inputs(["one"])}
    assert sorted(found) == ["a.png", "b.png", "deep/er/c.png", "root", "up"]
    for name in ("root", "up"):
        assert "contains the one given" in found[name].reason


def test_folders_that_all_link_to_each_other_are_walked_in_no_time(tree: Path) -> None:
    """Following every path through 40 such folders would take 40! steps."""
    folders = [tree / "web" / str(number) for number in range(40)]
    for folder in folders:
        make(folder, "image.png")
    for folder, other in itertools.permutations(folders, 2):
        (folder / f"to{other.name}").symlink_to(other)
    (tree / "links").mkdir()
    (tree / "links" / "in").symlink_to(folders[0])
    assert len(ids(list_inputs(["web"]))) == 40
    images = [name for name in ids(list_inputs(["links"])) if name.endswith(".png")]
    assert len(images) == 40
    assert len(ids(list_inputs(["web/**/*.png"]))) == 40


def test_links_to_files_and_dangling_links_are_listed(tree: Path) -> None:
    (tree / "two" / "dangling.png").symlink_to(tree / "nowhere.png")
    (tree / "two" / "link.png").symlink_to(tree / "one" / "a.png")
    assert ids(list_inputs(["two"])) == ["a.png", "dangling.png", "link.png"]
    assert ids(list_inputs(["two/dangling.png"])) == ["two/dangling.png"]


def test_a_folder_that_cannot_be_listed_is_listed_itself(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deny(monkeypatch, "er")
    assert ids(list_inputs(["one"])) == ["a.png", "b.png", "deep/er"]


@only_linux
def test_names_that_are_not_utf8_get_distinct_ids_of_valid_text(tmp_path: Path) -> None:
    names = [
        b"\xff.png",
        b"\xfe.png",
        b"\\xff.png",
        b"\\\\xff.png",
        "ü🙂.png".encode(),
        b"\xc3.png",
        b"\xed\xa0\x80.png",
    ]
    for name in names:
        (tmp_path / os.fsdecode(name)).touch()
    sources = list_inputs([str(tmp_path)])
    assert len(set(ids(sources))) == len(names)
    assert "ü🙂.png" in ids(sources)
    for source in sources:
        source.id.encode("utf-8")
        assert source.path.exists()


@only_linux
def test_odd_names_are_kept(tmp_path: Path) -> None:
    names = ["a\nb.png", "a\rb.png", '"quoted".png', "it's, a.png", " ", "-rf", "@list", "a\x1b[31m.png"]
    for number, name in enumerate(names):
        folder = tmp_path / f"{number}"
        make(folder, name)
        assert list_inputs([str(folder)]) == [LocalFile(name, folder / name)], name
