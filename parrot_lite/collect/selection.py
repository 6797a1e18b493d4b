"""Which turns of the data are context-dependent (paper section 3.3): three detectors, and how they are combined.

The paper recognises pronouns and asks GPT-4. Here rules, a judge and the base model's own likelihood can be asked, one
or several; what each said of every turn is kept, and how far they agree is counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from itertools import combinations
from pathlib import Path
from typing import Any

from parrot_lite.chat import all_at_once, inputs_of, open_chat
from parrot_lite.chat.calls import Speaker
from parrot_lite.chat.meter import Meter
from parrot_lite.collect.calls import Failures
from parrot_lite.context import Asked, Verdict, by_rules
from parrot_lite.context import judge as judging
from parrot_lite.progress import progress
from parrot_lite.recipe import Decoding, Dependence, Detector, Gguf, Local, Recipe
from parrot_lite.store import RunFolder, model_inputs, read
from parrot_lite.types import Dialogue, derive_seed

Detect = Callable[[Sequence[Asked]], Iterable[Verdict]]
Said = dict[Detector, Verdict]  # of one turn


def detector_inputs(recipe: Recipe) -> dict[str, Path]:
    """The files whose bytes decide what the recipe's detectors say. Raises UserError where one is missing."""
    settings = recipe.negatives.dependence
    inputs: dict[str, Path] = {}
    if "judge" in settings.detectors:
        inputs |= inputs_of(settings.judge or recipe.negatives.writer, recipe)
        inputs[f"prompts/{judging.PROMPT.name}"] = judging.PROMPT
    if "likelihood" in settings.detectors:
        inputs |= model_inputs(recipe.model)
    return inputs


@contextmanager
def detector(
    name: Detector, recipe: Recipe, sessions: Sequence[Dialogue], meter: Meter | None = None
) -> Iterator[Detect]:
    """One detector, its model open meanwhile. ``sessions`` are those whose histories the likelihood swaps in."""
    settings = recipe.negatives.dependence
    match name:
        case "rules":
            yield by_rules
        case "judge":
            spec = settings.judge or recipe.negatives.writer
            choices = judging.CHOICES if isinstance(spec, Gguf | Local) else ()
            decoding = Decoding(temperature=0.0, top_p=1.0, max_tokens=64, choices=choices)
            with closing(open_chat(spec, recipe, meter)) as chat:
                speaker = Speaker(chat, "assistant", decoding, derive_seed(recipe.run.seed, "dependence"))
                yield lambda asked: judging.judge(asked, speaker.reply, settings.threshold)
        case "likelihood":
            from parrot_lite.context.likelihood import Likelihood

            yield Likelihood(recipe, settings, sessions)


def select(recipe: Recipe, sessions: Sequence[Dialogue], folder: RunFolder, meter: Meter) -> dict[str, dict[int, str]]:
    """The context-dependent turns of each session with what marked them, up to ``negatives.sessions`` that have one.

    What models said is kept in ``dependence.jsonl``, where another attempt takes it up; counts and agreement go to the
    manifest. Raises UserError where calls failed (run again: only those are repeated).
    """
    settings, wanted = recipe.negatives.dependence, recipe.negatives.sessions
    marked: dict[str, dict[int, str]] = {}
    agreement = Agreement(settings.detectors)
    failures = Failures()
    found = 0
    with closing(_said(recipe, sessions, folder, meter)) as answers:
        for session, turns in answers:
            marks = {turn: mark(said, settings) for turn, said in turns.items()}
            marked[session.id] = {turn: why for turn, why in marks.items() if why is not None}
            found += bool(marked[session.id])
            for said in turns.values():
                agreement.add(said)
            failed = [one.why for said in turns.values() for one in said.values() if one.again]
            if failed:
                failures.failed(failed[0])
            else:
                failures.went_through()
            if failures.hopeless or found == wanted:
                break
    failures.refuse("negatives", folder.path, len(marked))
    folder.facts["dependence"] = agreement.facts()
    return marked


