"""serve-batch on a folder as the world leaves it: a row for every file, and the same rows on every run."""

import dataclasses
import json
import math
import os
import random
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_models import SMALL_BUNDLE
from written import open_at

from diffood.calibration.calibrate import calibrate
from diffood.calibration.scored_files import score_sources
from diffood.errors import DiffoodError
from diffood.runtime.bundle.bundle import open_bundle
from diffood.runtime.bundle.calibration import save_calibration
from diffood.runtime.decision import DecisionRule
from diffood.runtime.detector import Detector
from diffood.runtime.inputs.decoding import DecodeOptions
from diffood.runtime.inputs.items import Item, LocalFile, Pause
from diffood.runtime.inputs.open import list_inputs, open_inputs
from diffood.runtime.inputs.reading import ReadOptions
from diffood.runtime.inputs.watch import WatchedFolder
from diffood.runtime.method.plan import Plan
from diffood.runtime.pipeline import score_files
from diffood.runtime.stop import Stop
from diffood.serving.batch import BatchJob, existing_rows, serve_batch
from diffood.serving.local import LocalScorer, ScoredFile, make_rows
from diffood.serving.output.summary import Summary, Tally
from diffood.serving.rows.row import Row
from diffood.zoo.images import load_set

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="FIFOs and file names of any bytes")

FAST = Plan(start_times=(120, 240), stride=120, repeats=1, guidance=2.0)
BATCH = 8

