"""serve-batch --fdr: which images a batch and a stream select, on real images."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import false_discovery_control
from written import read

from diffood.zoo.images import unpack_set

MACHINE = ("--batch", "8", "--threads", "1")

Run = Callable[..., Any]  # gives conftest.Done


def test_a_batch_and_a_stream_select_at_a_false_discovery_rate(run: Run, calibrated: Path, tmp_path: Path) -> None:
    unpack_set("fashion-test", tmp_path / "images" / "clothes", 12)
    unpack_set("digits", tmp_path / "images" / "digits", 12)
    (tmp_path / "images" / "broken.png").write_bytes(b"no image")
    images, selections = tmp_path / "images", {}
    for name in ("rows.jsonl", "rows.csv", "rows"):
        words = ("serve-batch", calibrated, images, "--output", tmp_path / name, *MACHINE, "--fdr", 0.3)
        done = run(*words, "--json")
        rows = read(tmp_path / name)
        p_values = [row.p_value for row in rows if row.p_value is not None]
        expected = false_discovery_control(np.array(p_values)) <= 0.3 + 1e-9
        selected = [row.selected for row in rows if row.p_value is not None]
        assert selected == expected.tolist(), name
        assert done.content["selected"] == sum(selected) > 0
        assert rows[0].status == "rejected"
        assert rows[0].selected is None
        selections[name] = rows
        again = run(*words, "--resume", "--json")
        assert (again.code, again.content["selected"]) == (3, sum(selected))
        assert read(tmp_path / name) == rows
    assert selections["rows.jsonl"] == selections["rows.csv"] == selections["rows"]
    assert {row.certificate for row in rows if row.status == "ok"} == {"holds"}
    watched = ("serve-batch", calibrated, "--watch", images, "--watch-idle", 0, "--output", tmp_path / "live.jsonl")
    done = run(*watched, *MACHINE, "--fdr", 0.3, "--json")
    assert done.content["selected"] == sum(bool(row.selected) for row in read(tmp_path / "live.jsonl"))
    assert "below the smallest p-value of 64 calibration images" in done.err


def test_a_rate_that_cannot_be_kept_is_refused_and_runs_with_and_without_it_are_not_mixed(
    run: Run, calibrated: Path, tmp_path: Path
) -> None:
    unpack_set("fashion-test", tmp_path / "images", 2)
    words = ("serve-batch", calibrated, tmp_path / "images", "--output", tmp_path / "rows.jsonl", *MACHINE)
    for value in ("0", "1", "nan", "-0.1"):
        done = run(*words, "--fdr", value)
        assert done.code == 2
        assert f"--fdr is {float(value)}; it must be a share" in done.err
    assert run(*words).code == 0
    assert "fdr: None there, 0.1 here" in run(*words, "--fdr", 0.1, "--resume").err
    (tmp_path / "rows.jsonl.partial").mkdir()
    done = run(*words, "--resume")
    assert (done.code, "with --fdr that did not finish" in done.err) == (2, True)
    assert run(*words, "--overwrite").code == 0
