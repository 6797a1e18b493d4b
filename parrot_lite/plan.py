"""``parrot plan``: what every stage would take, before anything runs, without weights, data or torch.

Lengths are looked up in the sessions that the run folder already holds, rates in the manifests of finished stages, a
small pilot of the same recipe included; what nobody has measured is assumed and said to be, or left open.
"""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

from rich.markup import escape
from rich.table import Table

from parrot_lite import estimate
from parrot_lite.chat import describe
from parrot_lite.errors import UserError
from parrot_lite.estimate import MESSAGE, WORD, Assumed, Calls, Lengths
from parrot_lite.recipe import (
    ADAPTERS,
    HUB,
    SECTION,
    Capo,
    ChatSpec,
    Collect,
    Eval,
    Gguf,
    Judge,
    Local,
    Logs,
    Negatives,
    Probe,
    Recipe,
    Scripted,
    Section,
    Seeds,
    Server,
    Sft,
    Stage,
    Training,
    dump,
)
from parrot_lite.store import count, locate, read
from parrot_lite.table import wide
from parrot_lite.train.dose import dosed
from parrot_lite.train.steps import steps_of
from parrot_lite.types import How, Kind, SessionTree

State = Literal["to do", "begun", "finished", "changed"]
PROMPTS = "package:parrot_lite/data/prompts/"
LOGS_TURNS = (6, 7)  # ShareGPT has 6.5 exchanges a conversation
BATCH_HOURS = 24.0
ELSEWHERE = {"base_url", "api_key_env", "timeout", "retries"}  # of a speaker, what its pace does not depend on


@dataclass(frozen=True)
class Past:
    """What a stage's folder tells: its state, and the manifest, which may be that of another recipe."""

    state: State
    manifest: dict[str, Any] | None = None
    recipe: Mapping[str, Any] | None = None  # resolved, as it was run


@dataclass(frozen=True)
class Planned:
    """What a stage will take. None = nobody can say."""

    reads: str
    sessions: float | None = None
    size: str = ""
    calls: tuple[Calls, ...] = ()
    steps: int | None = None
    tokens: float | None = None  # that training goes through, over all steps


@dataclass(frozen=True)
class Hours:
    """How long a stage takes at least, and whether that was measured or assumed."""

    value: float
    measured: bool
    whole: bool = True  # False = parts whose pace nobody knows are not in it


class Outlook:
    """A recipe with what its folder already tells."""

    def __init__(self, recipe: Recipe, assumed: Assumed) -> None:
        self.recipe, self.assumed = recipe, assumed
        self.past = {stage: _past(recipe, stage) for stage in SECTION}

    def facts(self, stage: Stage) -> dict[str, Any] | None:
        """The manifest of a stage that is finished with this very recipe."""
        past = self.past[stage]
        return past.manifest if past.state == "finished" else None

    def sessions(self, names: Sequence[str]) -> int | None:
        """How many sessions ``data`` entries hold: as manifests have it, else as the recipe asks; None = unknown."""
        counts = [self._sessions(name) for name in names]
        return None if None in counts else sum(one for one in counts if one is not None)

    def _sessions(self, name: str) -> int | None:
        if name == "logs":
            facts = self.facts("logs")
            return facts["train"] if facts else self.recipe.logs.sessions
        if name == "collect":
            facts = self.facts("collect")
            return facts["counts"]["sessions"] if facts else self.recipe.collect.sessions
        return count(Path(name)) if Path(name).exists() else None

    def lengths(self, names: Sequence[str]) -> Lengths:
        """Of the sessions in ``data`` entries, one entry counting as much as another."""
        found = [self._lengths(name) for name in names]
        together = tuple(shape for one in found for shape in one.shapes)
        query, answer = fmean(one.query for one in found), fmean(one.answer for one in found)
        return Lengths(query, answer, together, next((one.measured for one in found if one.measured), None))

    def _lengths(self, name: str) -> Lengths:
        planned = Lengths(self.assumed.query_tokens, self.assumed.answer_tokens, self._shapes(name))
        if name not in ("logs", "collect"):
            return (estimate.measured(Path(name)) if Path(name).exists() else None) or planned
        stage: Stage = "logs" if name == "logs" else "collect"
        file = self.recipe.folder(stage) / {"logs": "train.jsonl", "collect": "dialogues.jsonl"}[stage]
        seen = estimate.measured(file) if file.exists() and self._says_enough(stage) else None
        if seen is None:
            return planned
        # The first sessions to end are the shorter ones, and a pilot may be shorter: then their turns tell nothing.
        return seen if self.facts(stage) else replace(seen, shapes=planned.shapes)

    def _says_enough(self, stage: Stage) -> bool:
        """Whether a stage's sessions are like those to come: of this recipe, or a pilot with the same speakers."""
        past = self.past[stage]
        if past.state != "changed" or past.recipe is None:
            return past.state != "to do"
        now, section = _plain(self.recipe, stage), SECTION[stage]
        speakers = _speakers(now[section])
        return (
            bool(speakers)
            and _speakers(past.recipe[section]) == speakers
            and past.recipe.get("model") == now.get("model")
        )

    def _shapes(self, name: str) -> tuple[estimate.Shape, ...]:
        if name == "collect":
            return estimate.shapes(range(self.recipe.collect.min_turns, self.recipe.collect.max_turns + 1))
        most = self.recipe.logs.max_turns or max(LOGS_TURNS)
        return estimate.shapes(max(self.recipe.logs.min_turns, min(turns, most)) for turns in LOGS_TURNS)


