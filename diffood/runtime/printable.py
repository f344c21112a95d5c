"""Which characters of a text from outside are printed as they are, and which as escapes."""

import json
import re
import shlex
import unicodedata

# Control characters, surrogates, and line separators.
_CONTROL = frozenset(("Cc", "Cs", "Zl", "Zp"))
_BIDI = frozenset(("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"))  # reorder what is shown
# Unicode's default ignorable characters that are no format characters: fillers and a joiner nobody sees.
_BLANK = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0")
_JOINERS = frozenset("\u200c\u200d")
_VIRAMA = 9  # the combining class of the sign after which Indic scripts need a joiner
_PUNCTUATION = re.compile(r"""[!"#$%&*+.:;<=>?@\[\\\]^_`{|}~]""")  # of Markdown, and of the links it finds by itself


def is_control_character(letter: str) -> bool:
    """Whether printing a character acts on a terminal or changes the order in which a line is read."""
    return unicodedata.category(letter) in _CONTROL or unicodedata.bidirectional(letter) in _BIDI


def is_hidden(letter: str) -> bool:
    """Whether a character acts, as `is_control_character` says, or takes no place of its own where it is shown."""
    if is_control_character(letter) or letter in _BLANK or _is_selector(letter):
        return True
    # Marks of direction, zero-width spaces, byte order marks, tags; the format characters of numbers (AN) are seen.
    return unicodedata.category(letter) == "Cf" and unicodedata.bidirectional(letter) != "AN"


def escape_for_terminal(text: str) -> str:
    """A text of unknown origin in one printable line: what acts, and what is hidden, becomes an escape.

    Joiners and variation selectors stay where a script or an emoji needs them.
    """
    if text.isascii() and text.isprintable():
        return text
    around = f" {text} "
    return "".join(
        letter.encode("unicode_escape").decode()
        if is_hidden(letter) and not _is_needed(around[place], letter, around[place + 2])
        else letter
        for place, letter in enumerate(text)
    )


def escape_json(text: str) -> str:
    """JSON that means the same, with escapes for what acts or is hidden; line breaks are its layout and stay."""
    if text.isascii() and "\x7f" not in text:
        return text
    return "".join(json.dumps(letter)[1:-1] if is_hidden(letter) and letter != "\n" else letter for letter in text)


def escape_markdown(text: str) -> str:
    """A text of unknown origin within Markdown, also in a cell of a table: no markup, no link, no HTML, no formula."""
    return _PUNCTUATION.sub(r"\\\g<0>", escape_for_terminal(text))


def shell_word(word: object) -> str:
    """A word of a command that people copy: the shell takes it for one word, and gives no part of it a meaning."""
    text = str(word)
    if escape_for_terminal(text) == text:
        return shlex.quote(text)
    return f"$'{''.join(map(_escape_for_shell, text))}'"  # of bash, zsh and, since 2024, POSIX


def _escape_for_shell(letter: str) -> str:
    code = ord(letter)
    if 0xDC80 <= code <= 0xDCFF:  # how Python writes a byte of a name that is not UTF-8
        return f"\\x{code - 0xDC00:02x}"
    if is_hidden(letter):
        return f"\\x{code:02x}" if letter.isascii() else f"\\u{code:04x}" if code < 2**16 else f"\\U{code:08x}"
    return f"\\{letter}" if letter in "\\'" else letter


def _is_selector(letter: str) -> bool:
    return "\ufe00" <= letter <= "\ufe0f" or "\U000e0100" <= letter <= "\U000e01ef" or "\u180b" <= letter <= "\u180f"


def _is_needed(before: str, letter: str, after: str) -> bool:
    """Whether a character that is hidden shapes the ones around it, as in Persian, Hindi and emoji."""
    if _is_selector(letter):
        return not before.isascii() and not is_hidden(before)
    shapes = unicodedata.bidirectional(before) == "AL" or unicodedata.combining(before) == _VIRAMA
    shapes = shapes or unicodedata.category(before) in ("So", "Sk") or before == "\ufe0f"
    return letter in _JOINERS and shapes and unicodedata.category(after)[0] in "LMS"
