"""The verb feedback on real images: draws, labels of every kind, a withdrawn certificate, a new calibration."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from written import read

from diffood.zoo.images import unpack_set

MACHINE = ("--batch", "8", "--threads", "1")
LABELS = ("ind", "ood")

Run = Callable[..., Any]  # gives conftest.Done


@pytest.fixture
def served(tmp_path: Path, calibrated: Path, run: Run) -> Path:
    """A folder with a calibrated bundle, rows of 60 digits, and the files to label: all of them."""
    bundle = Path(shutil.copytree(calibrated, tmp_path / "bundle"))
    unpack_set("digits", tmp_path / "digits", 60)
    assert run("feedback", bundle, "--passed-share", 1).code == 0
    words = ("serve-batch", bundle, tmp_path / "digits", "--output", tmp_path / "rows.jsonl", *MACHINE)
    done = run(*words, "--export-labels", tmp_path / "tasks")
    assert done.code == 0, done
    assert "to label    60 files in" in done.err
    return tmp_path


def write_csv(path: Path, rows: list[tuple[str, str]], header: tuple[str, str] = ("id", "label")) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def answers_of_every_kind(folder: Path, answer: str) -> dict[str, Path]:
    """The same answer for all tasks, as each tool exports it."""
    tasks = json.loads((folder / "tasks" / "tasks.json").read_text())
    assert all((folder / "tasks" / task["data"]["name"]).is_file() for task in tasks)
    result = [{"type": "choices", "value": {"choices": [answer]}}]
    contents: dict[str, Any] = {
        "studio": [{**task, "annotations": [{"was_cancelled": False, "result": result}]} for task in tasks],
        "studio-min": [{**task["data"], "id": 7, "choice": answer} for task in tasks],
        "cvat": {
            "categories": {"label": {"labels": [{"name": name} for name in LABELS]}},
            "items": [
                {
                    "id": f"some/{Path(task['data']['name']).stem}",
                    "annotations": [{"type": "label", "label_id": LABELS.index(answer)}],
                }
                for task in tasks
            ],
        },
    }
    paths = {name: folder / f"{name}.json" for name in contents}
    for name, path in paths.items():
        path.write_text(json.dumps(contents[name]))
    paths["csv"] = write_csv(folder / "all.csv", [(task["data"]["row"], answer) for task in tasks])
    return paths


def test_false_alarms_withdraw_the_certificate_and_a_calibration_from_feedback_makes_a_new_one(
    run: Run, served: Path
) -> None:
    """Somebody says that digits are in-distribution: most of them are flagged, far above the 5 % promised."""
    bundle, rows = served / "bundle", served / "rows.jsonl"
    record = next((served / "bundle.feedback").iterdir())
    before, flagged = record.read_bytes(), sum(bool(row.is_ood) for row in read(rows))
    for path in answers_of_every_kind(served, "ind").values():
        record.write_bytes(before)
        done = run("feedback", bundle, rows, "--labels", path, "--json")
        assert (done.code, done.content["answered"], done.content["certificate"]) == (4, 60, "withdrawn"), path
        assert done.content["false_alarms"]["estimate"] == pytest.approx(flagged / 60)
        assert done.content["false_alarms"]["lower"] > 0.05
    done = run("feedback", bundle)
    assert done.code == 4
    assert "certificate withdrawn: the false-alarm rate exceeds 5.0%: answer" in done.out
    done = run("monitor", rows, "--bundle", bundle)
    assert (done.code, "certificate withdrawn by feedback: the false" in done.out) == (4, True)
    words = ("serve-batch", bundle, served / "digits", *MACHINE, "--output")
    done = run(*words, served / "later.jsonl")
    assert "certificate withdrawn by feedback" in done.out
    assert {row.certificate for row in read(served / "later.jsonl")} == {"withdrawn"}
    assert "holds" in {row.certificate for row in read(rows)}
    assert run("calibrate", bundle, "--from-feedback", "--images", served).code == 2
    assert "is calibrated already" in run("calibrate", bundle, "--from-feedback").err
    done = run("calibrate", bundle, "--from-feedback", "--overwrite")
    assert done.code == 0, done
    assert "labels      60 in-distribution rows, 60 of them a uniform sample" in done.out
    assert run(*words, served / "new.jsonl", "--json").content["certificate"] == "holds"
    assert sum(bool(row.is_ood) for row in read(served / "new.jsonl")) <= 3
    assert run("calibrate", bundle, "--from-feedback", "--overwrite").code == 1  # it has no labels of its own yet


def test_answers_that_agree_with_the_verdicts_leave_the_certificate(run: Run, served: Path) -> None:
    words = ("feedback", served / "bundle", served / "rows.jsonl")
    done = run(*words, "--labels", answers_of_every_kind(served, "ood")["csv"], "--tasks", served / "left.csv")
    assert done.code == 0
    assert "certificate holds" in done.out
    assert "no answers that tell how many of in-distribution images are flagged" in done.out
    assert (served / "left.csv").read_text() == "id,sha256,label\n"


def test_labels_that_cannot_be_used_are_refused_in_one_line_and_nothing_is_lost(run: Run, served: Path) -> None:
    bundle, rows = served / "bundle", served / "rows.jsonl"
    one, other = (row.id for row in read(rows)[:2])
    assert run("feedback", bundle, rows, "--labels", write_csv(served / "first.csv", [(one, "ood")])).code == 0
    record = next((served / "bundle.feedback").iterdir())
    before = record.read_bytes()
    bad = {
        "there is no row 'nowhere.png'": write_csv(served / "a.csv", [(other, "ood"), ("nowhere.png", "ood")]),
        "is 'ood' here and 'ind' in": write_csv(served / "b.csv", [(other, "ind"), (other, "ood")]),
        "is 'ind' here and 'ood' in an earlier file": write_csv(served / "c.csv", [(one, "ind")]),
        "lacks the column 'label'": write_csv(served / "d.csv", [(other, "ood")], ("id", "answer")),
        "the label is 'nan'; it must be": write_csv(served / "e.csv", [(other, "nan")]),
        "is neither an export of Label Studio": served / "f.json",
        "do not": served / "g.json",
        "cannot be read": served / "missing.csv",
    }
    (served / "f.json").write_text("{}")
    (served / "g.json").write_text('[{"data": {"image": "a"}}]')
    for message, path in bad.items():
        done = run("feedback", bundle, rows, "--labels", path)
        assert (done.code, len(done.err.splitlines())) == (2, 1), message
        assert message.replace("do not", "lack the text 'row'") in done.err
        assert record.read_bytes() == before
    words = ("serve-batch", bundle, served / "digits", "--output", served / "chosen.csv", *MACHINE, "--threshold", 0.5)
    assert "asks about the calibrated threshold" in run(*words, "--export-labels", served / "more").err
    assert run(*words).code == 0
    done = run("feedback", bundle, served / "chosen.csv")
    assert (done.code, "was served at the threshold 0.5, and feedback is about the calibrated" in done.err) == (2, True)
    for option, value in (("--passed-share", 0.5), ("--confidence", 0.9), ("--confidence", "nan"), ("--seed", 3)):
        assert run("feedback", bundle, rows, option, value).code == 2
    record.write_bytes(before.replace(b'"ood"', b'"ind"'))
    for words in (("feedback", bundle), ("monitor", rows, "--bundle", bundle)):
        done = run(*words)
        assert (done.code, "it was changed after it was written" in done.err) == (1, True)


def test_labels_of_rows_that_were_not_drawn_count_for_nothing(run: Run, calibrated: Path, tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(calibrated, tmp_path / "bundle"))
    unpack_set("fashion-test", tmp_path / "clothes", 20)
    rows = tmp_path / "rows.csv"
    assert run("serve-batch", bundle, tmp_path / "clothes", "--output", rows, *MACHINE).code == 0
    first = run("feedback", bundle, rows, "--tasks", tmp_path / "tasks.csv", "--json").content
    labels = write_csv(tmp_path / "all.csv", [(row.id, "ind") for row in read(rows)])
    done = run("feedback", bundle, rows, "--labels", labels, "--json").content
    assert done["answered"] == done["drawn"] == first["drawn"] < 10
    assert done["not_drawn"] == 20 - first["drawn"]
    assert done["new"] == 0
