"""Attack: texts in a bundle's files, or names of its files, that act on the terminal or turn the line around."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from attacks import undone
from made_up import calibration_of, fingerprint_of
from planted_engine import plant_engine
from sealed import sealed

from diffood import cli
from diffood.errors import BundleError, UsageError
from diffood.runtime.bundle.bundle import Manifest, open_bundle
from diffood.runtime.bundle.calibration import load_calibration, save_calibration
from diffood.runtime.bundle.engines import list_engines
from diffood.runtime.bundle.writing import write_bundle
from diffood.runtime.printable import escape_for_terminal

Fields = dict[str, Any]
Rewrite = Callable[[Callable[[Fields], object]], None]

CLEAR = "\x1b[2J\x1b]0;owned\x07"
ACTING = {
    "escape sequence": CLEAR,
    "one-byte escape": "\x9b31m",
    "newline": "Coat\nguarantee     all is well",
    "carriage return": "Coat\rowned",
    "backspace": "Coat\b\b\b\b",
    "null": "Coat\0",
    "delete": "Coat\x7f",
    "line separator": "Coat\u2028owned",
    "right-to-left override": "\u202etaoC",
    "isolate": "\u2067Coat",
}
LEGITIMATE = [
    "T-shirt/top",
    "Crêpe de Chine",
    "猫",
    "全角\u3000空白",  # an ideographic space
    "10\u00a0000 €",  # a space that does not break
    "پیراهن\u200cها",  # Persian: plural, with a joiner that does not join
    "क्\u200dष",  # Hindi
    "👩\u200d🔬 🏳\ufe0f\u200d🌈",
    "e\u0301",
    "<b>&'\"\\",
]
PLACES: dict[str, Callable[[Fields, str], object]] = {
    "class_names.3": lambda manifest, text: manifest["class_names"].__setitem__(3, text),
    "classifier.origin": lambda manifest, text: manifest["classifier"].update(origin=text),
    "unet.origin": lambda manifest, text: manifest["unet"].update(origin=text),
    "unet.schedule_origin": lambda manifest, text: manifest["unet"].update(schedule_origin=text),
    "plans": lambda manifest, text: manifest["plans"].update({text: manifest["plans"]["plain"]}),
    "default_plan": lambda manifest, text: manifest.update(default_plan=text),
    "versions.torch": lambda manifest, text: manifest["versions"].update(torch=text),
    "versions": lambda manifest, text: manifest["versions"].update({text: "1"}),
    "graphs.0.weights": lambda manifest, text: manifest["graphs"][0]["weights"].update({text: 1}),
}


def refusal(call: Callable[[], object]) -> str:
    """The one line with which something is refused."""
    with pytest.raises(BundleError) as caught:
        call()
    assert str(caught.value).isprintable()
    return str(caught.value)


def test_a_class_name_that_acts_is_refused_and_named(victim: Path, rewrite: Rewrite, subtests: pytest.Subtests) -> None:
    for case, text in ACTING.items():
        with subtests.test(case=case), undone(victim):
            rewrite(lambda manifest: PLACES["class_names.3"](manifest, text))
            found = refusal(lambda: open_bundle(victim))
            assert "manifest.json is invalid: class_names.3: " in found
            assert "control characters" in found


def test_no_text_of_a_manifest_reaches_a_terminal_as_it_is(
    victim: Path, rewrite: Rewrite, subtests: pytest.Subtests
) -> None:
    for place, put in PLACES.items():
        with subtests.test(place=place), undone(victim):
            rewrite(lambda manifest: put(manifest, CLEAR))
            assert f"manifest.json is invalid: {place}" in refusal(lambda: open_bundle(victim))


def test_names_of_all_languages_are_opened_as_written(
    victim: Path, rewrite: Rewrite, subtests: pytest.Subtests
) -> None:
    for name in LEGITIMATE:
        with subtests.test(name=name), undone(victim):
            rewrite(lambda manifest: PLACES["class_names.3"](manifest, name))
            assert open_bundle(victim).manifest.class_names[3] == name
            assert escape_for_terminal(name) == name


def test_a_direction_mark_between_scripts_is_opened_and_shown(victim: Path, rewrite: Rewrite) -> None:
    name = "חולצה \u200eT-shirt"  # right, but in a file name it moves what stands around it
    rewrite(lambda manifest: PLACES["class_names.3"](manifest, name))
    assert open_bundle(victim).manifest.class_names[3] == name
    assert escape_for_terminal(name) == "חולצה \\u200eT-shirt"


def test_what_acts_is_shown_as_escapes() -> None:
    assert escape_for_terminal("a\x1b[31m\u202e\nü猫 \u2028b") == "a\\x1b[31m\\u202e\\nü猫 \\u2028b"


def test_a_bundle_with_such_a_name_cannot_be_made(victim: Path) -> None:
    fields = json.loads((victim / "manifest.json").read_text()) | {"class_names": ["a", CLEAR]}
    with pytest.raises(UsageError, match=r"class_names\.1: .*control characters"):
        write_bundle(victim, lambda files: Manifest.model_validate_json(json.dumps(fields)))


def test_no_text_of_a_calibration_reaches_a_terminal_as_it_is(victim: Path, subtests: pytest.Subtests) -> None:
    for change, place in [
        (lambda fields: fields.update(guarantee=CLEAR), "guarantee"),
        (lambda fields: fields["fingerprint"].update(noise_rule=CLEAR), "fingerprint.noise_rule"),
        (lambda fields: fields["fingerprint"].update(classify_sha256=CLEAR), "fingerprint.classify_sha256"),
        (lambda fields: fields["fingerprint"].update(engine_sha256=CLEAR), "fingerprint.engine_sha256"),
    ]:
        with subtests.test(change=change, place=place), undone(victim):
            bundle = open_bundle(victim)
            path = save_calibration(
                bundle, calibration_of([0.1, 0.2], 0.1, fingerprint=fingerprint_of(bundle.plan("plain")))
            )
            content = json.loads(path.read_text())
            change(content)
            path.write_bytes(sealed(content))
            assert f"calibration.json is invalid: {place}" in refusal(lambda: load_calibration(open_bundle(victim)))


def test_an_engine_folder_with_such_a_name_is_refused(victim: Path) -> None:
    folder = plant_engine(victim)
    assert len(list_engines(open_bundle(victim))) == 1
    folder.rename(folder.parent / f"tensorrt{CLEAR.replace('/', '')}")
    assert "whose name contains control or hidden characters" in refusal(lambda: list_engines(open_bundle(victim)))


def test_no_text_of_an_engine_record_reaches_a_terminal_as_it_is(victim: Path, subtests: pytest.Subtests) -> None:
    for field in ["library_version", "gpu", "driver"]:
        with subtests.test(field=field), undone(victim):
            path = plant_engine(victim) / "engine.json"
            path.write_bytes(sealed(json.loads(path.read_text()) | {field: CLEAR}))
            assert f"engine.json is invalid: {field}" in refusal(lambda: list_engines(open_bundle(victim)))


def test_the_command_line_prints_no_escape(
    victim: Path,
    rewrite: Rewrite,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    subtests: pytest.Subtests,
) -> None:
    for where in ["class name", "kept calibration", "bundle's own name"]:
        with subtests.test(where=where), undone(victim):
            path = victim
            if where == "class name":
                rewrite(lambda manifest: PLACES["class_names.3"](manifest, CLEAR))
            elif where == "kept calibration":
                (path / "calibrations").mkdir()
                (path / "calibrations" / f"{CLEAR}.json").write_text("{}")
            else:
                path = Path(shutil.move(path, path.with_name(f"b{CLEAR}")))
                (path / "manifest.json").write_text("[")
            monkeypatch.setattr(sys, "argv", ["diffood", "inspect", str(path)])
            with pytest.raises(SystemExit) as end:
                cli.main()
            captured = capfd.readouterr()
            assert end.value.code == 1
            assert captured.out == ""
            assert captured.err.startswith("error: ")
            assert captured.err.removesuffix("\n").isprintable()
