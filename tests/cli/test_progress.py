"""What is said of a run while it goes on, where there is no terminal."""

import pytest

from diffood.cli import progress


def test_words_of_progress() -> None:
    for done, total, rate, state, words in (
        (0, None, 0.0, "", "0, 0.0/s"),
        (40, None, 2.0, "", "40, 2.0/s"),
        (40, 100, 2.0, "1.0% flagged", "40 of 100, 2.0/s, 1.0% flagged, 0:00:30 left"),
        (40, 1_000_000, 10.0, "", "40 of 1000000, 10.0/s, 1 day, 3:46:36 left"),
        (40, 100, 0.0, "", "40 of 100, 0.0/s"),
        (40, 100, 0.05, "", "40 of 100, 3.0/min, 0:20:00 left"),
        (101, 100, 2.0, "", "101 of 100, 2.0/s, 0:00:00 left"),
    ):
        assert progress.describe(done, total, rate, state) == words


def test_a_total_that_becomes_known_is_shown_from_then_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    known: list[int] = []
    with progress.show_progress("scoring", lambda: known[0] if known else None, done=5) as advance:
        advance(1)
        known.append(20)
        advance(2)
    before, after = capsys.readouterr().err.splitlines()
    assert before.startswith("scoring: 6, ")
    assert " left" not in before
    assert after.startswith("scoring: 8 of 20, ")
    assert after.endswith(" left")


def test_a_bar_on_a_terminal_has_a_speed_below_one_a_second(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich then takes any file for a terminal
    clock = iter([0.0, *[20.0] * 1000])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    with progress.show_progress("calibrating", 10) as advance:
        advance(1)
    assert "3.0/min" in capsys.readouterr().err


def test_a_name_in_a_bar_is_text(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    with progress.show_progress("[red]a[/red]{task.x}\x1b]0;b\x07\u202e", 10, state=lambda: "[b]c[/b]\x9b") as advance:
        advance(1)
    shown = capsys.readouterr().err
    assert "[red]a[/red]{task.x}\\x1b]0;b\\x07\\u202e" in shown
    assert "[b]c[/b]\\x9b" in shown
    assert not set(shown) & set("\x07\x9b\u202e")
