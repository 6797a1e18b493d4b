"""Rows of a data set on the Hugging Face hub, or of a folder that the library takes for one."""

from __future__ import annotations

from typing import Any

from parrot_lite.errors import UserError


def load_rows(name: str, split: str | None, config: str | None = None, revision: str | None = None) -> Any:
    """A split as the library's table of rows; None means ``test``, or the only split there is.

    Raises UserError where ``datasets`` is not installed, or the data set or the split is not there.
    """
    try:
        import datasets
    except ImportError:
        raise UserError("the package datasets is not installed", name, "Install the extra 'train'") from None
    try:
        named = {key: value for key, value in (("name", config), ("revision", revision)) if value is not None}
        loaded = datasets.load_dataset(name, split=split, **named)
    except Exception as error:  # whatever lies between here and the hub
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"cannot be loaded: {type(error).__name__}: {reason}", name, "Mend its path or split") from None
    if split is not None:
        return loaded
    if "test" not in loaded and len(loaded) > 1:
        raise UserError(f"has no split test, but {', '.join(loaded)}", name, "Save one as a JSONL file and name that")
    return loaded["test" if "test" in loaded else next(iter(loaded))]