# What the row of each broken file says.
REFUSED = {
    "broken/animated.gif": "has 2 frames",
    "broken/dangling.png": "No such file or directory",
    "broken/fifo.png": "a FIFO, not a regular file",
    "broken/huge.bmp": "3600000000 pixels",
    "broken/text.png": "not an image in a format diffood reads",
    "broken/truncated.png": "damaged",
    "broken/zero.png": "empty (0 bytes)",
}
# What the row of each converted file notes.
CONVERTED = {
    "converted/16-bit.png": "reduced from 16 bits to 8",
    "converted/cmyk.jpg": "converted from CMYK; converted from RGB to grey",
    "converted/exif.jpg": "rotated by its EXIF tag",
    "converted/palette.png": "converted from RGB to grey",
    "converted/wide.png": "resized from 56x28 and stretched",
}
PLAIN = {f"good/{index}.png" for index in range(10)} | {"x.png/inside.png", "not-\\xff\\xfe-utf8.png"}


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory, clothes_folder: Path) -> Detector:
    """A copy of the shipped bundle, calibrated on eighty images with a fast plan, opened with batch 8."""
    path = Path(shutil.copytree(SMALL_BUNDLE, tmp_path_factory.mktemp("pipeline") / "bundle"))
    fresh = Detector.load(open_bundle(path), FAST, batch=BATCH, threads=1)
    files = score_sources(fresh, list_inputs([str(clothes_folder)]))
    save_calibration(fresh.bundle, calibrate(fresh, files, 0.05, 0.95, "pac"))
    return Detector.open(path, batch=BATCH, threads=1)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Good, broken and converted files, as REFUSED, CONVERTED and PLAIN name them; read-only."""
    root = tmp_path_factory.mktemp("mixed")
    images = [Image.fromarray(pixels) for pixels in load_set("fashion-test").images[:20]]
    for folder in ("good", "broken", "converted", "x.png"):
        (root / folder).mkdir()
    for index in range(10):
        images[index].save(root / "good" / f"{index}.png")
    images[10].save(root / "x.png" / "inside.png")
    images[11].save(root / "plain.png")
    (root / "plain.png").rename(root / os.fsdecode(b"not-\xff\xfe-utf8.png"))

    broken = root / "broken"
    images[0].save(broken / "truncated.png")
    data = (broken / "truncated.png").read_bytes()
    (broken / "truncated.png").write_bytes(data[: len(data) // 2])
    (broken / "zero.png").touch()
    (broken / "text.png").write_text("This is not an image.\n")
    images[0].save(broken / "animated.gif", save_all=True, append_images=[images[1]])
    images[0].save(broken / "huge.bmp")
    header = bytearray((broken / "huge.bmp").read_bytes())
    header[18:26] = (60_000).to_bytes(4, "little") * 2  # a BMP's width and height
    (broken / "huge.bmp").write_bytes(header)
    (broken / "dangling.png").symlink_to(root / "nowhere.png")
    os.mkfifo(broken / "fifo.png")

    converted = root / "converted"
    Image.fromarray(np.asarray(images[12]).astype(np.uint16) * 257).save(converted / "16-bit.png")
    images[13].convert("RGB").convert("P", palette=Image.Palette.ADAPTIVE).save(converted / "palette.png")
    images[14].convert("CMYK").save(converted / "cmyk.jpg")
    exif = Image.Exif()
    exif[274] = 6  # orientation: the camera was turned by a quarter
    images[15].save(converted / "exif.jpg", exif=exif)
    images[16].resize((56, 28)).save(converted / "wide.png")
    return root


def serve(detector: Detector, sources: Sequence[LocalFile], output: Path) -> tuple[list[Row], Summary]:
    with open_at(output) as target:
        summary = serve_batch(BatchJob(LocalScorer(detector, detector.calibration()), sources, target))
    return [Row(**json.loads(line)) for line in output.read_text("utf-8").splitlines()], summary


def lines(detector: Detector, sources: Sequence[LocalFile], output: Path) -> list[bytes]:
    serve(detector, sources, output)
    return output.read_bytes().splitlines()


def test_every_file_has_one_row_in_the_order_of_ids(detector: Detector, mixed: Path, tmp_path: Path) -> None:
    sources = list_inputs([str(mixed)])
    rows, summary = serve(detector, sources, tmp_path / "rows.jsonl")
    assert [row.id for row in rows] == sorted(REFUSED.keys() | CONVERTED.keys() | PLAIN)
    by_id = {row.id: row for row in rows}
    for name, reason in REFUSED.items():
        row = by_id[name]
        assert row == Row(name, row.sha256, "rejected", error=row.error)
        assert reason in row.error
    assert by_id["broken/dangling.png"].sha256 == by_id["broken/fifo.png"].sha256 == ""
    for name, note in {**CONVERTED, **dict.fromkeys(PLAIN, "")}.items():
        row = by_id[name]
        assert (row.status, row.note, row.error) == ("ok", note, "")
        assert row.score is not None
        assert row.p_value is not None
        assert row.threshold is not None
        assert row.confidence is not None
        assert row.score >= 0
        assert 0 < row.p_value <= 1
        assert 0 < row.confidence <= 1
        assert row.is_ood == (row.score > row.threshold)
        assert row.class_name == detector.bundle.manifest.class_names[row.predicted_class or 0]
        assert row.unet_evaluations == detector.evaluations
    scored = [row for row in rows if row.status == "ok"]
    assert summary.files == len(sources) == len(rows)
    assert (summary.scored, summary.rejected, summary.invalid) == (len(scored), len(REFUSED), 0)
    assert summary.flagged == sum(bool(row.is_ood) for row in rows)
    assert summary.unet_evaluations == len(scored) * detector.evaluations
    assert summary.reasons == dict.fromkeys(sorted(row.error for row in rows if row.error), 1)
    assert summary.images_per_second == pytest.approx(len(scored) / summary.seconds)


def test_rows_are_those_of_the_detector_alone(detector: Detector, mixed: Path, tmp_path: Path) -> None:
    rows, _ = serve(detector, list_inputs([str(mixed / "good")]), tmp_path / "rows.jsonl")
    direct = detector.score(load_set("fashion-test").images[:10])
    assert [row.score for row in rows] == direct.score.tolist()
    assert [row.predicted_class for row in rows] == direct.predicted.tolist()


def test_rows_are_the_same_bytes_on_every_run(detector: Detector, mixed: Path, tmp_path: Path) -> None:
    sources = list_inputs([str(mixed)])
    again = Detector.open(detector.bundle.path, batch=BATCH, threads=1)
    assert lines(detector, sources, tmp_path / "1.jsonl") == lines(again, sources, tmp_path / "2.jsonl")


def test_rows_are_the_same_bytes_in_any_order(detector: Detector, mixed: Path, tmp_path: Path) -> None:
    sources = list_inputs([str(mixed)])
    shuffled = random.Random(1).sample(sources, len(sources))
    first, second = (lines(detector, order, tmp_path / "rows.jsonl") for order in (sources, shuffled))
    assert second != first
    assert sorted(second) == sorted(first)


def test_rows_do_not_depend_on_the_files_beside_them(detector: Detector, mixed: Path, tmp_path: Path) -> None:
    sources = list_inputs([str(mixed)])
    everything = set(lines(detector, sources, tmp_path / "rows.jsonl"))
    for part in (sources[::3], sources[5:6], sources[-4:]):
        assert set(lines(detector, part, tmp_path / "rows.jsonl")) < everything


def test_scores_hardly_depend_on_the_batch(detector: Detector, mixed: Path, tmp_path: Path) -> None:
    sources = list_inputs([str(mixed)])
    other = Detector.open(detector.bundle.path, batch=3, threads=1)
    one, _ = serve(detector, sources, tmp_path / "8.jsonl")
    two, _ = serve(other, sources, tmp_path / "3.jsonl")
    assert [(row.id, row.status, row.predicted_class) for row in one] == [
        (row.id, row.status, row.predicted_class) for row in two
    ]
    assert [row.score for row in one if row.score is not None] == pytest.approx(
        [row.score for row in two if row.score is not None], abs=1e-5
    )


def test_refused_files_keep_their_places(
    detector: Detector, mixed: Path, tmp_path: Path, subtests: pytest.Subtests
) -> None:
    for pattern, scored in [
        ("xg", 1),
        ("gx", 1),
        ("xgx", 1),
        ("xxxxxxxxxxgg", 2),
        ("ggxxxxxxxxxxxxxxxxxxg", 3),
        ("x", 0),
        ("xxxxxxxxxxx", 0),
    ]:
        with subtests.test(pattern=pattern, scored=scored):
            paths = {"x": mixed / "broken" / "zero.png", "g": mixed / "good" / "0.png"}
            sources = [LocalFile(f"{index:02d}{kind}", paths[kind]) for index, kind in enumerate(pattern)]
            rows, summary = serve(detector, sources, tmp_path / "rows.jsonl")
            assert [row.id for row in rows] == [source.id for source in sources]
            assert [row.status for row in rows] == ["rejected" if kind == "x" else "ok" for kind in pattern]
            assert (summary.files, summary.scored, summary.rejected) == (len(pattern), scored, len(pattern) - scored)
            assert len(summary.reasons) == 1


def test_no_files_give_no_rows(detector: Detector, tmp_path: Path) -> None:
    rows, summary = serve(detector, [], tmp_path / "rows.jsonl")
    assert rows == []
    assert (summary.files, summary.scored, summary.images_per_second) == (0, 0, 0)


def test_rows_that_are_slow_to_write_keep_files_from_being_read(
    detector: Detector, mixed: Path, tmp_path: Path
) -> None:
    pulled = rows = 0

    def counted() -> Iterator[LocalFile]:
        nonlocal pulled
        for index in range(200):
            pulled += 1
            yield LocalFile(f"{index:03d}", mixed / "good" / "0.png")

    def on_row(row: Row) -> None:
        nonlocal rows
        rows += 1
        assert pulled <= rows + 2 * detector.turn + BATCH  # the turn under way, and the next

    with open_at(tmp_path / "rows.jsonl") as target:
        serve_batch(BatchJob(LocalScorer(detector, detector.calibration()), counted(), target, on_row=on_row))
    assert (pulled, rows) == (200, 200)


def test_rows_are_the_same_bytes_from_processes(detector: Detector, mixed: Path, tmp_path: Path) -> None:
    sources = list_inputs([str(mixed)])
    wanted = lines(detector, sources, tmp_path / "rows.jsonl")
    with open_at(tmp_path / "other.jsonl") as target:
        scorer = LocalScorer(detector, detector.calibration(), decoding=DecodeOptions(processes=2))
        serve_batch(BatchJob(scorer, sources, target))
    assert (tmp_path / "other.jsonl").read_bytes().splitlines() == wanted


class ForgetfulScorer(LocalScorer):
    """Gives no row for one of its items."""

    def rows(self, items: Iterable[Item | Pause]) -> Iterator[ScoredFile]:
        return (scored for number, scored in enumerate(super().rows(items)) if number != 3)


def test_a_run_with_an_item_that_has_no_row_is_not_finished(detector: Detector, mixed: Path, tmp_path: Path) -> None:
    sources, output = list_inputs([str(mixed)]), tmp_path / "rows.jsonl"
    with (
        open_at(output) as target,
        pytest.raises(DiffoodError, match=f"{len(sources)} files were read and {len(sources) - 1} rows written"),
    ):
        serve_batch(BatchJob(ForgetfulScorer(detector, detector.calibration()), sources, target))
    assert not output.exists()


def test_progress_counts_every_file_once(detector: Detector, mixed: Path) -> None:
    seen: list[int] = []
    sources = list_inputs([str(mixed)])
    assert len(list(score_files(detector, sources, progress=seen.append))) == sum(seen) == len(sources)


def test_a_value_that_is_not_finite_is_flagged_wherever_it_is(detector: Detector, mixed: Path) -> None:
    outcome = next(iter(score_files(detector, [LocalFile("a", mixed / "good" / "0.png")])))
    assert outcome.result is not None
    result = outcome.result
    broken_results = [dataclasses.replace(result, score=score) for score in (math.nan, math.inf, -math.inf)]
    unsound = dataclasses.replace(result.evidence, sound=np.array(False))
    broken_results.append(dataclasses.replace(result, evidence=unsound))
    for broken_result in broken_results:
        broken = dataclasses.replace(outcome, result=broken_result)
        row = make_rows([broken], DecisionRule.of(detector.calibration()), detector)[0]
        assert (row.status, row.is_ood, row.values()["score"]) == ("invalid", True, None)
        assert "not finite" in row.error


def test_a_watched_folder_is_resumed_by_ids_whatever_comes_first(
    detector: Detector, clothes_folder: Path, tmp_path: Path
) -> None:
    """Files come in another order the second time: each still has one row."""
    drop, output = tmp_path / "drop", tmp_path / "rows.jsonl"
    drop.mkdir()
    files = sorted(clothes_folder.iterdir())[:9]
    for file in files[4:]:  # the first ones are not there yet
        shutil.copy(file, drop)
    watch, stop = WatchedFolder(drop, idle_seconds=0, poll_seconds=0.01, settle_seconds=0), Stop()
    with open_at(output) as target:
        sources = open_inputs([], ReadOptions(watch=watch, stop=stop.event))

        def end(row: Row) -> None:
            stop.event.set()

        first = serve_batch(
            BatchJob(LocalScorer(detector, detector.calibration()), sources, target, live=True, stop=stop, on_row=end)
        )
    assert (first.state, 0 < first.files <= 5) == ("stopped", True)
    for file in files[:4]:
        shutil.copy(file, drop)
    with open_at(output, "resume") as target:
        tally = Tally()
        sources = open_inputs([], ReadOptions(watch=watch, done=existing_rows(target, tally)))
        last = serve_batch(
            BatchJob(LocalScorer(detector, detector.calibration()), sources, target, live=True, tally=tally)
        )
    assert (last.state, last.files, last.resumed) == ("finished", 9, first.files)
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert sorted(row["id"] for row in rows) == [file.name for file in files]
