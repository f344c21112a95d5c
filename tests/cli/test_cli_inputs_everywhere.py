"""Every verb that takes images takes a tar, a Parquet file and standard input, with the numbers of the plain files."""

import json
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from diffood.export.images import read_sample
from diffood.runtime.bundle.bundle import MANIFEST, open_bundle
from diffood.runtime.bundle.files import write_record
from diffood.runtime.images.decode import ImageShape
from diffood.runtime.inputs.reading import InputRules
from diffood.runtime.method.plan import DEFAULT
from diffood.zoo.images import load_set, unpack_set

MACHINE = ("--batch", 16, "--threads", 1)
CHEAP = DEFAULT.changed({"start_times": (240,), "stride": 240, "repeats": 1, "guidance": 0.0, "stages": ()})
Run = Callable[..., Any]  # gives conftest.Done


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clothes in folders of their classes and digits: as folders, as tars, as Parquet files."""
    root = tmp_path_factory.mktemp("packed")
    unpack_set("fashion-validation", root / "ind", 80)
    unpack_set("digits", root / "ood", 20)
    labels = load_set("fashion-validation").labels
    for number, file in enumerate(sorted((root / "ind").iterdir())):
        folder = root / "ind" / ("Coat" if labels[number] == 4 else "Bag")
        folder.mkdir(exist_ok=True)
        file.rename(folder / file.name)
    for name in ("ind", "ood"):
        files = sorted((root / name).rglob("*.png"))
        names = [file.relative_to(root / name).as_posix() for file in files]
        for ending, mode in (("tar", "w"), ("tgz", "w:gz")):
            with tarfile.open(root / f"{name}.{ending}", mode) as archive:  # type: ignore[call-overload]
                for file, member in zip(files, names, strict=True):
                    archive.add(file, member)
        with zipfile.ZipFile(root / f"{name}.zip", "w") as zipped:
            for file, member in zip(files, names, strict=True):
                zipped.write(file, member)
        images = [file.read_bytes() for file in files]
        pq.write_table(pa.table({"image": images}), root / f"{name}.parquet")
        if name == "ind":
            pq.write_table(pa.table({"photo": images, "name": names}), root / "named.parquet")
    (root / "shards").mkdir()
    shutil.copyfile(root / "ind.tgz", root / "shards" / "0")  # known by its contents
    return root


@pytest.fixture
def bundle(run: Run, small_bundle_copy: Path, packed: Path) -> Path:
    """A copy of the small bundle, calibrated on the folder."""
    done = run("calibrate", small_bundle_copy, "--images", packed / "ind", "--plan", "plain", *MACHINE)
    assert done.code == 0, done
    return small_bundle_copy


def test_calibrate_gives_the_threshold_of_the_files(run: Run, bundle: Path, packed: Path) -> None:
    expected = json.loads((bundle / "calibration.json").read_text())
    for name in ("ind.tar", "ind.tgz", "ind.zip", "shards", "ind.parquet", f"file://{packed}/ind.tar"):
        place = name if "://" in name else packed / name
        done = run("calibrate", bundle, "--images", place, "--plan", "plain", "--overwrite", "--json", *MACHINE)
        assert done.code == 0, done
        assert "set aside" not in done.err, name
        assert json.loads((bundle / "calibration.json").read_text()) == expected, name


def test_calibrate_reads_standard_input_once(
    run: Run, bundle: Path, packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fused plan goes through its images twice: to part them by their bytes, and to score them."""
    (tmp_path / "list.txt").write_text("".join(f"{file}\n" for file in (packed / "ind").rglob("*.png")))
    results = []
    for place in (packed / "ind", "-"):
        with (tmp_path / "list.txt").open() as lines:
            monkeypatch.setattr("sys.stdin", lines)
            done = run(
                "calibrate", bundle, "--images", place, "--plan", "default", "--fpr", 0.1, "--overwrite", *MACHINE
            )
        assert done.code == 0, done
        assert "set aside" not in done.err
        results.append(json.loads((bundle / "calibration.json").read_text()))
    assert results[0] == results[1]


