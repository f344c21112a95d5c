"""Texts from outside, as terminals, JSON and Markdown get them."""

import json
import os
import shutil
import subprocess

import pytest

from diffood.runtime.printable import escape_for_terminal, escape_json, escape_markdown, shell_word

HIDDEN = {
    "\x1b[31m": "\\x1b[31m",
    "\x9b": "\\x9b",
    "a\nb\tc\rd": "a\\nb\\tc\\rd",
    "\u202ea\u2067": "\\u202ea\\u2067",
    "\u200ea\u200f\u061c": "\\u200ea\\u200f\\u061c",
    "a\u200bb\u2060\ufeff\xad": "a\\u200bb\\u2060\\ufeff\\xad",
    "\u2028\u2029\udc9b": "\\u2028\\u2029\\udc9b",
    "\u115f\u3164\uffa0\u034f": "\\u115f\\u3164\\uffa0\\u034f",
    "\U000e0041\U000e0100": "\\U000e0041\\U000e0100",  # tags spell a text that nobody sees
    "a\u200d.png": "a\\u200d.png",
    "پ\u200c.png": "پ\\u200c.png",
    "a\ufe0f": "a\\ufe0f",
}
SHAPED = (
    "پیراهن\u200cها",
    "क्\u200dष",
    "👩\u200d🔬 🏳\ufe0f\u200d🌈",
    "葛\U000e0100",
    "\u0600",
    "\u3000é猫",
    "\\x1b",
    "",
)


def test_what_acts_or_is_hidden_is_an_escape_and_what_a_script_needs_stays() -> None:
    for text, shown in HIDDEN.items():
        assert escape_for_terminal(text) == shown
    for text in SHAPED:
        assert escape_for_terminal(text) == text


def test_json_means_the_same_and_keeps_its_layout() -> None:
    content = {"names": [*HIDDEN, *SHAPED, "\x7f"]}
    for indent in (None, 1):
        text = escape_json(json.dumps(content, ensure_ascii=False, indent=indent))
        assert json.loads(text) == content
        assert all(escape_for_terminal(line) == line for line in text.split("\n"))
        assert "猫" in text


def test_a_text_in_markdown_has_no_markup() -> None:
    assert escape_markdown("T-shirt/top, 猫 (2)") == "T-shirt/top, 猫 (2)"
    assert escape_markdown("|**b** `c`\n") == "\\|\\*\\*b\\*\\* \\`c\\`\\\\n"
    assert escape_markdown("[l](http://e) <img src=x> $a$ www.e") == (
        "\\[l\\](http\\://e) \\<img src\\=x\\> \\$a\\$ www\\.e"
    )


def test_a_word_of_a_suggested_command_is_plain_text() -> None:
    assert shell_word("models/bundle-1.2") == "models/bundle-1.2"
    assert shell_word("my bundle; rm -rf ~") == "'my bundle; rm -rf ~'"
    assert shell_word("a\nb'\\\x1b1") == "$'a\\nb\\'\\\\\\x1b1'".replace("\\n", "\\x0a")


@pytest.mark.skipif(not shutil.which("bash"), reason="needs bash")
def test_a_shell_gives_the_word_back() -> None:
    words = [
        *HIDDEN,
        *SHAPED[:-1],
        "\udc9b1\udcff",
        "$(touch x)",
        "`id`",
        "it's",
        "a b",
        "~",
        "!!",
        "*",
        "\x1b'\\x",
        "\u20282",
    ]
    command = "printf '%s\\0' " + " ".join(map(shell_word, words))
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, check=True, timeout=60, env=os.environ | {"LC_ALL": "C.UTF-8"}
    )
    assert list(map(os.fsdecode, done.stdout.split(b"\0")[:-1])) == words
