"""Calibrations made before a field existed keep their hash, which records of parity and of feedback name."""

import json

from made_up import calibration_of

from diffood.calibration.promises.detection import bound_detection
from diffood.runtime.bundle.calibration import Calibration
from diffood.runtime.bundle.files import hash_content


def test_a_calibration_without_examples_says_nothing_of_detection() -> None:
    plain = calibration_of([1.0, 2.0, 3.0], 2.0)
    fields = json.loads(plain.model_dump_json())
    assert "detection" not in fields
    assert "detection" not in plain.summary()
    assert plain.sha256 == hash_content(fields)
    assert Calibration.model_validate(fields | {"detection": None}).sha256 == plain.sha256
    found = plain.model_copy(update={"detection": bound_detection(9, 10, 0.95)})
    assert json.loads(found.model_dump_json())["detection"]["flagged"] == 9
    assert found.sha256 != plain.sha256
