"""The command line: one verb a stage. The only place that reads argv."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from parrot_lite import __version__
from parrot_lite.errors import StageChanged, UserError
from parrot_lite.recipe import Detector, Recipe, Stage
from parrot_lite.recipe_file import load

app = typer.Typer(
    name="parrot",
    help="Reproduce Parrot (arXiv 2310.07301) on one card, or rehearse it on a CPU. One verb a stage; "
    "each takes a recipe and key=value overrides.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)

RecipeArgument = Annotated[str, typer.Argument(metavar="RECIPE", help="a TOML file")]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="KEY=VALUE", help="e.g. capo.beta=0.2; keys: parrot_lite/recipe.py")
]
Rerun = Annotated[bool, typer.Option("--rerun", help="discard this stage's result and start it again")]

DEMO = "recipes/demo.toml"
EXTRAS = {"llama_cpp": "gguf", "matplotlib": "report", "rapidfuzz": "report", "sklearn": "report"}


def _logs(recipe: Recipe, rerun: bool) -> None:
    from parrot_lite.collect import logs

    logs.run(recipe, rerun)


def _train_ask(recipe: Recipe, rerun: bool) -> None:
    from parrot_lite.train import sft

    sft.run(recipe, "train-ask", rerun)


def _collect(recipe: Recipe, rerun: bool) -> None:
    from parrot_lite.collect import loop

    loop.run(recipe, rerun)


def _negatives(recipe: Recipe, rerun: bool) -> None:
    from parrot_lite.collect import negatives

    negatives.run(recipe, rerun)


def _train_sft(recipe: Recipe, rerun: bool) -> None:
    from parrot_lite.train import sft

    sft.run(recipe, "train-sft", rerun)


def _train_capo(recipe: Recipe, rerun: bool) -> None:
    from parrot_lite.train import capo

    capo.run(recipe, rerun)


def _eval(recipe: Recipe, rerun: bool) -> None:
    from parrot_lite.evaluate import evaluation

    evaluation.run(recipe, rerun)


STAGES: dict[Stage, tuple[str, Callable[[Recipe, bool], None]]] = {
    "logs": ("Read human-assistant conversations, filter them, keep some apart.", _logs),
    "train-ask": ("Train Parrot-Ask, the model that plays the user.", _train_ask),
    "collect": ("Let asker and answerer talk: the paper's Parrot-40K.", _collect),
    "negatives": ("Pick context-dependent turns and write the three negatives for each.", _negatives),
    "train-sft": ("Train Parrot-Chat on the collected sessions.", _train_sft),
    "train-capo": ("Continue Parrot-Chat with CaPO against the negatives.", _train_capo),
    "eval": ("Play an n-turn benchmark, judge every turn, probe the use of context.", _eval),
}


def _verb(stage: Stage, purpose: str, run: Callable[[Recipe, bool], None]) -> None:
    @app.command(stage, help=purpose)
    def command(
        recipe: RecipeArgument = DEMO,
        overrides: Overrides = None,
        rerun: Rerun = False,
    ) -> None:
        run(_load(recipe, overrides), rerun)


for _stage, (_purpose, _run) in STAGES.items():
    _verb(_stage, _purpose, _run)


@app.command()
def report(recipe: RecipeArgument = DEMO, overrides: Overrides = None) -> None:
    """Print the tables of a finished evaluation; write table.md, and report.html with charts and transcripts."""
    from parrot_lite.evaluate import report as room

    room.run(_load(recipe, overrides))


@app.command()
def show(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="a JSONL file of dialogues or of session trees")],
    recipe: RecipeArgument = DEMO,
    overrides: Overrides = None,
    speaker: Annotated[str, typer.Option(help="whose tokens are trained: user or assistant")] = "assistant",
    number: Annotated[int, typer.Option(min=1, help="which line of the file, from 1")] = 1,
) -> None:
    """Show a dialogue as the model sees it, trained tokens coloured."""
    from parrot_lite import show as room

    room.run(file, _load(recipe, overrides), speaker, number)


@app.command()
def plan(
    recipe: RecipeArgument = DEMO,
    overrides: Overrides = None,
    query_tokens: Annotated[float, typer.Option(min=1, help="tokens of a query, where none was measured")] = 40,
    answer_tokens: Annotated[float, typer.Option(min=1, help="tokens of an answer, where none was measured")] = 270,
    verdict_tokens: Annotated[float, typer.Option(min=1, help="tokens of a judge's text")] = 150,
    call_seconds: Annotated[
        float, typer.Option(min=0, help="seconds of a server's call, where no rate was measured")
    ] = 5,
) -> None:
    """Show what every stage will take before anything runs: sessions, calls, tokens, cost, steps, hours.

    It names every file that a stage would read and that is not there yet.
    """
    from parrot_lite import plan as room
    from parrot_lite.estimate import Assumed

    room.show(_load(recipe, overrides), Assumed(query_tokens, answer_tokens, verdict_tokens, call_seconds))


@app.command()
def table(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="a TOML file")],
    name: Annotated[str, typer.Argument(metavar="TABLE", help="a name in recipes/tables/, or a TOML file")],
    overrides: Overrides = None,
    seed: Annotated[
        list[int] | None, typer.Option(min=0, help="a training seed, in place of the table's; may come several times")
    ] = None,
    row: Annotated[list[str] | None, typer.Option(help="run this row alone; may come several times")] = None,
) -> None:
    """Rerun a table of the paper, or a table of controls: what is missing, row by row. Exit code 1 where a row failed.

    Rows share every stage that they have in common. The result is <table>.md, with a verdict, in the table's folder.
    """
    from parrot_lite.tables import verb as room

    if not room.run(recipe, name, overrides or [], seed or [], row or []):
        raise typer.Exit(1)


@app.command()
def stats(
    files: Annotated[list[str] | None, typer.Argument(metavar="FILE", help="data sets: JSONL or JSON")] = None,
    name: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=FILE", help="a data set under another name, listed last; may come several times"),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="a folder for stats.md, stats.json and plots")] = None,
    sessions: Annotated[int | None, typer.Option(min=1, help="draw so many sessions of each")] = None,
    chunks: Annotated[bool, typer.Option("--chunks", help="count ShareGPT's chunks, not its conversations")] = False,
    seed: Annotated[int, typer.Option(min=0, help="seed of the draw")] = 0,
) -> None:
    """Compare data sets: the paper's Table 1, words, and what askers should not say."""
    from parrot_lite.collect import compare

    compare.run(files or [], name or [], out, sessions, chunks, seed)


