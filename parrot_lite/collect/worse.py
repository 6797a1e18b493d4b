"""Whether the negatives really are worse than their chosen answers, given the true history: ``check_worse``.

It runs when all negatives are written, so that their author and who checks need not be in memory together.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager

from parrot_lite.chat import all_at_once, open_chat
from parrot_lite.chat.calls import Speaker
from parrot_lite.chat.meter import Meter
from parrot_lite.collect.authors import Failed
from parrot_lite.collect.calls import Failures
from parrot_lite.collect.prompts import Prompt
from parrot_lite.collect.scorer import by_likelihood
from parrot_lite.collect.validity import NOT_WORSE
from parrot_lite.collect.verdicts import Verdict, branch_id, by_judge
from parrot_lite.progress import progress
from parrot_lite.recipe import Decoding, Recipe
from parrot_lite.store import RunFolder, read
from parrot_lite.types import KINDS, Rejected, SessionTree, derive_seed

DECODING = Decoding(temperature=0.0, top_p=1.0, max_tokens=256)  # of the judge
Check = Callable[[Sequence[SessionTree]], Iterator[list[Verdict | Failed]]]


def check(recipe: Recipe, folder: RunFolder, prompt: Prompt | None, meter: Meter) -> Failures:
    """A verdict for every negative of ``trees.jsonl``; appends to ``verdicts.jsonl`` and resumes there."""
    failures = Failures()
    trees = folder.path / "trees.jsonl"
    with folder.journal("verdicts.jsonl", Verdict, lambda verdict: verdict.id) as verdicts:
        left, total = [], 0
        for tree in read(trees, SessionTree):
            total += 1
            missing = tuple(branch for branch in tree.branches if branch_id(tree, branch) not in verdicts)
            if missing:
                left.append(tree.model_copy(update={"branches": missing}))
        if not left:
            return failures
        judge, size = recipe.negatives.judge, recipe.negatives.chunk
        if judge is not None and all_at_once(judge):
            size = len(left)
        with (
            _checker(recipe, prompt, meter) as checked,
            progress("negatives: worse?", total, total - len(left)) as bar,
        ):
            for start in range(0, len(left), size):
                for found in checked(left[start : start + size]):
                    for verdict in found:
                        if isinstance(verdict, Verdict):
                            verdicts.append(verdict)
                    if failed := [each.reason for each in found if isinstance(each, Failed)]:
                        failures.failed(failed[0])
                    else:
                        failures.went_through()
                        bar.advance(note=failures.note)
                if failures.hopeless:
                    break
    return failures


def apply(folder: RunFolder, drop: bool) -> None:
    """Write the verdicts into ``trees.jsonl``; ``drop`` leaves out what is not worse. Controls stay as they come.

    What is left out is written elsewhere before the file takes its place in one step: after a kill between the two, or
    behind both, the next attempt does the same again.
    """
    path = folder.path / "trees.jsonl"
    beside = path.with_name(path.name + ".part")
    worse = {verdict.id: verdict.worse for verdict in read(folder.path / "verdicts.jsonl", Verdict)}
    with (
        folder.journal("rejected.jsonl", Rejected, lambda rejected: rejected.id) as rejected,
        folder.journal("skipped.jsonl", Rejected, lambda skipped: skipped.id) as skipped,
        beside.open("w", encoding="utf-8") as checked,
    ):
        for tree in read(path, SessionTree):
            source, branches = tree.dialogue.source, []
            for branch in tree.branches:
                name = branch_id(tree, branch)
                if worse[name] is not False or not drop or branch.negative.kind not in KINDS:
                    negative = branch.negative.model_copy(update={"worse": worse[name]})
                    branches.append(branch.model_copy(update={"negative": negative}))
                elif name not in skipped:
                    skipped.append(Rejected(id=name, source=source, reason=NOT_WORSE))
            if branches:
                left = tree.model_copy(update={"branches": tuple(branches)})
                checked.write(left.model_dump_json(exclude_none=True) + "\n")
            elif tree.id not in rejected:
                rejected.append(Rejected(id=tree.id, source=source, reason="no negative left"))
    os.replace(beside, path)


@contextmanager
def _checker(recipe: Recipe, prompt: Prompt | None, meter: Meter) -> Iterator[Check]:
    settings = recipe.negatives
    if settings.scorer is not None and settings.check_worse == "likelihood":
        scored = by_likelihood(recipe, settings.scorer)
        yield lambda trees: map(scored, trees)
    elif settings.judge is not None and prompt is not None:
        with closing(open_chat(settings.judge, recipe, meter)) as chat:
            judge = Speaker(chat, "assistant", DECODING, derive_seed(recipe.run.seed, "negatives", "judge"))
            yield lambda trees: by_judge(judge, prompt, trees)
