"""Whether negatives really are worse than their chosen answers, given the true history: by a judge, or by likelihood.

It runs when all negatives are written, so that no two models need be in memory together.
"""

from __future__ import annotations

import math
import os
import re
import sys
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

from parrot_lite.chat import adapter_inputs, open_chat
from parrot_lite.collect.authors import Failed, text_of
from parrot_lite.collect.calls import Failures, Speaker
from parrot_lite.collect.prompts import Prompt
from parrot_lite.collect.shown import Skipped, place_id
from parrot_lite.collect.validity import NOT_WORSE
from parrot_lite.errors import UserError
from parrot_lite.lm.tree import Answer, Limb, TokenTree
from parrot_lite.progress import progress
from parrot_lite.recipe import Decoding, Local, Recipe
from parrot_lite.store import RunFolder, read
from parrot_lite.types import Branch, Dialogue, Record, Rejected, Reply, SessionTree, derive_seed

if TYPE_CHECKING:
    from parrot_lite.lm.tokens import Renderer

DECODING = Decoding(temperature=0.0, top_p=1.0, max_tokens=256)
_VERDICT = re.compile(r"\[\[\s*([AB])\s*\]\]")


class Verdict(Record):
    """Whether one negative is worse than its chosen answer; None where there is no verdict, for a reason."""

    id: str
    worse: bool | None
    reason: str | None = None
    judge: tuple[str | None, str | None] | None = None  # what it wrote, the chosen answer being A, then B
    log_probs: tuple[float, float] | None = None  # nats a token, of the chosen answer and of the negative


Check = Callable[[Sequence[SessionTree]], Iterator[list[Verdict | Failed]]]


def check(recipe: Recipe, folder: RunFolder, prompt: Prompt | None) -> Failures:
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
        size = recipe.negatives.chunk
        with (
            _checker(recipe, folder, prompt) as checked,
            progress("negatives: worse?", total, total - len(left)) as bar,
        ):
            for start in range(0, len(left), size):
                for found in checked(left[start : start + size]):
                    failed = None
                    for verdict in found:
                        if isinstance(verdict, Failed):
                            failed = failed or verdict.reason
                        else:
                            verdicts.append(verdict)
                    if failed:
                        failures.failed(failed)
                    else:
                        failures.went_through()
                        bar.advance(note=failures.note)
                if failures.hopeless:
                    break
    return failures


def apply(folder: RunFolder, drop: bool) -> None:
    """Write the verdicts into ``trees.jsonl``; ``drop`` leaves out what is not worse.

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
                if not drop or worse[name] is not False:
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


def branch_id(tree: SessionTree, branch: Branch) -> str:
    """The name of a branch's negative, in every file of the stage."""
    return place_id(tree.id, branch.turn, branch.negative.kind, branch.negative.how)


@contextmanager
def _checker(recipe: Recipe, folder: RunFolder, prompt: Prompt | None) -> Iterator[Check]:
    settings = recipe.negatives
    if settings.scorer is not None and settings.check_worse == "likelihood":
        yield _by_likelihood(recipe, settings.scorer)
    elif settings.judge is not None and prompt is not None:
        with closing(open_chat(settings.judge, recipe)) as chat:
            judge = Speaker(chat, "assistant", DECODING, derive_seed(recipe.run.seed, "negatives", "judge"))
            yield lambda trees: _by_judge(judge, prompt, trees)
            folder.facts.setdefault("calls", {})["judge"] = {"name": judge.name, **judge.cost}


def parse(text: str) -> str | None:
    """The last ``[[A]]`` or ``[[B]]`` of a judge's text; None where there is none.

    >>> parse("One says [[A]], yet it is of another thing. [[B]]")
    'B'
    >>> parse("A, I think") is None
    True
    """
    found = _VERDICT.findall(text)
    return str(found[-1]) if found else None


def neutralise(text: str) -> str:
    """``text`` without verdicts, so that a judge who quotes it gives none by that.

    >>> neutralise("Choose [[A]]!")
    'Choose [A]!'
    """
    return _VERDICT.sub(r"[\1]", text)


def render(prompt: Prompt, context: Dialogue, a: str, b: str) -> str:
    """What the judge reads."""
    lines = [f"{turn.role.capitalize()}: {neutralise(turn.content)}" for turn in context.turns]
    return prompt.fill(history="\n\n".join(lines), a=neutralise(a), b=neutralise(b))


def _by_judge(judge: Speaker, prompt: Prompt, trees: Sequence[SessionTree]) -> Iterator[list[Verdict | Failed]]:
    """Every pair in both orders; worse only where both verdicts prefer the chosen answer."""
    asked: list[Dialogue] = []
    for tree in trees:
        for branch in tree.branches:
            both = tree.chosen(branch), branch.negative.text
            for order, (a, b) in (("chosen-first", both), ("negative-first", both[::-1])):
                text = render(prompt, tree.dialogue.before(branch.turn), a, b)
                asked.append(Dialogue(id=f"{branch_id(tree, branch)}/{order}", source="judge").say(text))
    replies = iter(judge.reply(asked))
    for tree in trees:
        yield [_judged(branch_id(tree, branch), next(replies), next(replies)) for branch in tree.branches]


