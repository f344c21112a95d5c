"""Attack: files of an output are removed, replaced, altered or added to while serve-batch writes it.

Each attack comes after a certain row, in the run itself, so that no timing decides what is tried.
"""

import contextlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cheap_calibration import calibrate_cheaply
from written import read

from diffood.errors import DiffoodError
from diffood.runtime.bundle.bundle import Bundle
from diffood.runtime.stop import Stop
from diffood.serving.output.base import OutputMode
from diffood.serving.request import InputRequest, OutputRequest, ScorerRequest, ServeRequest
from diffood.serving.serve import ServeObserver, ServeProgress, serve
from diffood.zoo.images import unpack_set

Attack = Callable[[Path], object]
IMAGES, PART, EARLY, LATE = 24, 8, 9, 20  # one part is complete at EARLY, two at LATE


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, small_bundle: Bundle, clothes_folder: Path) -> Path:
    """A calibrated copy of the small bundle; read-only."""
    path = Path(shutil.copytree(small_bundle.path, tmp_path_factory.mktemp("attacked") / "bundle"))
    return calibrate_cheaply(path, clothes_folder, 0.5)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """IMAGES files; read-only."""
    folder = tmp_path_factory.mktemp("images")
    unpack_set("fashion-test", folder, IMAGES)
    return folder


@pytest.fixture
def score(bundle: Path, images: Path) -> Callable[..., tuple[int, str]]:
    """Exit code of a run that is attacked after a number of rows, and what it said."""

    def run(output: Path, attack: Attack = Path, after: int = 0, mode: OutputMode = "new") -> tuple[int, str]:
        said: list[str] = []

        @contextlib.contextmanager
        def show(progress: ServeProgress) -> Iterator[Callable[[int], None]]:
            rows = 0

            def advance(count: int) -> None:
                nonlocal rows
                rows += count
                if rows == after:
                    attack(output)

            yield advance

        scorer, inputs = ScorerRequest(bundle, batch=8, threads=1), InputRequest((str(images),))
        request = ServeRequest(scorer, inputs, OutputRequest(output, part_rows=PART, mode=mode))
        try:
            return serve(request, Stop(), ServeObserver(show, said.append)).exit_code, " ".join(said)
        except DiffoodError as error:
            return 1, " ".join([*said, str(error)])

    return run


def partial(output: Path) -> Path:
    return output.with_name(f"{output.name}.partial")


def part(output: Path, number: int = 0) -> Path:
    """A complete part, of the output itself or on the way to one file."""
    folder = partial(output) if output.suffix else output
    return next(folder.glob(f"part-{number:06d}.*"))


def journal(output: Path) -> Path:
    return output / "_journal" if not output.suffix else output.with_name(f"{output.name}.journal")


def swap(path: Path, data: bytes) -> None:
    """Another file of the same name."""
    path.unlink()
    path.write_bytes(data)


def alter(path: Path) -> None:
    """Another byte in the same file."""
    with path.open("r+b") as file:
        os.pwrite(file.fileno(), bytes([os.pread(file.fileno(), 1, 100)[0] ^ 1]), 100)


def swap_for_link(path: Path) -> None:
    path.rename(path.with_name(".moved"))
    path.symlink_to(".moved")


def copy_folder(folder: Path) -> None:
    """The same files in another folder of the same name, but for the first part."""
    folder.rename(folder.with_name("moved"))
    shutil.copytree(folder.with_name("moved"), folder)
    part(folder).unlink()