def test_evaluate_and_report_measure_what_they_do_on_files(
    run: Run, bundle: Path, packed: Path, tmp_path: Path
) -> None:
    found = []
    for ending in ("", ".tar", ".parquet"):
        sets = ("--ind", f"{packed}/ind{ending}", "--ood", f"digits={packed}/ood{ending}")
        done = run("evaluate", bundle, *sets, "--json", *MACHINE)
        assert (done.code, done.err) == (0, ""), ending
        found.append(done.content)
        done = run("report", bundle, *sets, "--output", tmp_path / "report.html", *MACHINE)
        assert (done.code, done.err) == (0, ""), ending
        assert "scored      80 of ind, 20 of digits" in done.out
    sets = ("--ind", f"{packed}/named.parquet", "--ood", f"digits={packed}/ood.tar")
    columns = ("--image-column", "photo", "--id-column", "name")
    assert run("evaluate", bundle, *sets, *columns, "--json", *MACHINE).content == found[0]
    run("evaluate", bundle, *sets, *MACHINE).assert_wrong_usage("has no column 'image', only photo, name")
    assert found[0]["labelled"] == 80
    assert found[1] == found[0]  # members of a tar lie in folders of their classes too
    for name in ("false_alarms", "auroc", "sets", "threshold"):
        assert found[2][name] == found[0][name], name


def test_verify_compares_verdicts_on_a_tar_and_a_table(run: Run, bundle: Path, packed: Path) -> None:
    done = run("verify", bundle, "--images", packed / "ind.tar", "--ood", f"digits={packed}/ood.parquet", *MACHINE)
    assert (done.code, done.err) == (0, ""), done


def test_tune_chooses_on_a_tar_and_a_table(
    run: Run, bundle: Path, packed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("diffood.calibration.tune.list_plans", lambda _: [CHEAP])
    manifest = open_bundle(bundle).manifest.model_copy(
        update={"plans": {"plain": CHEAP.plain}, "default_plan": "plain"}
    )
    write_record(bundle, MANIFEST, manifest)
    looked_at = []
    for ending in ("", ".tgz", ".parquet"):
        sets = ("--ind", f"{packed}/ind{ending}", "--ood", f"digits={packed}/ood{ending}")
        done = run("tune", bundle, *sets, "--budget", 4, "--images", 60, "--json", *MACHINE)
        assert (done.code, done.err) == (0, ""), ending
        looked_at.append(json.loads((bundle / "tuning.json").read_text())["images"])
    assert looked_at == [looked_at[0]] * 3


def test_export_and_bench_read_the_pixels_of_the_files(packed: Path) -> None:
    shape, lines = ImageShape(1, 28, 28), list[str]()
    tar, files = (read_sample([f"{packed}/ind{ending}"], shape, 100, lines.append) for ending in (".tar", ""))
    np.testing.assert_array_equal(tar, files)
    assert read_sample([f"{packed}/ind.parquet"], shape, 10, lines.append).shape == (10, 1, 28, 28)
    assert lines == []
    columns = InputRules("photo", "name")
    named = read_sample([f"{packed}/named.parquet"], shape, 100, lines.append, columns)
    np.testing.assert_array_equal(named, files)
    assert lines == []


def test_what_cannot_be_read_is_set_aside_or_wrong_usage(run: Run, bundle: Path, packed: Path, tmp_path: Path) -> None:
    whole = (packed / "ind.tar").read_bytes()
    (tmp_path / "cut.tar").write_bytes(whole[: len(whole) - 20 * 512])
    done = run("calibrate", bundle, "--images", tmp_path / "cut.tar", "--plan", "plain", "--overwrite", *MACHINE)
    assert done.code == 3
    assert "set aside" in done.err
    assert "cannot be read" in done.err
    (tmp_path / "torn.parquet").write_bytes((packed / "ind.parquet").read_bytes()[:-9])
    done = run("calibrate", bundle, "--images", tmp_path / "torn.parquet", *MACHINE)
    done.assert_wrong_usage("can be used", "cannot be read as Parquet")