@app.command("asker-report")
def asker_report(recipe: RecipeArgument = DEMO, overrides: Overrides = None) -> None:
    """Measure the asker against real users: held-out likelihood, ends of turns, whether its queries can be told."""
    from parrot_lite.evaluate import asker

    asker.run(_load(recipe, overrides))


@app.command("judge-check")
def judge_check(
    recipe: RecipeArgument = DEMO,
    overrides: Overrides = None,
    items: Annotated[int, typer.Option(min=2, help="turns that are judged, eleven times each")] = 24,
    model: Annotated[str | None, typer.Option(help="whose answers are judged; none = the first of eval.models")] = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="JSONL, one scored answer a line: id, category, turns (messages, the answer last), score (1 to 10), "
            "reference",
        ),
    ] = None,
) -> None:
    """Check the judge of a finished evaluation: does it punish what it must, does it waver, does it favour length."""
    from parrot_lite.evaluate import judge_check as room

    room.run(_load(recipe, overrides), items, model, labels)


@app.command("context-check")
def context_check(
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE",
            help="JSONL, one query a line: id, source, turn, history, query, rewrite, label (0/1), "
            "label_strict (0/1/null)",
        ),
    ],
    others: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="FILE | RECIPE | KEY=VALUE",
            help="more files; a TOML file, for the other detectors; keys: parrot_lite/recipe.py",
        ),
    ] = None,
    detector: Annotated[Detector, typer.Option(help="which of the three, as negatives.dependence sets it")] = "rules",
    half: Annotated[Literal["dev", "test"] | None, typer.Option(help="rules were designed on dev alone")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="rows drawn by seed; none = all")] = None,
    out: Annotated[Path | None, typer.Option(help="write the figures to this JSON file as well")] = None,
) -> None:
    """Check a detector of context dependence against labelled queries and their human rewrites."""
    from parrot_lite import check as room

    overrides = [one for one in others or [] if "=" in one]
    recipes = [one for one in others or [] if one.endswith(".toml") and one not in overrides]
    files = [Path(file), *(Path(one) for one in others or [] if one not in overrides and one not in recipes)]
    needed = detector != "rules" or recipes or overrides
    recipe = _load(recipes[-1] if recipes else DEMO, overrides) if needed else None
    room.run(files, recipe, detector, half, limit, out)


