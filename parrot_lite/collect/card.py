"""The card of an exported data set: what is in it, where it comes from, what was left out, and whose licences count."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from parrot_lite import __version__
from parrot_lite.errors import UserError
from parrot_lite.recipe import SECTION
from parrot_lite.store import fingerprint, locate

TEMPLATE = "package:parrot_lite/data/dataset-card.txt"
# By a word in a source's name, id or file, the first that fits.
LICENCES = {
    "sharegpt": "ShareGPT states none. People shared these conversations; names and private matter may remain in them",
    "ultrachat": "UltraChat: MIT by its card on the hub, CC BY-NC 4.0 by its first release; OpenAI's models wrote it",
    "bundled": "written for parrot_lite: MIT, as the package",
}
UNKNOWN = "not known here: see where it came from"
WRITTEN = "text written by a model: its licence, and the terms of whoever served it"


@dataclass(frozen=True)
class Step:
    """A finished stage that exported data went through, as its folder tells it."""

    folder: Path
    manifest: Mapping[str, Any]
    recipe: str  # the resolved part, TOML

    @property
    def stage(self) -> str:
        """The stage's name."""
        return str(self.manifest["stage"])

    @property
    def settings(self) -> dict[str, Any]:
        """The stage's section of the recipe."""
        section: dict[str, Any] = tomllib.loads(self.recipe)[SECTION[self.manifest["stage"]]]
        return section

    @property
    def speakers(self) -> dict[str, str]:
        """Who wrote the stage's text, by role."""
        speakers = {}
        for role, spec in self.settings.items():
            if isinstance(spec, dict) and "kind" in spec:
                parts = [spec["kind"], spec.get("model") or spec.get("path") or spec.get("adapter")]
                speakers[role] = ", ".join(str(part) for part in parts if part)
        return speakers

    @property
    def counts(self) -> dict[str, int]:
        """The stage's counts; those of its seeds by source."""
        counts = dict(self.manifest.get("counts", {}))
        for label, of_source in self.manifest.get("seeds", {}).items():
            counts |= {f"seeds of {label}: {name}": count for name, count in of_source.items()}
        return counts

    @property
    def benchmarks(self) -> dict[str, int]:
        """The benchmarks that its seeds were compared with, and how many queries each has."""
        return {name: counts["queries"] for name, counts in self.manifest.get("benchmarks", {}).items()}

    @property
    def read_stages(self) -> list[str]:
        """The stages of the same recipe whose results it used."""
        settings = self.settings
        names = [*settings.get("data", []), *(seeds["source"] for seeds in settings.get("seeds", []))]
        names += [spec.get("adapter") for spec in settings.values() if isinstance(spec, dict)]
        return [name for name in SECTION if name in names]


def chain(files: Iterable[Path]) -> list[Step]:
    """The stages behind these files, last first, as far as their folders lie where the stages left them.

    Raises UserError where a file lies in the folder of a stage that is not finished.
    """
    steps: dict[Path, Step] = {}
    folders = [file.resolve().parent for file in files]
    for folder in folders:
        if (folder / "recipe.toml").exists() and not (folder / "manifest.json").exists():
            raise UserError("its stage is not finished", str(folder), "Run the stage again first")
    while folders:
        folder = folders.pop(0)
        manifest, recipe = folder / "manifest.json", folder / "recipe.toml"
        if folder in steps or not (manifest.exists() and recipe.exists()):
            continue
        steps[folder] = Step(folder, json.loads(manifest.read_text("utf-8")), recipe.read_text("utf-8").strip())
        folders += [folder.parent / name for name in steps[folder].read_stages]
    return list(steps.values())


def licences(sources: Iterable[str], steps: Sequence[Step]) -> dict[str, str]:
    """What is known of the licence of each part: of the sources' texts, and of what models wrote."""
    origins: dict[str, str] = {}  # where a source came from, in the words of the recipe
    for step in reversed(steps):  # logs before what used them as seeds
        settings = step.settings
        if step.stage == "logs":
            origins["logs"] = f"{settings['source']} {settings.get('path', '')} {step.manifest.get('source', '')}"
        for seeds in settings.get("seeds", []):
            label = seeds.get("name") or seeds["source"]
            origin = origins.get("logs", "") if seeds["source"] == "logs" else f"{seeds['source']} {seeds.get('path')}"
            origins[f"collect:{label}"] = f"{label} {origin}"
    parts = {}
    for source in sources:
        text = f"{source} {origins.get(source, '')}".lower()
        part = "what sessions of `{}` start from" if source.startswith("collect:") else "`{}`"
        parts[part.format(source)] = next((known for word, known in LICENCES.items() if word in text), UNKNOWN)
    if any(step.stage == "train-ask" for step in steps) and "logs" in origins:
        text = origins["logs"].lower()
        known = next((known for word, known in LICENCES.items() if word in text), UNKNOWN)
        parts["what the asker was trained on"] = known
    return parts | {f"{role}: {name}": WRITTEN for step in steps for role, name in step.speakers.items()}


def render(
    out: Path,
    form: str,
    use: str,
    features: Mapping[str, Any],
    tally: Mapping[str, int],
    sources: Iterable[str],
    files: Sequence[Path],
    command: str,
) -> str:
    """The card as Markdown with the front matter of the hub."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined, autoescape=False)
    steps = chain(files)
    known = {step.folder for step in steps}
    recipes = dict.fromkeys(str(step.manifest["recipe"]) for step in steps)
    text = environment.from_string(locate(TEMPLATE).read_text(encoding="utf-8")).render(
        title=f"{', '.join(recipes) or out.stem}: {form}",
        size=_size(tally["rows"]),
        out=out.name,
        features="\n".join(_features(features, 2)),
        mark=mark(out),
        command=command,
        contents=f"{tally['rows']:,} rows",
        version=__version__,
        form=form,
        use=use,
        tally=tally,
        files=[
            {"name": file.name, "digest": fingerprint(file), "known": file.resolve().parent in known} for file in files
        ],
        steps=steps,
        licences=licences(sources, steps),
    )
    return text.rstrip() + "\n"


def mark(out: Path) -> str:
    """The line by which a card is known as one of ours, for this file."""
    return f"<!-- written by parrot export-data for {out.name} -->"


def _size(rows: int) -> str:
    """The hub's size class."""
    bounds = [(1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M")]
    return next((name for bound, name in bounds if rows < bound), "1M<n<10M")


def _features(features: Mapping[str, Any], indent: int) -> Iterable[str]:
    """The columns as the hub's YAML: a name is of a type, or holds a list of records."""
    pad = " " * indent
    for name, kind in features.items():
        yield f"{pad}- name: {name}"
        if isinstance(kind, str):
            yield f"{pad}  dtype: {kind}"
        else:
            yield f"{pad}  list:"
            yield from _features(kind, indent + 2)