def mark(said: Said, settings: Dependence) -> str | None:
    """What a dependent turn is recorded with: the rule, and the names of the other detectors that say yes.

    None where fewer of them say yes than ``settings.wanted``; no verdict is not a yes.
    """
    yes = [one.why if name == "rules" else name for name, one in said.items() if one.dependent]
    enough = {"all": len(said), "any": 1, "majority": len(said) // 2 + 1}[settings.wanted]
    return "+".join(yes) if len(yes) >= enough else None


class Agreement:
    """How often detectors said what, and how far each two agree over the turns where both gave a verdict."""

    def __init__(self, detectors: Sequence[Detector]) -> None:
        self._names = tuple(dict.fromkeys(detectors))
        self._verdicts = {name: Counter[bool | None]() for name in self._names}
        self._pairs = {pair: Counter[tuple[bool, bool]]() for pair in combinations(self._names, 2)}

    def add(self, said: Said) -> None:
        """Count the verdicts on one turn."""
        for name in self._names:
            self._verdicts[name][said[name].dependent] += 1
        for (one, other), counts in self._pairs.items():
            first, second = said[one].dependent, said[other].dependent
            if first is not None and second is not None:
                counts[first, second] += 1

    def facts(self) -> dict[str, Any]:
        """For the manifest: verdicts by detector, and for each two the four counts, their agreement and kappa."""
        return {
            "verdicts": {
                name: {"yes": counts[True], "no": counts[False], "none": counts[None]}
                for name, counts in self._verdicts.items()
            },
            "agreement": [
                {
                    "detectors": list(pair),
                    "turns": counts.total(),
                    "both": counts[True, True],
                    "first": counts[True, False],
                    "second": counts[False, True],
                    "neither": counts[False, False],
                    "observed": observed(counts),
                    "kappa": kappa(counts),
                }
                for pair, counts in self._pairs.items()
            ],
        }


def observed(counts: Mapping[tuple[bool, bool], int]) -> float | None:
    """The share of turns on which two detectors say the same; None without a turn."""
    total = sum(counts.values())
    return None if not total else round((counts[True, True] + counts[False, False]) / total, 4)


def kappa(counts: Mapping[tuple[bool, bool], int]) -> float | None:
    """Cohen's kappa (1960): agreement beyond that of two who say yes as often, but blindly.

    None where chance would agree always (both say one thing of every turn), or without a turn.
    """
    total = sum(counts.values())
    if not total:
        return None
    agreed = (counts[True, True] + counts[False, False]) / total
    first = (counts[True, True] + counts[True, False]) / total
    second = (counts[True, True] + counts[False, True]) / total
    chance = first * second + (1 - first) * (1 - second)
    return None if chance == 1 else round((agreed - chance) / (1 - chance), 4)


def _said(
    recipe: Recipe, sessions: Sequence[Dialogue], folder: RunFolder, meter: Meter
) -> Generator[tuple[Dialogue, dict[int, Said]]]:
    """Every session with what each detector says of its turns from the second on; models are asked chunk by chunk."""
    settings = recipe.negatives
    names = tuple(dict.fromkeys(settings.dependence.detectors))
    models = [name for name in names if name != "rules"]
    chunk = settings.chunk if models else 1
    if "judge" in names and all_at_once(settings.dependence.judge or settings.writer):
        chunk = max(chunk, settings.sessions or len(sessions))  # a batch takes hours, however small it is
    with ExitStack() as stack:
        detectors: dict[Detector, Detect] = {}
        known: dict[tuple[Detector, str, int], Verdict] = {}
        journal = bar = None
        if models:
            journal = stack.enter_context(
                folder.journal("dependence.jsonl", Verdict, lambda said: (said.detector, said.session, said.turn))
            )
            known = {(said.detector, said.session, said.turn): said for said in read(journal.path, Verdict)}
            total = len(models) * sum(len(session.answers[1:]) for session in sessions)
            bar = stack.enter_context(progress("negatives: dependence", total, len(known)))
        for start in range(0, len(sessions), chunk):
            part = sessions[start : start + chunk]
            asked = [Asked.of(session, turn) for session in part for turn in range(2, len(session.answers) + 1)]
            for name in names:
                missing = [one for one in asked if (name, one.id, one.turn) not in known]
                if missing and name not in detectors:
                    detectors[name] = stack.enter_context(detector(name, recipe, sessions, meter))
                for said in detectors[name](missing) if missing else ():
                    known[name, said.session, said.turn] = said
                    if journal is not None and bar is not None and name != "rules":
                        bar.advance(0 if said.again else 1)
                        if not said.again:
                            journal.append(said)
            for session in part:
                turns = range(2, len(session.answers) + 1)
                yield session, {turn: {name: known.pop((name, session.id, turn)) for name in names} for turn in turns}
