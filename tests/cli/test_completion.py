"""The shell completes verbs, options and their values."""

import os
import subprocess
import sys


def test_the_shell_is_given_what_may_follow() -> None:
    for words, expected in [
        ("diffood serve-b", ["serve-batch"]),
        ("diffood serve-batch --prec", ["--precision"]),
        ("diffood serve-batch --precision ", ["auto", "fp32", "fp16", "int8"]),
        ("diffood calibrate --method c", ["conformal"]),
        ("diffood verify --backend tensor", ["tensorrt", "tensorrt-rtx"]),
    ]:
        asked = {"COMP_WORDS": words, "COMP_CWORD": str(words.count(" ")), "_DIFFOOD_COMPLETE": "complete_bash"}
        done = subprocess.run(
            [sys.executable, "-m", "diffood"], env=os.environ | asked, capture_output=True, text=True, check=True
        )
        assert done.stdout.split() == expected, words
