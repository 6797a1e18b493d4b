"""``parrot eval``: play the benchmark with each model, judge every turn, probe, and print the table.

Speakers are opened one at a time. Answers, verdicts and likelihoods are appended as they come; a run that was
interrupted, or whose calls failed, goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from parrot_lite.chat import Chat, all_at_once, inputs_of, open_chat
from parrot_lite.chat.meter import Meter, check_prices
from parrot_lite.errors import UserError
from parrot_lite.evaluate import bench, judge, play, report
from parrot_lite.evaluate.records import Played, Question, player
from parrot_lite.progress import progress, say
from parrot_lite.recipe import ChatSpec, Judge, Recipe
from parrot_lite.store import RunFolder, read, require, stage_folder, write_atomically
from parrot_lite.types import Judgment, derive_seed

ANSWERS = "answers.jsonl"
JUDGMENTS = "judgments.jsonl"


def run(recipe: Recipe, rerun: bool = False) -> None:
    """The whole stage. Raises UserError where calls failed; what did not is kept, and running again retries them."""
    questions = bench.pick(bench.load(recipe.eval.bench, recipe.eval.reference_answers), recipe.eval.sessions)
    if recipe.eval.sessions is not None and recipe.eval.sessions > len(questions):
        say(f"eval: the benchmark has {len(questions)} sessions, eval.sessions asks for {recipe.eval.sessions}")
    _check_history(recipe, questions)
    if recipe.eval.probe is not None:
        bench.heldout(recipe, recipe.eval.probe)  # refuses too few now, not after hours of play
    check_prices(recipe, [*recipe.eval.models.values(), *([recipe.eval.judge.chat] if recipe.eval.judge else [])])
    with stage_folder(recipe, "eval", _inputs(recipe), rerun) as folder:
        if folder is not None:
            kept = "".join(question.model_dump_json(exclude_none=True) + "\n" for question in questions)
            write_atomically(folder.path / bench.QUESTIONS, kept)
            with Meter(recipe, folder.path) as meter:
                _play(recipe, folder, questions, meter)
                if recipe.eval.judge is not None:
                    _judge(recipe, recipe.eval.judge, folder, questions, meter)
                folder.facts["calls"] = meter.facts()
            if recipe.eval.probe is not None:
                from parrot_lite.evaluate import probe  # needs torch

                probe.run(recipe, folder)
    report.show(recipe)


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


def _inputs(recipe: Recipe) -> dict[str, Path]:
    inputs = bench.inputs(recipe.eval)
    for name, spec in recipe.eval.models.items():
        inputs |= {f"model {name}: {key}": path for key, path in inputs_of(spec, recipe).items()}
    if recipe.eval.judge is not None:
        inputs |= {f"judge: {key}": path for key, path in inputs_of(recipe.eval.judge.chat, recipe).items()}
        inputs |= {f"prompt: {prompt.name}": prompt.path for prompt in judge.load_prompts(recipe.eval.judge.prompt)}
        inputs["prompt: repair"] = judge.REPAIR
    if recipe.eval.probe is not None:
        inputs["heldout"] = require(recipe, "logs") / "heldout.jsonl"
    return inputs


@contextmanager
def _speaker(spec: ChatSpec, recipe: Recipe, meter: Meter) -> Iterator[Chat]:
    chat = open_chat(spec, recipe, meter)
    try:
        yield chat
    finally:
        chat.close()


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
            with _speaker(spec, recipe, meter) as chat:
                for history, sessions in todo.items():
                    done = len(whole[history]) - len(sessions)
                    with progress(f"{player(model, history)} answers", len(whole[history]), done) as bar:
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
    prompts = judge.load_prompts(spec.prompt)
    seed = derive_seed(recipe.run.seed, "eval", "judge")
    asked = [one for history in recipe.eval.history for one in bench.playable(questions, history)]
    total = sum(len(question.queries) for question in asked) * len(recipe.eval.models)
    failures: list[str] = []
    with folder.journal(JUDGMENTS, Judgment, lambda one: (one.model, one.dialogue, one.turn)) as journal:
        done = len(journal)
        if done < total:
            with _speaker(spec.chat, recipe, meter) as chat, progress("verdicts", total, done) as bar:
                width = total if all_at_once(spec.chat) else play.in_flight(spec.chat)
                for group in judge.judge(played, questions, chat, prompts, spec, seed, width, journal):
                    for judgment in group:
                        if judge.retry(judgment):
                            failures.append(judgment.reason or "")
                        else:
                            journal.append(judgment)
                    bar.advance(len(group), f"{len(failures)} failed" if failures else "")
        folder.counts["turns"] = len(journal)
    folder.counts["judged"] = sum(one.score is not None for one in read(folder.path / JUDGMENTS, Judgment))
    _stop_where_failed(folder, failures, total, "verdicts")


def _stop_where_failed(folder: RunFolder, failures: Sequence[str], total: int, what: str) -> None:
    if failures:
        raise UserError(
            f"{len(failures)} of {total} {what} failed, the first because: {failures[0]}",
            str(folder.path),
            "The others are kept; run it again to retry these",
        )