def show(recipe: Recipe, assumed: Assumed) -> None:
    """Print what each stage takes, what that rests on, where it exceeds the budget, and which files are missing."""
    console = wide()
    outlook = Outlook(recipe, assumed)
    planned = {stage: row(outlook) for stage, row in STAGES.items()}
    console.print(f"{recipe.name}: what each stage takes; results lie in {recipe.folder('')}")
    console.print(_table(outlook, planned))
    console.print(_readings(planned))
    for line in _legend(outlook, planned):
        console.print(f"[dim]{escape(line)}[/]")
    for line in (*warnings(outlook, planned), *missing(outlook)):
        console.print(f"[red]{escape(line)}[/]")


def _table(outlook: Outlook, planned: Mapping[Stage, Planned]) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="")
    # Figures are whole in 80 columns: what is too long there is a speaker's name, and it folds.
    table.add_column("stage", overflow="fold", min_width=len("train-capo"))
    table.add_column("", overflow="fold", min_width=len("finished"))
    for name in ("sessions", "calls", "prompt", "output", "cost", "steps", "hours"):
        table.add_column(name, justify="right", no_wrap=True)
    recipe, totals = outlook.recipe, dict[str, list[Calls]]()
    left: list[tuple[Planned, Hours | None]] = []
    for stage, one in planned.items():
        past, hours = outlook.past[stage], hours_of(outlook, stage, one)
        sessions = "?" if one.sessions is None else f"{one.sessions:,.0f}"
        steps = "" if one.steps is None else f"{one.steps:,}"
        table.add_row(f"[bold]{stage}[/]", past.state, sessions, "", "", "", "", steps, _hours(hours, one))
        if past.state == "finished":
            for name, used in used_in(past).items():
                table.add_row("", escape(name), "", *_used(recipe, used.get("name", name), used))
            continue
        left.append((one, hours))
        for calls in one.calls:
            table.add_row(f"  {calls.role}", escape(model_of(calls.spec)), "", *_cells(recipe, [calls]))
            if isinstance(calls.spec, Server):
                totals.setdefault(calls.spec.model, []).append(calls)
    open_ended = any(_works(one) and not (hours and hours.whole) for one, hours in left)
    known = [hours.value for _, hours in left if hours]
    total = f"{'> ' if open_ended else ''}{_round(sum(known))}" if known else "—" if open_ended else ""
    table.add_row()
    table.add_row(
        "[bold]to come[/]",
        "",
        "",
        *_cells(recipe, [calls for one, _ in left for calls in one.calls]),
        f"{sum(one.steps or 0 for one, _ in left):,}",
        total,
    )
    for name, several in sorted(totals.items()):
        table.add_row("  of", escape(name), "", *_cells(recipe, several))
    return table


