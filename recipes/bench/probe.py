"""How fast the probe scores a session's answers under five histories: one token tree, or a row for every answer.

    .venv/bin/python recipes/bench/probe.py --quick       # a small cell, one round: proves that it runs
    .venv/bin/python recipes/bench/probe.py               # two cells, three rounds

Sessions of real words in no real order (workload.py), read by the demo's 135M model. Both ways score the same variants;
they take turns within a round, the first of them alternating. Ratios are taken within a round, medians over rounds.

  rows   one forward pass a variant, logits at its answer alone
  tree   what the probe does: a session's variants laid down once, as many sessions a pass as tree_tokens hold

Tokens are those that go through the model. Seconds count laying down, which tokenises, and scoring, not loading; cpu s
are the processor's, of all threads: where others share the machine those of one thread say more.
"apart" is the largest distance between the two ways, in nats a token.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Sequence
from datetime import date
from functools import partial
from itertools import islice
from operator import truediv
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parent))
from speed import commit, device
from workload import recipe, sessions

from parrot_lite.evaluate.probe import laid_down, loaded, scored
from parrot_lite.evaluate.variants import Variant, of_logs
from parrot_lite.lm.model import load_for_inference, load_renderer
from parrot_lite.lm.tokens import Renderer
from parrot_lite.recipe import Local, Probe
from parrot_lite.store import RunFolder

CELLS = ("4,2,60", "8,4,180")  # the demo's shape, and the paper's longer sessions
HEAD = ("tokens, rows", "tree", "fewer", "s, rows", "tree", "faster", "cpu s, rows", "tree", "less", "apart")
Likelihoods = dict[tuple[str, int, str, str], float]  # by variant, nats a token
Way = Callable[[], tuple[Likelihoods, int]]  # and tokens


def table(
    quick: Annotated[bool, typer.Option(help="one small cell, one round")] = False,
    cell: Annotated[list[str] | None, typer.Option(help="turns,scored turns,answer tokens; may be repeated")] = None,
    count: Annotated[int, typer.Option("--sessions", help="sessions a round")] = 4,
    precision: Annotated[str, typer.Option(help="fp32, bf16 or nf4")] = "bf16",
    tree_tokens: Annotated[int, typer.Option(help="of a forward pass")] = 8192,
    threads: Annotated[int, typer.Option(help="of the processor")] = torch.get_num_threads(),
    rounds: Annotated[int | None, typer.Option(help="counted rounds")] = None,
    out: Annotated[Path, typer.Option(help="folder of probe.md")] = Path("runs/bench"),
) -> None:
    """Measure each cell and print the table."""
    cells = cell or (["3,2,20"] if quick else list(CELLS))
    rounds = rounds or (1 if quick else 3)
    lines = [
        f"{device()}, {threads} threads, {date.today()}, commit {commit()}; SmolLM2-135M in {precision}.",
        f"{count} sessions a round, {rounds} rounds behind one that does not count; medians, ratios within rounds.",
        "",
        f"| turns, scored, answer | variants | {' | '.join(HEAD)} |",
        "|---|" + "---:|" * (1 + len(HEAD)),
    ]
    torch.set_num_threads(threads)
    made = recipe(precision)
    renderer = load_renderer(made.model)
    plain = load_for_inference(made.model, None)
    model = loaded(made, Local(kind="local"), tree_tokens)
    for shape in cells:
        turns, dependent, answer = map(int, shape.split(","))
        settings = Probe(turns_per_session=dependent, max_tokens=tree_tokens, tree_tokens=tree_tokens)
        logs = [tree.dialogue for tree in islice(sessions(renderer, turns, dependent, answer), count)]
        variants = list(of_logs(logs, {}, settings, 0))
        ways: dict[str, Way] = {
            "rows": partial(by_rows, plain, renderer, variants),
            "tree": partial(by_tree, model, renderer, variants, settings),
        }
        lines.append(f"| {shape} | {measured(ways, rounds)} |")
        print(lines[-1], file=sys.stderr, flush=True)
    out.mkdir(parents=True, exist_ok=True)
    text = "\n".join(lines) + "\n"
    (out / "probe.md").write_text(text)
    print(text)


def measured(ways: dict[str, Way], rounds: int) -> str:
    """The cells of one row of the table."""
    walls: dict[str, list[float]] = {name: [] for name in ways}
    burnt: dict[str, list[float]] = {name: [] for name in ways}
    tokens: dict[str, int] = {}
    found: dict[str, Likelihoods] = {}
    for number in range(rounds + 1):
        for name in list(ways) if number % 2 else reversed(list(ways)):
            wall, cpu = time.perf_counter(), time.process_time()
            found[name], tokens[name] = ways[name]()
            walls[name].append(time.perf_counter() - wall)
            burnt[name].append(time.process_time() - cpu)
            print(f"  round {number}: {name} {walls[name][-1]:.1f} s", file=sys.stderr, flush=True)
    cells = [f"{len(found['rows']):,}", *(f"{tokens[name]:,}" for name in ways)]
    cells.append(f"{tokens['rows'] / tokens['tree']:.2f}")
    for seconds in (walls, burnt):
        counted = {name: times[1:] for name, times in seconds.items()}
        cells += (f"{statistics.median(times):.1f}" for times in counted.values())
        cells.append(f"{statistics.median(map(truediv, counted['rows'], counted['tree'])):.2f}")
    apart = max(abs(found["rows"][key] - found["tree"][key]) for key in found["rows"])
    return " | ".join([*cells, f"{apart:.1e}"])


@torch.inference_mode()
def by_rows(model: Any, renderer: Renderer, variants: Sequence[Sequence[Variant]]) -> tuple[Likelihoods, int]:
    """A forward pass for every variant."""
    found: Likelihoods = {}
    tokens = 0
    for variant in (one for session in variants for one in session):
        prompt, answer = renderer.row(variant.context, variant.text)
        ids = torch.tensor([prompt + answer], device=model.device)
        # Logits only where they are needed: over a whole row they would be the largest tensor there is.
        logits = model(input_ids=ids, logits_to_keep=len(answer) + 1, use_cache=False).logits[0, :-1]
        found[variant.key] = F.cross_entropy(logits.float(), ids[0, -len(answer) :]).item()
        tokens += ids.shape[1]
    return found, tokens


def by_tree(
    model: Any, renderer: Renderer, variants: Sequence[Sequence[Variant]], settings: Probe
) -> tuple[Likelihoods, int]:
    """As the probe does it."""
    batches = laid_down(renderer, variants, settings, RunFolder(Path(), "eval"))
    records = [one for batch in batches for one in scored(model, "bench", batch)]
    found: Likelihoods = {(one.dialogue, one.turn, one.answer, one.condition): one.nll / one.tokens for one in records}
    return found, sum(len(batch.tree) for batch in batches)


if __name__ == "__main__":
    typer.run(table)
