"""What the negatives stage wrote and left out, counted from its files for every kind and way."""

from __future__ import annotations

from collections import Counter
from statistics import fmean

from parrot_lite.collect.validity import OBJECTIONS, words
from parrot_lite.errors import UserError
from parrot_lite.progress import say
from parrot_lite.store import RunFolder, read
from parrot_lite.types import Rejected, SessionTree

WORSE = {True: "worse", False: "not worse", None: "no verdict"}


def tally(folder: RunFolder) -> None:
    """Counts into the manifest and onto the screen, from the files, so that they are those of all attempts.

    For every kind and way wanted = kept + skipped; checked is what there was a text of. Raises UserError where no
    session has a tree.
    """
    counts = folder.counts
    counts["trees"] = 0
    lengths: dict[str, list[tuple[int, int]]] = {}
    checked = (folder.path / "verdicts.jsonl").exists()
    for tree in read(folder.path / "trees.jsonl", SessionTree):
        counts["trees"] += 1
        rules = {branch.turn: branch.rule for branch in tree.branches}
        counts["turns"] += len(rules)
        counts.update(f"rule: {rule}" for rule in rules.values())
        for branch in tree.branches:
            negative = branch.negative
            name = f"{negative.kind}, {negative.how}"
            counts.update((f"{name}: wanted", f"{name}: checked", f"{name}: kept"))
            if negative.shortened:
                counts[f"{name}: kept, shortened"] += 1
            if checked:
                counts[f"{name}: kept, {WORSE[negative.worse]}"] += 1
            if negative.kind == "misunderstanding":
                counts[f"{name}: {negative.done.partition(':')[0]}"] += 1
            lengths.setdefault(name, []).append((words(negative.text), words(tree.chosen(branch))))
    for skipped in read(folder.path / "skipped.jsonl", Rejected):
        name = ", ".join(skipped.id.rsplit("/", 2)[1:])
        counts[f"{name}: wanted"] += 1
        counts[f"{name}: checked"] += skipped.reason in OBJECTIONS
        counts[f"{name}: skipped, {skipped.reason}"] += 1
    reasons = Counter(record.reason for record in read(folder.path / "rejected.jsonl", Rejected))
    counts.update({f"rejected: {reason}": count for reason, count in reasons.items()})
    if not counts["trees"]:
        raise UserError(
            "no session has a negative: " + ", ".join(f"{count} x {reason}" for reason, count in reasons.items()),
            str(folder.path),
            "Look at the data and the writer, then run with --rerun",
        )
    folder.facts["mean_words"] = {}
    for name in sorted(key.removesuffix(": wanted") for key in counts if key.endswith(": wanted")):
        line = f"{counts[f'{name}: kept']} of {counts[f'{name}: wanted']} kept"
        if shorter := counts[f"{name}: kept, shortened"]:
            line += f", {shorter} of them shortened"
        if checked:
            line += "".join(f", {counts[f'{name}: kept, {found}']} {found}" for found in WORSE.values())
        if name in lengths:
            own, chosen = (round(fmean(side), 1) for side in zip(*lengths[name], strict=True))
            folder.facts["mean_words"][name] = {"negative": own, "chosen": chosen}
            line += f"; {own:g} words against the chosen answer's {chosen:g}"
        say(f"negatives: {name}: {line}")
