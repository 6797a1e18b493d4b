"""Prompt files of the negatives: our own words, hashed into what is written with them."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from parrot_lite.errors import UserError
from parrot_lite.store import existing_file, locate
from parrot_lite.types import How, Kind

Name = Literal[
    "negative-neglect",
    "negative-hallucination",
    "negative-misunderstanding",
    "guess-referent",
    "degraded-answer",
    "which-fits",
]
PLACEHOLDERS: dict[Name, set[str]] = {
    "negative-neglect": {"query"},
    "negative-hallucination": {"query"},
    "negative-misunderstanding": {"query"},
    "guess-referent": {"query"},
    "degraded-answer": {"query", "words"},
    "which-fits": {"history", "a", "b"},
}
PROMPTED: dict[Kind, Name] = {
    "neglect": "negative-neglect",
    "hallucination": "negative-hallucination",
    "misunderstanding": "negative-misunderstanding",
}
_PLACEHOLDER = re.compile(r"\{([a-z]+)\}")


@dataclass(frozen=True)
class Prompt:
    """A prompt file's text, and the SHA-256 of its bytes as hex digits."""

    path: Path
    text: str
    sha256: str

    def fill(self, **values: str) -> str:
        """The text with its ``{placeholders}`` replaced in one pass: braces in what is inserted stay as they are."""
        return _PLACEHOLDER.sub(lambda match: values[match[1]], self.text)


def prompt_of(kind: Kind, how: How) -> Name | None:
    """The prompt that takes part in a negative; None where the spoiled context alone does it."""
    if kind == "degraded":
        return "degraded-answer"
    if how == "prompted":
        return PROMPTED.get(kind)
    return "guess-referent" if kind == "hallucination" else None


def load(folder: str, name: Name) -> Prompt:
    """``NAME.txt`` of a folder, or of ``package:NAME/FOLDER``.

    Raises UserError where the file is missing, is not UTF-8, or its placeholders do not hold.
    """
    path = existing_file(locate(folder) / f"{name}.txt")
    raw = path.read_bytes()
    try:
        text = raw.decode("utf-8").strip()
    except UnicodeDecodeError as error:
        raise UserError(f"not UTF-8 text: {error.reason}", str(path), "Save it as UTF-8") from None
    wanted = PLACEHOLDERS[name]
    if set(_PLACEHOLDER.findall(text)) != wanted:
        listed = ", ".join(f"{{{one}}}" for one in sorted(wanted))
        raise UserError("the prompt's placeholders do not hold", str(path), f"It has to use {listed} and no other")
    return Prompt(path, text, hashlib.sha256(raw).hexdigest())
