"""Runs the command line in this process, as a user's shell would."""

import contextlib
import io
import json
import sys
from dataclasses import dataclass
from typing import Any

import pytest

from diffood import cli


@dataclass(frozen=True)
class Done:
    """What one run of the command line left: exit code and both streams."""

    code: int
    out: str
    err: str

    @property
    def content(self) -> Any:
        """Standard output as JSON; nothing else may be on it."""
        return json.loads(self.out)

    def assert_one_line(self, code: int, *words: str) -> None:
        """A failure diffood explains: this exit code, one line on standard error that holds these words."""
        assert self.code == code, self
        assert "Traceback" not in self.err
        assert self.out == ""
        assert self.err.startswith("error: ")
        assert self.err.count("\n") == 1
        for word in words:
            assert word in self.err

    def assert_wrong_usage(self, *words: str) -> None:
        """Exit code 2 and one line that explains, ours or the parser's."""
        self.assert_one_line(2, *words)


def run_here(*words: object) -> Done:
    """The command line's own entry point, in this process; it must end by exiting, never by another exception."""
    out, err = io.StringIO(), io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        pytest.raises(SystemExit) as end,
    ):
        patch.setattr(sys, "argv", ["diffood", *map(str, words)])
        cli.main()
    return Done(int(end.value.code or 0), out.getvalue(), err.getvalue())
