"""Pictures are drawn whatever a user calls a set."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffood.report.charts.evaluation import draw_histograms


@pytest.mark.parametrize("name", ["a$\\frac{$", "$", "_hidden"])
def test_a_name_of_a_set_is_no_formula(tmp_path: Path, name: str) -> None:
    draw_histograms({"ind": np.arange(9.0), name: np.arange(9.0)}, 5.0, 0.05, tmp_path / "scores.png")
    Image.open(tmp_path / "scores.png").load()