def _readings(planned: Mapping[Stage, Planned]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    for _ in range(3):
        table.add_column(overflow="fold")  # a path is shown whole
    table.add_row()
    for stage, one in planned.items():
        table.add_row(f"[bold]{stage}[/]", escape(one.size), escape(f"reads {one.reads}"))
    table.add_row()
    return table


def _works(planned: Planned) -> bool:
    return bool(planned.calls) or planned.steps is not None or planned.tokens is not None


def _hours(hours: Hours | None, planned: Planned) -> str:
    if hours is None:
        return "—" if _works(planned) else ""
    return f"{'' if hours.whole else '> '}{_round(hours.value)} {'m' if hours.measured else 'a'}"


def _round(hours: float) -> str:
    return f"{hours:,.1f}" if hours >= 1 else f"{hours:.2f}"


def _cells(recipe: Recipe, several: Sequence[Calls]) -> list[str]:
    costs = [cost_of(recipe, calls) for calls in several if isinstance(calls.spec, Server)]
    known = [cost for cost in costs if cost is not None]
    cost = f"{'> ' if None in costs else ''}{sum(known):,.2f}" if known else "—" if costs else ""
    sums = [sum(getattr(calls, name) for calls in several) for name in ("prompt", "generated")]
    return [f"{sum(calls.number for calls in several):,.0f}", *map(_tokens, sums), cost]


def _used(recipe: Recipe, name: str, used: Mapping[str, Any]) -> list[str]:
    prompt, generated = used.get("prompt_tokens"), used.get("tokens")
    price, cost = recipe.prices.get(name), "—"
    if price and prompt is not None and generated is not None:
        cost = f"{(prompt * price.input + generated * price.output) / 1e6:,.2f}"
    return [f"{used.get('calls', 0):,}", _tokens(prompt), _tokens(generated), cost]


def _tokens(number: float | None) -> str:
    if number is None:
        return "—"
    return f"{number / 1e6:,.1f} M" if number >= 1e6 else f"{number:,.0f}"


def cost_of(recipe: Recipe, calls: Calls) -> float | None:
    """What calls cost, in the currency of the prices; 0 for a model in this process, None for one without a price."""
    if not isinstance(calls.spec, Server):
        return 0.0
    price = recipe.prices.get(calls.spec.model)
    return None if price is None else (calls.prompt * price.input + calls.generated * price.output) / 1e6


def warnings(outlook: Outlook, planned: Mapping[Stage, Planned]) -> Iterator[str]:
    """Where a stage would exceed the budget, and models whose price is missing where prices or a cap are given."""
    recipe, budget = outlook.recipe, outlook.recipe.budget
    unpriced: dict[str, None] = {}
    for stage, one in planned.items():
        if outlook.facts(stage) is not None:
            continue
        costs = {model_of(calls.spec): cost_of(recipe, calls) for calls in one.calls}
        unpriced |= dict.fromkeys(name for name, cost in costs.items() if cost is None)
        number = sum(calls.number for calls in one.calls)
        money = sum(cost_of(recipe, calls) or 0.0 for calls in one.calls)
        if budget.calls is not None and number > budget.calls:
            yield f"{stage}: {number:,.0f} calls exceed budget.calls = {budget.calls:,}"
        if budget.money is not None and money > budget.money:
            yield f"{stage}: a cost of {money:,.2f} exceeds budget.money = {budget.money:,.2f}"
    if recipe.prices or budget.money is not None:
        for name in unpriced:
            yield f'no price of {name}: the costs lack it. Add [prices."{name}"]'
    for stage, past in outlook.past.items():
        if past.state == "changed":
            yield f"{stage}: its folder belongs to another recipe; it would stop, or start again with --rerun"


def missing(outlook: Outlook) -> Iterator[str]:
    """Files and folders that the recipe names for stages to come and that are not there."""
    recipe = outlook.recipe
    to_come: list[Stage] = [stage for stage in SECTION if outlook.facts(stage) is None]
    found = [one for stage in to_come for one in _files(getattr(recipe, SECTION[stage]), SECTION[stage])]
    if any("model" in recipe.resolved(stage) for stage in to_come):
        found += [("model.base", recipe.model.base)] if _no_hub_id(recipe.model.base) else []
    if "logs" in to_come and recipe.logs.path is None and recipe.logs.source in ("conversations", "messages", "hub"):
        yield f"logs.path is not set: source '{recipe.logs.source}' needs it"
    for key, path in found:
        try:
            file = locate(path)
        except UserError as error:
            yield f"{key} = {path}: {error.what}. {error.fix}"
            continue
        if not file.exists():
            near = difflib.get_close_matches(file.name, _beside(file), n=1)
            yield f"{key} = {path}: no such file or folder" + (
                f". Did you mean {file.parent / near[0]}?" if near else ""
            )


def _files(part: Any, key: str) -> Iterator[tuple[str, str]]:
    """The key and the path of every file that a section and the speakers in it read."""
    match part:
        case Logs(path=str(path)) | Seeds(path=str(path)) if part.source != "hub":
            yield f"{key}.path", path
        case Gguf(path=path) | Scripted(path=path):
            yield f"{key}.path", path
        case Local(adapter=str(path)) if path not in ADAPTERS:
            yield f"{key}.adapter", path
        case Judge(prompt=single, pair_prompt=pair, references=references):
            prompts = {"prompt": single, **({"pair_prompt": pair} if part.pairs else {})}
            yield from ((f"{key}.{name}", path) for name, path in prompts.items() if Path(path).suffix)
            if references is not None:
                yield f"{key}.references", references
        case Eval(bench=path, reference_answers=answered):
            if path != "bundled" and not path.startswith(HUB):
                yield f"{key}.bench", path
            if answered is not None:
                yield f"{key}.reference_answers", answered
        case Negatives(prompts=folder):
            yield f"{key}.prompts", folder
        case Collect(benchmarks=names):
            yield from ((f"{key}.benchmarks", name) for name in names)
    if isinstance(part, Sft | Negatives):
        yield from ((f"{key}.data", name) for name in part.data if name not in ("logs", "collect"))
    if isinstance(part, Section):
        for name in type(part).model_fields:
            yield from _files(getattr(part, name), f"{key}.{name}")
    elif isinstance(part, tuple):
        for one in part:
            yield from _files(one, key)
    elif isinstance(part, dict):
        for name, one in part.items():
            yield from _files(one, f"{key}.{name}")


def _no_hub_id(base: str) -> bool:
    """Whether a base model can only be a file or a folder."""
    return base.startswith(("/", ".", "~", "package:")) or base.endswith(".gguf")


def _beside(file: Path) -> list[str]:
    return [one.name for one in file.parent.iterdir()] if file.parent.is_dir() else []


def _legend(outlook: Outlook, planned: Mapping[Stage, Planned]) -> Iterator[str]:
    recipe, assumed = outlook.recipe, outlook.assumed
    for name in dict.fromkeys(("collect", *recipe.negatives.data, *recipe.sft.data, *recipe.ask.data)):
        one = outlook.lengths([name])
        turns = fmean(shape.turns for shape in one.shapes)
        source = f"measured in {one.measured}" if one.measured else "assumed: --query-tokens, --answer-tokens"
        yield f"{name}: {one.query:.0f} tokens a query, {one.answer:.0f} an answer ({source}), {turns:.1f} turns"
    verdict = f"a verdict has {assumed.verdict_tokens:g} (assumed: --verdict-tokens)"
    yield f"tokens: {verdict}, a word {WORD:.2f}, the marks around a message {MESSAGE}"
    yield (
        f"hours: m = at the rate measured in this folder; a = assumed: {assumed.call_seconds:g} s a call "
        f"(--call-seconds), as many at once as concurrency says, {BATCH_HOURS:g} h a batch; — = no rate known; "
        "> = at least, for what has no known rate (local models, training, the probe) is not in it"
    )
    if any(cost_of(recipe, calls) is None for one in planned.values() for calls in one.calls):
        yield "cost: — = [prices] has no price of that model"
    yield "every session reaches its target and no call fails: early ends take less, calls made again more"


def hours_of(outlook: Outlook, stage: Stage, planned: Planned) -> Hours | None:
    """How long a stage takes: as it took, at a measured rate of the same speakers or training, or as assumed.

    Where that is known of its servers alone, it is what they take. None = nothing is known.
    """
    facts = outlook.facts(stage)
    if facts is not None:
        return Hours(facts["seconds"] / 3600, measured=True)
    if planned.tokens is not None:
        rate = _training_rate(outlook, stage)
        return None if rate is None else Hours(planned.tokens / rate / 3600, measured=True)
    if not planned.calls:
        return None
    pace = _call_seconds(outlook, stage)
    if pace is not None:
        return Hours(pace * sum(calls.number for calls in planned.calls) / 3600, measured=True)
    served = [(calls, calls.spec) for calls in planned.calls if isinstance(calls.spec, Server)]
    if not served:
        return None  # how fast this machine is, no default can know
    total = 0.0
    for calls, spec in served:
        each = outlook.assumed.call_seconds / spec.concurrency / 3600
        total += BATCH_HOURS * calls.rounds if spec.batch else calls.number * each
    probed = stage == "eval" and outlook.recipe.eval.probe is not None
    return Hours(total, measured=False, whole=len(served) == len(planned.calls) and not probed)


def _training_rate(outlook: Outlook, stage: Stage) -> float | None:
    """Tokens a second of a finished training of the same kind, with the same model, batch and checkpointing."""
    kind: tuple[Stage, ...] = ("train-capo",) if stage == "train-capo" else ("train-sft", "train-ask")
    now = getattr(outlook.recipe, SECTION[stage])
    for other in sorted(kind, key=lambda one: one != stage):
        past = outlook.past[other]
        if past.manifest is None or past.recipe is None or not _timed(past.manifest):
            continue
        then = past.manifest["settings"]
        same = all(then.get(key) == getattr(now, key) for key in ("batch", "checkpointing"))
        same = same and then.get("layout") == getattr(now, "layout", None) and then.get("max_steps") is None
        if same and past.recipe.get("model") == _plain(outlook.recipe, stage).get("model"):
            return float(past.manifest["tokens"] * then["epochs"] / past.manifest["seconds"])
    return None


def _timed(manifest: Mapping[str, Any]) -> bool:
    """Whether its seconds are those of all its work: of several attempts only the last one's are known."""
    return bool(manifest["attempts"] == 1 and manifest["seconds"] > 0)


def _call_seconds(outlook: Outlook, stage: Stage) -> float | None:
    """Seconds a call of a finished stage in one attempt whose speakers are the same as this one's."""
    now = _speakers(getattr(outlook.recipe, SECTION[stage]).model_dump(mode="json", exclude_none=True))
    model = _plain(outlook.recipe, stage).get("model")
    for other in sorted(outlook.past, key=lambda one: one != stage):
        past = outlook.past[other]
        number = sum(used.get("calls", 0) for used in used_in(past).values())
        if past.manifest is None or past.recipe is None or not _timed(past.manifest) or not number:
            continue
        if _speakers(past.manifest["settings"]) == now and past.recipe.get("model") == model:
            return float(past.manifest["seconds"] / number)
    return None


def _speakers(settings: Any) -> frozenset[str]:
    """Every speaker that a stage's settings name, without what its pace does not depend on."""
    if isinstance(settings, list):
        return frozenset().union(*map(_speakers, settings))
    if not isinstance(settings, dict):
        return frozenset()
    if "kind" in settings:
        return frozenset({json.dumps({k: v for k, v in settings.items() if k not in ELSEWHERE}, sort_keys=True)})
    return frozenset[str]().union(*map(_speakers, settings.values()))


def used_in(past: Past) -> dict[str, Mapping[str, Any]]:
    """What a finished stage's speakers used: calls, prompt_tokens and tokens, by role or by model."""
    used: dict[str, Mapping[str, Any]] = (past.manifest or {}).get("calls", {})
    return used


def model_of(spec: ChatSpec) -> str:
    """The model that a speaker is, as [prices] names it."""
    return spec.model if isinstance(spec, Server) else describe(spec)


def _past(recipe: Recipe, stage: Stage) -> Past:
    folder = recipe.folder(stage)
    if not (folder / "recipe.toml").exists():
        return Past("to do")
    kept = tomllib.loads((folder / "recipe.toml").read_text(encoding="utf-8"))
    kept.pop("inputs", None)  # their bytes are compared when the stage runs
    file = folder / "manifest.json"
    manifest = json.loads(file.read_text(encoding="utf-8")) if file.exists() else None
    if kept != _plain(recipe, stage):
        return Past("changed", manifest, kept)
    return Past("begun" if manifest is None else "finished", manifest, kept)


def _plain(recipe: Recipe, stage: Stage) -> dict[str, Any]:
    return tomllib.loads(dump(recipe.resolved(stage)))


def _logs(outlook: Outlook) -> Planned:
    logs = outlook.recipe.logs
    reads = f"{logs.source} {logs.path or ''}".strip()
    return Planned(reads, outlook.sessions(["logs"]), f"and {logs.heldout + logs.selection} held-out ones")


def _training(section: Literal["ask", "sft"]) -> Callable[[Outlook], Planned]:
    def planned(outlook: Outlook) -> Planned:
        settings: Sft = getattr(outlook.recipe, section)
        there = outlook.sessions(settings.data)
        number = there if settings.sessions is None else min(settings.sessions, there or settings.sessions)
        reads = f"{', '.join(settings.data)}; {_base(outlook.recipe)}"
        size = f"at most {settings.max_tokens:,} tokens a session, {_epochs(settings)}"
        if number is None:
            return Planned(reads, None, size)
        steps, lengths = steps_of(settings, number), outlook.lengths(settings.data)
        mean = fmean(min(settings.max_tokens, lengths.session(shape)) for shape in lengths.shapes)
        return Planned(reads, number, size, (), steps, steps * settings.batch * settings.accumulation * mean)

    return planned


def _epochs(settings: Training) -> str:
    return f"{settings.epochs:g} epoch{'' if settings.epochs == 1 else 's'}"


def _collect(outlook: Outlook) -> Planned:
    c = outlook.recipe.collect
    number, lengths = outlook.sessions(["collect"]) or c.sessions, outlook.lengths(["collect"])
    told = _words("asker.txt") if c.prompted or isinstance(c.asker, Server) else 0.0
    calls = (
        estimate.queries("asker", c.asker, lengths, number, c.asker_decoding.max_tokens, told),
        estimate.answers("answerer", c.answerer, lengths, number, c.answerer_decoding.max_tokens),
    )
    found = [(one.name, f"{one.source} {one.path or ''}".strip()) for one in c.seeds]
    seeds = ", ".join(f"{name} ({where})" if name else where for name, where in found)
    return Planned(f"seeds: {seeds}", number, f"{c.min_turns} to {c.max_turns} turns", calls)


def _negatives(outlook: Outlook) -> Planned:
    n = outlook.recipe.negatives
    facts = outlook.facts("negatives")
    number = facts["counts"]["trees"] if facts else _trees(outlook)
    reads, size = ", ".join(n.data), f"at most {n.turns_per_session} turns a session x {_ways(n.wanted)}"
    if any(kind == "hallucination" and how != "prompted" for kind, how in n.wanted):
        size += "; one call more guesses what a hallucination is about"
    if number is None:
        return Planned(reads, None, size)
    told, most, lengths = _words("guess-referent.txt"), n.decoding.max_tokens, outlook.lengths(n.data)
    mine = {"writer": [one for one in n.wanted if one[1] != "on-policy"]}
    mine["policy"] = [one for one in n.wanted if one[1] == "on-policy"]
    calls = []
    for role, spec in (("writer", n.writer), ("policy", n.policy)):
        if spec is not None and mine[role]:
            shared = (lengths, number, mine[role], n.chosen == "writer", n.turns_per_session, most, told)
            calls.append(estimate.negatives(role, spec, *shared))
    if n.check_worse == "judge" and n.judge:
        told, verdict = _words("which-fits.txt"), outlook.assumed.verdict_tokens
        shown = (lengths, number, len(n.wanted), n.turns_per_session, verdict, told)
        calls.append(estimate.comparisons(n.judge, *shown))
    return Planned(reads, number, size, tuple(calls))


def _ways(wanted: Sequence[tuple[Kind, How]]) -> str:
    return ", ".join(kind if how == "structural" else f"{kind} ({how})" for kind, how in wanted)


def _trees(outlook: Outlook) -> int | None:
    """Sessions with a dependent turn, as many as are wanted."""
    n = outlook.recipe.negatives
    there, shapes = outlook.sessions(n.data), outlook.lengths(n.data).shapes
    if there is None:
        return n.sessions
    fit = round(there * fmean(bool(shape.dependent) for shape in shapes))
    return fit if n.sessions is None else min(n.sessions, fit)


def _capo(outlook: Outlook) -> Planned:
    c, n = outlook.recipe.capo, outlook.recipe.negatives
    reads = f"negatives; adapter of train-sft; {_base(outlook.recipe)}"
    facts, number, lengths = outlook.facts("negatives"), _trees(outlook), outlook.lengths(n.data)
    limit = f"{c.tree_tokens:,} tokens a session" if c.layout == "tree" else f"2 x {c.max_tokens:,} tokens a pair"
    file = outlook.recipe.folder("negatives") / "trees.jsonl"
    if facts and file.exists():  # some turns lack a kind, and capo.turns_with leaves those out
        written = [len(tree.branches) for tree in dosed(read(file, SessionTree), c) if tree.branches]
        number, pairs = len(written), sum(written)
    elif number is None:
        return Planned(reads, None, f"at most {limit}, {_epochs(c)}")
    else:
        kinds = sum(c.trains(kind, how) for kind, how in (*n.wanted, ("other-turn", "structural")))
        kinds = 1 if c.one_a_turn else kinds
        turns = fmean(len(shape.dependent[-n.turns_per_session :]) for shape in lengths.shapes if shape.dependent)
        pairs = round(number * turns * kinds)
    used = pairs if c.pairs is None else min(c.pairs, pairs)
    number = min(number, used)
    size = f"up to {used:,} pairs, at most {limit}, {_epochs(c)}"
    steps = steps_of(c, number if c.layout == "tree" else used)
    return Planned(reads, number, size, (), steps, _capo_tokens(c, lengths, steps, used / max(1, number)))


def _capo_tokens(c: Capo, lengths: Lengths, steps: int, pairs: float) -> float:
    trunk = fmean(lengths.session(shape) for shape in lengths.shapes)
    tree = min(c.tree_tokens, trunk + pairs * (lengths.answer + MESSAGE))
    each = tree if c.layout == "tree" else 2 * min(c.max_tokens, trunk)
    return steps * c.batch * c.accumulation * each


def _eval(outlook: Outlook) -> Planned:
    from parrot_lite.evaluate.bench import load, pick, playable

    e, assumed = outlook.recipe.eval, outlook.assumed
    reads = f"{e.bench} benchmark" + ("; held-out sessions of logs" if e.probe else "")
    try:
        questions = pick(load(e.bench, e.reference_answers), e.sessions)
    except UserError as error:
        return Planned(f"{e.bench}: {error.what}")
    answer = min(assumed.answer_tokens, e.max_tokens)
    prompts: list[float] = []  # of each turn that is answered
    heard: list[float] = []  # of each, what a judge reads of it, its answer left out
    plays = [(history, question) for history in e.history for question in playable(questions, history)]
    for history, question in plays:
        before = 0.0
        for query, reference in zip(question.queries, question.references, strict=True):
            asked = len(query.split()) * WORD + MESSAGE
            fed = len((reference or "").split()) * WORD if history == "reference" else answer
            prompts.append(asked if history == "hidden" else before + asked)
            heard.append(before + asked)
            before += asked + fed + MESSAGE
    number, read = len(prompts), sum(prompts)
    calls = [Calls(name, spec, number, read, number * answer) for name, spec in e.models.items()]
    if e.judge:
        told, written = _words(f"judge-{e.judge.prompt}.txt"), min(assumed.verdict_tokens, e.judge.max_tokens)
        verdicts, weighed = number * len(e.models), e.judge.verdict == "expected"
        shown = sum(heard) * len(e.models) + verdicts * (answer + told)
        calls.append(Calls("judge", e.judge.chat, verdicts, shown, 0 if weighed else verdicts * written, rounds=2))
        looks = 2 * number * len(e.judge.pairs)  # one an order, over each history
        if looks:
            told = _words(f"judge-{e.judge.pair_prompt}.txt")
            shown = looks * (2 * sum(heard) / number + 2 * answer + told)  # at both sessions
            calls.append(Calls("pairs", e.judge.chat, looks, shown, 0 if weighed else looks * written, rounds=2))
    if e.probe and e.probe.writer:
        calls.append(_written(outlook, e.probe, e.probe.writer))
    plays_each = f"{number:,} turns a model" + (f", {' and '.join(e.history)} history" if e.history[1:] else "")
    return Planned(reads, len(questions), plays_each, tuple(calls))


def _written(outlook: Outlook, probe: Probe, writer: ChatSpec) -> Calls:
    """The same-writer answers of the probe, at the latest turns of held-out sessions, which are like those of logs."""
    lengths, sessions = outlook.lengths(("logs",)), min(probe.sessions, getattr(outlook.recipe.logs, probe.split))
    answered = [list(range(2, shape.turns + 1))[-probe.turns_per_session :] for shape in lengths.shapes]
    number = sessions * fmean(map(len, answered))
    read = sessions * fmean(sum(map(lengths.prompt, turns)) for turns in answered)
    return Calls("same writer", writer, number, read, number * min(lengths.answer, probe.decoding.max_tokens))


STAGES: dict[Stage, Callable[[Outlook], Planned]] = {
    "logs": _logs,
    "train-ask": _training("ask"),
    "collect": _collect,
    "negatives": _negatives,
    "train-sft": _training("sft"),
    "train-capo": _capo,
    "eval": _eval,
}


def _words(prompt: str) -> float:
    """The tokens of a prompt file of ours, or of the user's own."""
    own = Path(prompt.removeprefix("judge-").removesuffix(".txt"))
    file = own if own.suffix else locate(PROMPTS + prompt)
    if not file.exists():
        return 0.0
    text = file.read_text(encoding="utf-8")
    prompts = len(text.strip().splitlines()) if file.suffix == ".jsonl" else 1  # FastChat's: one of them is read
    return len(text.split()) / prompts * WORD


def _base(recipe: Recipe) -> str:
    try:
        here = locate(recipe.model.base).exists()
    except UserError as error:
        return f"{recipe.model.base} ({error.what})"
    held = "NF4" if recipe.model.load_in_4bit else recipe.model.dtype
    missing = " (not there)" if _no_hub_id(recipe.model.base) else " (from the hub, not checked)"
    return f"{recipe.model.base} in {held}{'' if here else missing}"