@app.command()
def overlap(
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE", help="data: dialogues, trees, messages, exports, or text, one a line"),
    ],
    against: Annotated[
        list[str] | None, typer.Option("--with", help="a benchmark file beside the bundled one; may come several times")
    ] = None,
    answers: Annotated[
        bool, typer.Option("--answers", help="compare the data's answers with the queries, too")
    ] = False,
) -> None:
    """Say which queries of FILE... a benchmark shares: equal, or 13 words in a row. Exit code 1 where any does."""
    from parrot_lite.collect import overlap as room

    if room.run(files, against or [], answers):
        raise typer.Exit(1)


@app.command("bench-check")
def bench_check(
    file: Annotated[str, typer.Argument(metavar="FILE", help="a benchmark, as eval.bench takes it")] = "bundled",
    against: Annotated[
        list[str] | None,
        typer.Option("--against", help="another benchmark that it must share nothing with; may come several times"),
    ] = None,
) -> None:
    """Check a benchmark: labels, entities, distances, repeated wording, English. Exit code 1 where a rule is broken."""
    from parrot_lite.evaluate import bench_check as room

    if room.run(file, against or []):
        raise typer.Exit(1)


@app.command("export-data")
def export_data(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE", help="dialogues.jsonl, or trees.jsonl of the stage negatives")
    ],
    out: Annotated[Path, typer.Option(help="the JSONL file to write; its card is README.md beside it")],
    form: Annotated[str, typer.Option("--format", help="messages, sharegpt, trl-preference or dialogues")] = "messages",
    source: Annotated[str | None, typer.Option(help="sessions of this source alone, e.g. collect:ultrachat")] = None,
) -> None:
    """Write data for other programs, with a card that says where it comes from."""
    from parrot_lite.collect import export as room

    room.run(files, out, form, source)


@app.callback(invoke_without_command=True)
def _options(
    version: Annotated[bool, typer.Option("--version", help="print the version")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="show the traceback of an error")] = False,
) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit


def _load(recipe: str, overrides: list[str] | None) -> Recipe:
    # `parrot eval capo.beta=0.2` means the demo with an override, not a file of that name.
    if "=" in recipe:
        recipe, overrides = DEMO, [recipe, *(overrides or [])]
    if recipe == DEMO and not Path(DEMO).exists():  # most likely nobody named it
        raise UserError("no such recipe", DEMO, "Name a recipe; the shipped ones are in recipes/ of the checkout")
    return load(recipe, overrides or [])


def main() -> None:
    """Run; an error that a user can cause is one line on standard error and exit code 2."""
    debug = "--debug" in sys.argv
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    # Progress of libraries would break ours into pieces.
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # With several cards in sight the Trainer multiplies the batch by their number; this kit is for one.
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")
    try:
        app(arguments)
    except UserError as error:
        _fail(str(error), error, debug)
    except SystemExit as end:
        if end.code == 130:  # what typer makes of Ctrl-C, without a word
            print("\nstopped; the same command continues where it was", file=sys.stderr)
        raise
    except ModuleNotFoundError as error:
        package = (error.name or "").split(".")[0]
        extra = EXTRAS.get(package, "train")
        fix = f"Run make setup, or in the checkout: pip install '.[{extra}]'"
        _fail(f"the package {package} is not installed. {fix}", error, debug)
    except Exception as error:
        if type(error).__name__ == "OutOfMemoryError":
            _fail("the card's memory is full. Lower batch or max_tokens; what is done is kept", error, debug)
        if isinstance(error, OSError) and (error.filename is not None or error.errno == errno.ENOSPC):
            fix = "Mend the path, its permissions, or make room on the disk"
            _fail(f"{error.filename or 'the disk'}: {error.strerror}. {fix}", error, debug)
        text = " ".join(f"{type(error).__name__}: {error}".split())
        _fail(f"{text[:300]}. This is a defect of parrot_lite or of a library; --debug shows where", error, debug)


def _fail(line: str, error: Any, debug: bool) -> None:
    if debug:
        raise error
    print(f"parrot: {line}", file=sys.stderr)
    if isinstance(error, StageChanged):
        print(error.difference, file=sys.stderr)
    sys.exit(2)