def _judged(name: str, first: Reply, second: Reply) -> Verdict | Failed:
    texts = text_of(first), text_of(second)
    for text in texts:
        if isinstance(text, Failed):
            return text
    written = first.text, second.text  # of a cut reply, what there is of it
    lacking = next((text.reason for text in texts if isinstance(text, Skipped)), None)
    if lacking is not None:
        return Verdict(id=name, worse=None, reason=lacking, judge=written)
    match parse(written[0] or ""), parse(written[1] or ""):
        case (None, _) | (_, None):
            return Verdict(id=name, worse=None, reason="no verdict", judge=written)
        case "A", "B":
            return Verdict(id=name, worse=True, judge=written)
        case "B", "A":
            return Verdict(id=name, worse=False, reason="the negative preferred", judge=written)
    return Verdict(id=name, worse=False, reason="the two orders disagree", judge=written)


def _by_likelihood(recipe: Recipe, scorer: Local) -> Check:
    """Worse where the scorer gives the negative a lower log-prob a token than the chosen answer."""
    import torch

    from parrot_lite.lm import attention
    from parrot_lite.lm.likelihood import answer_log_probs
    from parrot_lite.lm.model import load_for_inference, load_renderer

    adapter = next(iter(adapter_inputs(scorer, recipe).values()), None)
    model: Any = load_for_inference(recipe.model, adapter).requires_grad_(False)
    causal = model.get_base_model() if hasattr(model, "get_base_model") else model
    config = causal.config.get_text_config()
    longest: int = min(config.max_position_embeddings, getattr(config, "sliding_window", None) or sys.maxsize)
    attention.use(causal, longest)
    renderer = load_renderer(recipe.model)

    def scored(tree: SessionTree) -> list[Verdict | Failed]:
        token_tree, places = laid_down(renderer, tree, longest)
        means: list[float] = []
        if token_tree is not None:
            with torch.no_grad():
                sums = answer_log_probs(model, token_tree).tolist()
            means = [total / len(answer) for total, answer in zip(sums, token_tree.answers, strict=True)]
        found: list[Verdict | Failed] = []
        for branch in tree.branches:
            name = branch_id(tree, branch)
            if (pair := places.get(name)) is None:
                found.append(Verdict(id=name, worse=None, reason="longer than the scorer's context"))
                continue
            chosen, negative = (means[place] for place in pair)
            if not (math.isfinite(chosen) and math.isfinite(negative)):
                raise UserError("a log-prob under the scorer is not a number", name, "Try model.dtype")
            found.append(Verdict(id=name, worse=negative < chosen, log_probs=(chosen, negative)))
        return found

    return lambda trees: map(scored, trees)


def laid_down(
    renderer: Renderer, tree: SessionTree, longest: int
) -> tuple[TokenTree | None, dict[str, tuple[int, int]]]:
    """The session up to its last query with every answer of its pairs as a branch.

    Beside it, by the name of a negative, the places of its chosen answer and of itself among the tree's answers. Pairs
    that do not fit ``longest`` tokens are not in it. Raises UserError where the template's tokens of a prompt are not
    the beginning of the session's.
    """
    contexts = {branch.turn: tree.dialogue.before(branch.turn) for branch in tree.branches}
    prompts = {turn: renderer.prompt(context) for turn, context in contexts.items()}
    fitting: dict[str, tuple[int, tuple[tuple[int, ...], tuple[int, ...]]]] = {}
    for branch in tree.branches:
        context, prompt = contexts[branch.turn], prompts[branch.turn]
        chosen, negative = (renderer.answer(context, prompt, t) for t in (tree.chosen(branch), branch.negative.text))
        if len(prompt) + max(len(chosen), len(negative)) <= longest:
            fitting[branch_id(tree, branch)] = branch.turn, (chosen, negative)
    if not fitting:
        return None, {}
    trunk = prompts[max(turn for turn, _ in fitting.values())]
    ids = array("i", trunk)
    limbs = [Limb(0, 0, 0, len(trunk))]
    answers: list[Answer] = []
    at: dict[tuple[int, tuple[int, ...]], int] = {}  # the kinds of a turn share their chosen answer
    places: dict[str, tuple[int, int]] = {}
    for name, (turn, pair) in fitting.items():
        fork = len(prompts[turn])
        if trunk[:fork] != prompts[turn]:
            raise UserError("a prompt's tokens are not the beginning of a later one's", name, "Choose a template")
        for answer in pair:
            if (turn, answer) in at:
                continue
            at[turn, answer] = len(answers)
            start = len(ids)
            ids.extend(answer)
            limbs.append(Limb(0, fork, start, len(ids)))
            answers.append(Answer(start, len(ids), fork - 1))
        places[name] = at[turn, pair[0]], at[turn, pair[1]]
    return TokenTree(ids, tuple(limbs), tuple(answers)), places
