"""A SELECT as the words that count: two files that differ in comments, blanks or case alone say the same."""

from __future__ import annotations

import hashlib
import re
from difflib import SequenceMatcher
from pathlib import Path

TOKENS = re.compile(  # of a SELECT: comments and blanks, quoted text in its four forms, words, signs
    r"(--[^\n]*|/\*.*?\*/|\s+)"
    r"|(\b[eE]'(?:\\.|''|[^'\\])*'|'(?:''|[^'])*'|\"(?:\"\"|[^\"])*\"|\$(\w*)\$.*?\$\3\$)|\w+|[|<>=!:]+|.",
    re.DOTALL,
)
LONGEST = 80  # signs of an edit that are told
NEAR = 4  # words between two edits that are told as one


def edits(known: str, now: str) -> str:
    """The first places where two SELECTs differ, in the words of both, with a word before and behind."""
    old, new = ([found[0] for found in TOKENS.finditer(text) if not found[1]] for text in (known, now))
    places: list[list[int]] = []
    for tag, start, end, new_start, new_end in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if tag == "equal":
            continue
        if places and start - places[-1][1] <= NEAR:
            places[-1][1::2] = end, new_end
        else:
            places.append([start, end, new_start, new_end])
    told = [
        f"«{_cut(old[max(0, a - 1) : b + 1])}» became «{_cut(new[max(0, c - 1) : d + 1])}»" for a, b, c, d in places[:2]
    ]
    return ", ".join(told) + (f" and {len(places) - 2} more edits" if len(places) > 2 else "")


def _cut(words: list[str]) -> str:
    text = " ".join(words)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def words(path: Path) -> str:
    """A SELECT without comments, in lower case outside quotes, each word and sign apart by one blank."""
    found = [match for match in TOKENS.finditer(path.read_text()) if not match[1]]
    return " ".join(match[0] if match[2] else match[0].lower() for match in found).rstrip("; ")


def text_hash(text: str) -> str:
    """Sixteen hexadecimal digits that equal texts share."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]
