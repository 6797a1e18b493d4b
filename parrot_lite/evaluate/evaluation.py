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
from parrot_lite.evaluate import bench, judge, play, report, written
from parrot_lite.evaluate.records import Played, Question
from parrot_lite.progress import progress, say
from parrot_lite.recipe import ChatSpec, Eval, Judge, Recipe
from parrot_lite.store import RunFolder, read, require, stage_folder
from parrot_lite.types import Judgment, derive_seed

ANSWERS = "answers.jsonl"
JUDGMENTS = "judgments.jsonl"


def run(recipe: Recipe, rerun: bool = False) -> None:
    """The whole stage. Raises UserError where calls failed; what did not is kept, and running again retries them."""
    questions = bench.pick(bench.load(recipe.eval.bench), recipe.eval.sessions)
    if recipe.eval.sessions is not None and recipe.eval.sessions > len(questions):
        say(f"eval: the benchmark has {len(questions)} sessions, eval.sessions asks for {recipe.eval.sessions}")
    if recipe.eval.probe is not None:
        bench.heldout(recipe, recipe.eval.probe)  # refuses too few now, not after hours of play
        if recipe.eval.probe.bench_from is not None and len(questions) < 2:
            what = "the probe swaps histories between sessions and needs two of the benchmark"
            raise UserError(what, "eval.probe.bench_from", "Raise eval.sessions, or leave it out")
    check_prices(recipe, _speakers(recipe.eval))
    with stage_folder(recipe, "eval", _inputs(recipe), rerun) as folder:
        if folder is not None:
            with Meter(recipe, folder.path) as meter:
                _play(recipe, folder, questions, meter)
                if recipe.eval.judge is not None:
                    _judge(recipe, recipe.eval.judge, folder, questions, meter)
                if recipe.eval.probe is not None:
                    written.run(recipe, recipe.eval.probe, folder, meter)
                folder.facts["calls"] = meter.facts()
            if recipe.eval.probe is not None:
                from parrot_lite.evaluate import probe  # needs torch

                probe.run(recipe, folder)
    report.show(recipe)


def _speakers(settings: Eval) -> list[ChatSpec]:
    found = [*settings.models.values()]
    if settings.judge is not None:
        found.append(settings.judge.chat)
    if settings.probe is not None and settings.probe.writer is not None:
        found.append(settings.probe.writer)
    return found


def _inputs(recipe: Recipe) -> dict[str, Path]:
    inputs = {"bench": bench.bench_file(recipe.eval.bench)}
    for name, spec in recipe.eval.models.items():
        inputs |= {f"model {name}: {key}": path for key, path in inputs_of(spec, recipe).items()}
    if recipe.eval.judge is not None:
        inputs |= {f"judge: {key}": path for key, path in inputs_of(recipe.eval.judge.chat, recipe).items()}
        inputs |= {f"prompt: {prompt.name}": prompt.path for prompt in judge.load_prompts(recipe.eval.judge.prompt)}
        inputs["prompt: repair"] = judge.REPAIR
    if recipe.eval.probe is not None:
        inputs["heldout"] = require(recipe, "logs") / "heldout.jsonl"
        if recipe.eval.probe.writer is not None:
            inputs |= {f"writer: {key}": path for key, path in inputs_of(recipe.eval.probe.writer, recipe).items()}
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
    with folder.journal(ANSWERS, Played, lambda one: (one.model, one.dialogue.id)) as journal:
        for model, spec in recipe.eval.models.items():
            todo = [question for question in questions if (model, question.id) not in journal]
            if not todo:
                continue
            done = len(questions) - len(todo)
            with _speaker(spec, recipe, meter) as chat, progress(f"{model} answers", len(questions), done) as bar:
                for group in play.play(model, chat, todo, recipe.eval.max_tokens, seed, play.in_flight(spec)):
                    for played in group:
                        if played.failed is None or played.lasting:
                            journal.append(played)
                        else:
                            failures.append(played.failed)
                    bar.advance(len(group), f"{len(failures)} failed" if failures else "")
        folder.counts["sessions"] = len(journal)
    folder.facts["tokens"] = sum(played.tokens or 0 for played in read(folder.path / ANSWERS, Played))  # generated
    _stop_where_failed(folder, failures, len(questions) * len(recipe.eval.models), "benchmark sessions")


def _judge(recipe: Recipe, spec: Judge, folder: RunFolder, questions: Sequence[Question], meter: Meter) -> None:
    played = list(read(folder.path / ANSWERS, Played))
    prompts = judge.load_prompts(spec.prompt)
    seed = derive_seed(recipe.run.seed, "eval", "judge")
    total = sum(len(question.queries) for question in questions) * len(recipe.eval.models)
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
