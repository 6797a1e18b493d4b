"""``parrot eval``: play the benchmark with each model, judge every turn, probe, and print the table.

Speakers are opened one at a time. Answers, verdicts and likelihoods are appended as they come; a run that was
interrupted, or whose calls failed, goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

from parrot_lite.chat import all_at_once, inputs_of, lanes, open_chat
from parrot_lite.chat.meter import Meter, check_prices
from parrot_lite.errors import UserError
from parrot_lite.evaluate import bench, judge, pairwise, play, report, written
from parrot_lite.evaluate.prompts import load_prompts
from parrot_lite.evaluate.records import ANSWERS, COMPARISONS, JUDGMENTS, Comparison, Played, Question, player
from parrot_lite.progress import Bar, progress, say
from parrot_lite.recipe import ChatSpec, Eval, Judge, Local, Recipe
from parrot_lite.store import Journal, RunFolder, existing_file, read, stage_folder, write_atomically
from parrot_lite.types import Judgment, derive_seed

GIVE_UP = 64  # failed verdicts in a row

V = TypeVar("V", Judgment, Comparison)


def run(recipe: Recipe, rerun: bool = False) -> None:
    """The whole stage. Raises UserError where calls failed; what did not is kept, and running again retries them."""
    questions = bench.pick(bench.load(recipe.eval.bench, recipe.eval.reference_answers), recipe.eval.sessions)
    if recipe.eval.sessions is not None and recipe.eval.sessions > len(questions):
        say(f"eval: the benchmark has {len(questions)} sessions, eval.sessions asks for {recipe.eval.sessions}")
    if recipe.eval.judge is not None:
        judge.check(recipe.eval.judge, questions)
    _check_history(recipe, questions)
    if recipe.eval.probe is not None:
        _check_local(recipe)
        bench.heldout(recipe, recipe.eval.probe)  # refuses too few now, not after hours of play
        if recipe.eval.probe.bench_from is not None and len(questions) < 2:
            what = "the probe swaps histories between sessions and needs two of the benchmark"
            raise UserError(what, "eval.probe.bench_from", "Raise eval.sessions, or leave it out")
    check_prices(recipe, _speakers(recipe.eval))
    with stage_folder(recipe, "eval", _inputs(recipe), rerun) as folder:
        if folder is not None:
            kept = "".join(question.model_dump_json(exclude_none=True) + "\n" for question in questions)
            write_atomically(folder.path / bench.QUESTIONS, kept)
            if recipe.eval.probe is not None:
                from parrot_lite.evaluate import probe  # needs torch

                probe.check(recipe, recipe.eval.probe)
            with Meter(recipe, folder.path) as meter:
                _play(recipe, folder, questions, meter)
                if recipe.eval.judge is not None:
                    _judge(recipe, recipe.eval.judge, folder, questions, meter)
                    _compare(recipe, recipe.eval.judge, folder, questions, meter)
                if recipe.eval.probe is not None:
                    written.run(recipe, recipe.eval.probe, folder, meter)
                folder.facts["calls"] = meter.facts()
            if recipe.eval.probe is not None:
                probe.run(recipe, folder)
    report.run(recipe, brief=True)


def _speakers(settings: Eval) -> list[ChatSpec]:
    found = [*settings.models.values()]
    if settings.judge is not None:
        found.append(settings.judge.chat)
    if settings.probe is not None and settings.probe.writer is not None:
        found.append(settings.probe.writer)
    return found


def _check_history(recipe: Recipe, questions: Sequence[Question]) -> None:
    """Say which sessions a reference history leaves out. Raises UserError where those are all."""
    if "reference" not in recipe.eval.history:
        return
    found = len(bench.playable(questions, "reference"))
    if not found:
        what = "no session of the benchmark has a reference answer to each turn but its last"
        raise UserError(what, "eval.history", "Leave reference out, or name eval.reference_answers")
    if found < len(questions):
        say(f"eval: {len(questions) - found} of {len(questions)} sessions have no reference history and are left out")


def _check_local(recipe: Recipe) -> None:
    """Raises UserError where the probe has nobody to score: before it asks for held-out sessions."""
    if not any(isinstance(spec, Local) for spec in recipe.eval.models.values()):
        what = "the probe scores models of kind local, and eval.models has none"
        raise UserError(what, "eval.probe", 'Write probe = "none" under [eval], or eval.probe=none as an override')


def _inputs(recipe: Recipe) -> dict[str, Path]:
    inputs = bench.inputs(recipe.eval)
    for name, spec in recipe.eval.models.items():
        inputs |= {f"model {name}: {key}": path for key, path in inputs_of(spec, recipe).items()}
    if recipe.eval.judge is not None:
        inputs |= {f"judge: {key}": path for key, path in inputs_of(recipe.eval.judge.chat, recipe).items()}
        inputs |= judge.inputs(recipe.eval.judge)
    if recipe.eval.probe is not None:
        inputs[recipe.eval.probe.split] = bench.heldout_file(recipe, recipe.eval.probe)
        if recipe.eval.probe.trees is not None:
            inputs["trees"] = existing_file(Path(recipe.eval.probe.trees), "eval.probe.trees")
        if recipe.eval.probe.writer is not None:
            inputs |= {f"writer: {key}": path for key, path in inputs_of(recipe.eval.probe.writer, recipe).items()}
    return inputs


def _play(recipe: Recipe, folder: RunFolder, questions: Sequence[Question], meter: Meter) -> None:
    failures: list[str] = []
    seed = derive_seed(recipe.run.seed, "eval", "play")
    whole = {history: bench.playable(questions, history) for history in recipe.eval.history}
    if left_out := len(questions) - min(map(len, whole.values())):
        folder.counts["sessions without a reference history"] = left_out
    with folder.journal(ANSWERS, Played, lambda one: (one.model, one.dialogue.id)) as journal:
        for model, spec in recipe.eval.models.items():
            todo = {
                history: [one for one in sessions if (player(model, history), one.id) not in journal]
                for history, sessions in whole.items()
            }
            if not any(todo.values()):
                continue
            with closing(open_chat(spec, recipe, meter)) as chat:
                for history, sessions in todo.items():
                    done = len(whole[history]) - len(sessions)
                    with progress(f"{player(model, history)} answers", len(whole[history]), done) as bar:
                        bar.announce()
                        for played in play.play(model, chat, spec, sessions, recipe.eval.max_tokens, seed, history):
                            if played.failed is None or played.lasting:
                                journal.append(played)
                            else:
                                failures.append(played.failed)
                            bar.advance(1, f"{len(failures)} failed" if failures else "")
        folder.counts["sessions"] = len(journal)
    folder.facts["tokens"] = sum(played.tokens or 0 for played in read(folder.path / ANSWERS, Played))  # generated
    total = sum(map(len, whole.values())) * len(recipe.eval.models)
    _stop_where_failed(folder, failures, total, "benchmark sessions")


def _judge(recipe: Recipe, spec: Judge, folder: RunFolder, questions: Sequence[Question], meter: Meter) -> None:
    played = list(read(folder.path / ANSWERS, Played))
    prompts = load_prompts(spec.prompt)
    seed = derive_seed(recipe.run.seed, "eval", "judge")
    asked = [one for history in recipe.eval.history for one in bench.playable(questions, history)]
    questions = judge.with_references(questions, spec)
    total = sum(len(question.queries) for question in asked) * len(recipe.eval.models)
    failures: list[str] = []
    with folder.journal(JUDGMENTS, Judgment, lambda one: (one.model, one.dialogue, one.turn)) as journal:
        done = len(journal)
        if done < total:
            with (
                closing(open_chat(spec.chat, recipe, meter)) as chat,
                progress("verdicts", total, done) as bar,
            ):
                bar.announce()
                at_once = (1, total) if all_at_once(spec.chat) else lanes(spec.chat)
                groups = judge.judge(played, questions, chat, prompts, spec, seed, at_once, journal)
                failures = keep(groups, journal, bar)
        folder.counts["turns"] = len(journal)
    folder.counts["judged"] = sum(one.score is not None for one in read(folder.path / JUDGMENTS, Judgment))
    _stop_where_failed(folder, failures, total, "verdicts")
    sessions = [question.id for question in questions]
    players = [player(model, history) for history in recipe.eval.history for model in recipe.eval.models]
    _put_in_order(
        folder.path / JUDGMENTS,
        Judgment,
        lambda one: (sessions.index(one.dialogue), players.index(one.model), one.turn),
    )


def _compare(recipe: Recipe, spec: Judge, folder: RunFolder, questions: Sequence[Question], meter: Meter) -> None:
    if not spec.pairs:
        return
    played = list(read(folder.path / ANSWERS, Played))
    prompts = load_prompts(spec.pair_prompt, pair=True)
    seed = derive_seed(recipe.run.seed, "eval", "compare")
    asked = [one for history in recipe.eval.history for one in bench.playable(questions, history)]
    total = sum(len(question.queries) for question in asked) * len(spec.pairs)
    pairs = [(player(a, history), player(b, history)) for history in recipe.eval.history for a, b in spec.pairs]
    questions = judge.with_references(questions, spec)
    failures: list[str] = []
    with folder.journal(
        COMPARISONS, Comparison, lambda one: (one.model_a, one.model_b, one.dialogue, one.turn)
    ) as journal:
        done = len(journal)
        if done < total:
            with (
                closing(open_chat(spec.chat, recipe, meter)) as chat,
                progress("comparisons", total, done) as bar,
            ):
                bar.announce()
                at_once = (1, total) if all_at_once(spec.chat) else lanes(spec.chat)
                groups = pairwise.compare(played, questions, pairs, chat, prompts, spec, seed, at_once, journal)
                failures = keep(groups, journal, bar)
        folder.counts["comparisons"] = len(journal)
    _stop_where_failed(folder, failures, total, "comparisons")
    sessions = [question.id for question in questions]
    _put_in_order(
        folder.path / COMPARISONS,
        Comparison,
        lambda one: (sessions.index(one.dialogue), pairs.index((one.model_a, one.model_b)), one.turn),
    )


def keep(groups: Generator[Sequence[V]], journal: Journal[V], bar: Bar) -> list[str]:
    """Write down verdicts as they come; the reasons of those that are to be asked for again.

    Stops where so many calls fail in a row that nobody seems to answer.
    """
    failures: list[str] = []
    in_a_row = 0
    with closing(groups):
        for group in groups:
            for verdict in group:
                if verdict.again:
                    failures.append(verdict.reason or "")
                    in_a_row += 1
                else:
                    journal.append(verdict)
                    in_a_row = 0
            bar.advance(len(group), f"{len(failures)} failed" if failures else "")
            if in_a_row >= GIVE_UP:
                break
    return failures


def _put_in_order(path: Path, kind: type[V], key: Callable[[V], Any]) -> None:
    """Rewrite a file in an order of its records' own: verdicts come in that of a server's answers."""
    records = sorted(read(path, kind), key=key)
    write_atomically(path, "".join(record.model_dump_json(exclude_none=True) + "\n" for record in records))


def _stop_where_failed(folder: RunFolder, failures: Sequence[str], total: int, what: str) -> None:
    if failures:
        raise UserError(
            f"{len(failures)} of {total} {what} failed, the first because: {failures[0]}",
            str(folder.path),
            "The others are kept; run it again to retry these",
        )