ON_LINES: dict[str, Attack] = {
    "removed": lambda output: partial(output).unlink(),
    "forged": lambda output: swap(partial(output), re.sub(rb"0\.\d", b"0.0", partial(output).read_bytes())),
    "a link": lambda output: swap_for_link(partial(output)),
    "emptied": lambda output: os.truncate(partial(output), 0),
    "altered": lambda output: alter(partial(output)),
    "longer": lambda output: os.truncate(partial(output), partial(output).stat().st_size + 1),
    "journal removed": lambda output: journal(output).unlink(),
    "journal altered": lambda output: alter(journal(output)),
}
ON_PARTS: dict[str, Attack] = {
    "removed": lambda output: part(output).unlink(),
    "altered": lambda output: alter(part(output)),
    "a link": lambda output: swap_for_link(part(output)),
    "folder removed": lambda output: shutil.rmtree(part(output).parent),
}
ON_FOLDERS: dict[str, Attack] = {
    **ON_PARTS,
    "another part": lambda output: swap(part(output), part(output, 1).read_bytes()),
    "forged part added": lambda output: shutil.copy(part(output), output / "part-000009.parquet"),
    "forged part of another format added": lambda output: (output / "part-000000.jsonl").write_text("{}\n"),
    "other table added": lambda output: shutil.copy(part(output), output / "more.parquet"),
    "a FIFO": lambda output: (part(output).unlink(), os.mkfifo(output / "part-000000.parquet")),
    "another folder": copy_folder,
    "journal removed": lambda output: journal(output).unlink(),
}
CASES = [
    *(("rows.jsonl", name, attack) for name, attack in ON_LINES.items()),
    *(("rows.csv", name, ON_LINES[name]) for name in ("removed", "altered")),
    *(("rows.parquet", name, attack) for name, attack in ON_PARTS.items()),
    *(("rows", name, attack) for name, attack in ON_FOLDERS.items()),
]
FEW = [case for case in CASES if case[1] in ("removed", "forged part added")]
BEYOND_RESUME = ("journal removed", "journal altered", "folder removed", "other table added")


def rows_of(path: Path) -> list[tuple[str, float | None]]:
    return [(row.id, row.score) for row in read(path)]


def counts(summary: str) -> dict[str, object]:
    """What a summary says, but how long it took and the hash of all that."""
    varying = ("seconds", "images_per_second", "resumed", "content_sha256")
    return {name: value for name, value in json.loads(summary).items() if name not in varying}


@pytest.mark.parametrize("cases", [FEW, pytest.param(CASES, marks=pytest.mark.slow)], ids=["few", "all"])
def test_success_means_the_rows_are_on_the_disk_and_a_resume_makes_them_again(
    tmp_path: Path,
    score: Callable[..., tuple[int, str]],
    subtests: pytest.Subtests,
    cases: list[tuple[str, str, Attack]],
) -> None:
    assert score(tmp_path / "undisturbed.jsonl") == (0, "")
    expected = rows_of(tmp_path / "undisturbed.jsonl")
    assert len(expected) == IMAGES
    for number, (file, name, attack) in enumerate(cases):
        with subtests.test(file, attack=name):
            (tmp_path / str(number)).mkdir()
            output = tmp_path / str(number) / file
            code, said = score(output, attack, LATE)
            assert code == 1, said
            assert re.search(r"something else|No such file", said), said
            assert output.suffix == "" or not output.exists()
            if name in BEYOND_RESUME:
                continue
            code, said = score(output, mode="resume")
            assert code == 0, said
            assert rows_of(output) == expected


def test_an_old_output_is_not_replaced_by_a_forged_one(tmp_path: Path, score: Callable[..., tuple[int, str]]) -> None:
    output = tmp_path / "rows.jsonl"
    output.write_text("old")
    assert score(output, ON_LINES["forged"], LATE)[0] == 1
    assert output.read_text() == "old"


def test_a_finished_folder_is_read_again_before_it_is_called_done(
    tmp_path: Path, score: Callable[..., tuple[int, str]]
) -> None:
    output = tmp_path / "rows"
    assert score(output) == (0, "")
    expected = rows_of(output)
    assert score(output, mode="resume") == (0, "")
    summary = (output / "_summary.json").read_text()
    for plant in (None, summary.replace('"flagged": ', '"flagged": 1')):
        (output / "_summary.json").unlink()
        if plant:
            (output / "_summary.json").write_text(plant)
        assert score(output, mode="resume") == (0, "")
        assert counts((output / "_summary.json").read_text()) == counts(summary)
    alter(part(output, 1))
    code, said = score(output, mode="resume")
    assert (code, said) == (
        0,
        f"damaged     {PART} rows of {output} were changed or removed by something else; their images are scored again",
    )
    assert rows_of(output) == expected
