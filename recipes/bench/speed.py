"""How fast the layouts of CaPO and of SFT train, side by side: one table, and the same as JSON.

    .venv/bin/python recipes/bench/speed.py --quick            # two small cells, 6 layers: proves that it runs
    .venv/bin/python recipes/bench/speed.py --cell 8,3,180     # one cell of the grid
    .venv/bin/python recipes/bench/speed.py                    # the whole grid: hours on 2 cores; resumes
    .venv/bin/python recipes/bench/speed.py --base FOLDER      # another model; shape.py writes one of 7B or 13B

Every layout is a real training run of its real trainer in a process of its own. The processes take turns, step by step:
in each round every layout makes one optimizer step on the same session, in a rotating order, while the others wait.
It is the same session in every round. Ratios are taken within a round, and medians over rounds. The first round warms
up and is not counted.

  pairs    TRL's DPOTrainer, one pair a forward pass, reference precomputed: the usual way
  rows     a row an answer, each chosen answer once for all its negatives, no padding, this kit's LM head
  tree     the session tree
  trl      TRL's SFTTrainer
  speaker  this kit's SFT, over the same session

What to read from it. The ceiling is the ratio of tokens. Against ``rows`` nothing differs but the layout. Against
``pairs`` and ``trl`` the LM head differs, too: on a processor, where TRL has no fused kernel, its head runs at every
token, padding included, and partly in float32; on a card that is not so. Seconds count forward, backward and optimizer;
collating and reference are outside. The peak is that of the whole process, with loading and the reference's log-probs.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import date
from importlib.metadata import version
from itertools import islice, product
from pathlib import Path
from typing import Annotated, Any

import typer

sys.path.insert(0, str(Path(__file__).parent))
from workload import recipe as recipe_of
from workload import sessions

CAPO, SFT = ("tree", "rows", "pairs"), ("speaker", "trl")
GRID = list(product((4, 8), (1, 3, 4), (90, 180, 300)))  # turns, dependent turns, answer tokens
COUNTED, QUICK_COUNTED = 5, 3
QUICK = [(4, 1, 90), (4, 3, 90)]
QUICK_LAYERS = 6


def table(
    quick: Annotated[bool, typer.Option(help="two small cells on 6 of the model's layers")] = False,
    cell: Annotated[list[str] | None, typer.Option(help="turns,dependent turns,answer tokens; may be repeated")] = None,
    precision: Annotated[str, typer.Option(help="fp32, bf16 or nf4")] = "bf16",
    checkpointing: Annotated[bool, typer.Option(help="recompute activations in every layout")] = False,
    layers: Annotated[int | None, typer.Option(help="keep only the model's first layers")] = None,
    base: Annotated[str | None, typer.Option(help="folder of another model than the demo's")] = None,
    memory: Annotated[float | None, typer.Option(help="GiB of the card that a layout may take, no more")] = None,
    rounds: Annotated[int | None, typer.Option(help="counted steps of each layout")] = None,
    without: Annotated[list[str] | None, typer.Option(help="a layout to leave out; may be repeated")] = None,
    out: Annotated[Path, typer.Option(help="folder of speed.json and speed.md")] = Path("runs/bench"),
) -> None:
    """Measure what is missing in ``out`` and print the table."""
    cells = [tuple(map(int, text.split(","))) for text in cell or []] or (QUICK if quick else GRID)
    layers = layers or (QUICK_LAYERS if quick else None)
    if memory is not None and not _card():
        raise typer.BadParameter("there is no card whose memory could be held down", param_hint="--memory")
    rounds = rounds or (QUICK_COUNTED if quick else COUNTED)
    out.mkdir(parents=True, exist_ok=True)
    file = out / "speed.json"
    rows: list[dict[str, Any]] = json.loads(file.read_text())["rows"] if file.exists() else []
    setting = {"precision": precision, "checkpointing": checkpointing, "layers": layers, "rounds": rounds, "base": base}
    setting["memory"] = memory
    for turns, depend, tokens in cells:
        for stage, layouts in (("capo", CAPO), ("sft", SFT)):
            layouts = tuple(layout for layout in layouts if layout not in (without or ()))
            what = {"stage": stage, "turns": turns, "answer_tokens": tokens, **setting}
            what |= {"dependent": depend} if stage == "capo" else {}  # SFT knows no dependent turns
            what |= {"device": device(), "commit": commit(), "packages": packages()}
            if any(all(row.get(key) == value for key, value in what.items()) for row in rows):
                continue
            print(f"{date.today()} {what}", file=sys.stderr, flush=True)
            rows.append({**what, **measure(layouts, (turns, depend, tokens), setting)})
            file.write_text(json.dumps({"rows": rows}, indent=1) + "\n")
    text = rendered(rows)
    (out / "speed.md").write_text(text)
    print(text)


def measure(layouts: tuple[str, ...], cell: tuple[int, ...], setting: dict[str, Any]) -> dict[str, Any]:
    """Run the layouts against each other on one cell; ``setting["rounds"]`` rounds are counted."""
    rounds = setting["rounds"] + 1
    with tempfile.TemporaryDirectory() as folder:
        job = {"cell": cell, **setting, "rounds": rounds}
        workers = {}
        for layout in layouts:
            workers[layout] = subprocess.Popen(
                [sys.executable, __file__, "work", json.dumps({**job, "layout": layout, "folder": folder})],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            hello(workers[layout])  # one after the other: loading must not disturb loading
        steps: dict[str, list[dict[str, Any]]] = {layout: [] for layout in layouts}
        for number in range(rounds):
            order = layouts[number % len(layouts) :] + layouts[: number % len(layouts)]
            for layout in order:
                steps[layout].append(ask(workers[layout]))
            line = ", ".join(f"{layout} {steps[layout][-1]['seconds']:.1f} s" for layout in layouts)
            print(f"  round {number}: {line}", file=sys.stderr, flush=True)
        for worker in workers.values():
            worker.stdin.close()
            worker.wait()
    found: dict[str, Any] = {"date": str(date.today())}
    for layout in layouts:
        counted = steps[layout][1:]
        found[layout] = {
            "tokens": round(statistics.median(step["tokens"] for step in counted)),
            "seconds": round(statistics.median(step["seconds"] for step in counted), 3),
            "steps": [round(step["seconds"], 3) for step in counted],
            "losses": [round(step["loss"], 6) for step in counted],
            "peak_mb": max(step["peak_mb"] for step in steps[layout]),
        }
    ours = layouts[0]
    for other in layouts[1:]:
        pairs = list(zip(steps[ours][1:], steps[other][1:], strict=True))
        found[f"{ours} against {other}"] = {
            "ratio": round(statistics.median(b["seconds"] / a["seconds"] for a, b in pairs), 3),
            "token_ratio": round(statistics.median(b["tokens"] / a["tokens"] for a, b in pairs), 3),
            "largest_loss_difference": max(abs(a["loss"] - b["loss"]) for a, b in pairs),
        }
    return found


def hello(worker: Any) -> dict[str, Any]:
    """The next line of a worker."""
    line = worker.stdout.readline()
    if not line:
        raise SystemExit(f"a layout's process ended with {worker.wait()}")
    found: dict[str, Any] = json.loads(line)
    return found


def ask(worker: Any) -> dict[str, Any]:
    """One step of a worker."""
    worker.stdin.write("step\n")
    worker.stdin.flush()
    return hello(worker)


def rendered(rows: list[dict[str, Any]]) -> str:
    """The table as Markdown."""
    places = sorted({f"{row['device']}, {row['date']}, commit {row['commit']}, {row['packages']}" for row in rows})
    lines = [
        *(f"{place}." for place in places),
        "Seconds: median of the counted steps; ratio: median within rounds; ceiling: ratio of tokens.",
        "",
        "| model | turns | dep. | answer | precision | layers | steps | layout "
        "| tokens | s/step | peak MiB | ratio | ceiling | of it |",
        "|---|---:|---:|---:|---|---|---:|---|---:|---:|---:|---:|---:|---:|",
    ]
    for row in sorted(
        rows,
        key=lambda row: (named(row), row["stage"], row["turns"], row.get("dependent", 0), row["answer_tokens"]),
    ):
        layouts = [layout for layout in (*CAPO, *SFT) if layout in row]
        how = row["precision"] + (" ckpt" if row["checkpointing"] else "")
        how += f" in {row['memory']:g} GiB" if row.get("memory") else ""
        head = f"{named(row)} | {row['turns']} | {row.get('dependent', '')} | {row['answer_tokens']} | {how}"
        for layout in layouts:
            one = row[layout]
            versus = row.get(f"{layouts[0]} against {layout}")
            compared = (
                f"{versus['ratio']:.2f} | {versus['token_ratio']:.2f} | {versus['ratio'] / versus['token_ratio']:.0%}"
                if versus
                else "| |"
            )
            lines.append(
                f"| {head} | {row['layers'] or 'all'} | {row['rounds']} | {layout} | {one['tokens']:,} "
                f"| {one['seconds']:.2f} | {one['peak_mb']:,} | {compared} |"
            )
    return "\n".join(lines) + "\n"


def named(row: dict[str, Any]) -> str:
    """The model of a row."""
    return Path(row["base"]).name if row.get("base") else "demo"


def _card() -> bool:
    import torch

    return bool(torch.cuda.is_available())


def device() -> str:
    """What it runs on."""
    import torch

    if _card():
        return str(torch.cuda.get_device_name())
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, {os.cpu_count()} cores"


def commit() -> str:
    """The code that runs; with a + where it was changed since."""
    done = subprocess.run(["git", "describe", "--always", "--dirty=+"], capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def packages() -> str:
    """The versions that matter."""
    return ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "trl"))


def work(job: str) -> None:
    """One layout's training run, a step at every line on standard input."""
    settings = json.loads(job)
    sys.stdout, answers = sys.stderr, sys.stdout  # what libraries print is not an answer
    import torch
    from transformers import PrinterCallback, TrainerCallback

    from parrot_lite.lm.model import load_renderer, load_trainable
    from parrot_lite.recipe import Lora
    from parrot_lite.train.trainer import arguments_of

    layout, (turns, depend, length) = settings["layout"], settings["cell"]
    stage = "capo" if layout in CAPO else "sft"
    recipe = recipe_of(
        settings["precision"],
        *([f"model.base={settings['base']}"] if settings["base"] else []),
        f"{stage}.checkpointing={str(settings['checkpointing']).lower()}",
        f"{stage}.learning_rate=1e-5",
        f"{stage}.epochs={settings['rounds']}.0",  # of one session: a step each
        f"{stage}.max_tokens=65536",
        "capo.tree_tokens=65536",
        f"{stage}.accumulation=1",
        f"{stage}.warmup=0.0",
        "capo.pairs=none",
    )
    section = getattr(recipe, stage)
    renderer = load_renderer(recipe.model)
    (session,) = islice(sessions(renderer, turns, depend, length), 1)
    torch.manual_seed(0)
    if settings["memory"]:  # beyond it, PyTorch is out of memory, as on a card of that size
        whole = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(settings["memory"] * (1 << 30) / whole)
    model = load_trainable(recipe.model, None, Lora(), section.checkpointing)
    if settings["layers"]:
        del model.get_base_model().model.layers[settings["layers"] :]
        model.config.num_hidden_layers = settings["layers"]
    for name, parameter in model.named_parameters():
        if "lora_B" in name:  # zero at first: gradients would not reach the other half
            torch.nn.init.normal_(parameter, std=0.02)

    class Turns(TrainerCallback):  # type: ignore[misc]
        """A step when it is asked for, and its time."""

        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            """Wait."""
            if not sys.stdin.readline():
                raise SystemExit(0)
            self.start = time.perf_counter()

        def on_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            """Stop the clock behind the optimizer."""
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            self.seconds = time.perf_counter() - self.start

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            """Answer."""
            if "loss" not in logs:
                return
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
            if torch.cuda.is_available():
                peak = torch.cuda.max_memory_allocated() >> 20
            answer = {
                "seconds": self.seconds,
                "loss": float(logs["loss"]),
                "peak_mb": peak,
                "tokens": tokens,
            }
            gc.collect()
            with contextlib.suppress(OSError, AttributeError):  # glibc keeps what was freed; three peaks may not fit
                ctypes.CDLL("libc.so.6").malloc_trim(0)
            print(json.dumps(answer), file=answers, flush=True)

    arguments = {
        **arguments_of(section, recipe.model, 0, Path(settings["folder"]) / layout, 1),
        "save_strategy": "no",
        "train_sampling_strategy": "sequential",
    }
    made, tokens = trainer_of(layout, recipe, renderer, model, session, arguments, Turns())
    made.remove_callback(PrinterCallback)
    print(json.dumps({"ready": layout}), file=answers, flush=True)
    made.train()


def trainer_of(
    layout: str, recipe: Any, renderer: Any, model: Any, session: Any, arguments: dict[str, Any], turns: Any
) -> tuple[Any, int]:
    """The layout's trainer, and the tokens of a step."""
    import trl
    from datasets import Dataset
    from transformers import TrainingArguments

    from parrot_lite.lm import attention
    from parrot_lite.store import RunFolder
    from parrot_lite.train import capo_trainer, pair_trainer, speaker_trainer
    from parrot_lite.train.packing import pack
    from parrot_lite.train.pairs import pairs

    if layout in ("tree", "rows"):
        attention.use(model.get_base_model(), recipe.capo.max_tokens)
        packed = pack(renderer, session, session.branches)
        log_probs = reference(model, recipe, packed.tree)
        units = [(packed, log_probs)] if layout == "tree" else unshared(packed, log_probs)
        made: Any = capo_trainer.CapoTrainer(
            section=recipe.capo,
            model=model,
            args=TrainingArguments(**{**arguments, "gradient_accumulation_steps": len(units)}),
            train_dataset=units,
            data_collator=capo_trainer.collated,
            callbacks=[turns],
        )
        return made, sum(len(unit.tree) for unit, _ in units)
    if layout == "pairs":
        found = pairs(renderer, [session], recipe.capo, RunFolder(Path(arguments["output_dir"]), "train-capo"))
        arguments = {**arguments, "gradient_accumulation_steps": len(found)}
        made = pair_trainer.pair_trainer(recipe.capo, model, renderer, found, arguments, turns)
        return made, sum(2 * len(p.prompt) + len(p.chosen) + len(p.rejected) for p in found)
    example = renderer.example(session.dialogue, "assistant", recipe.sft.max_tokens)
    if layout == "speaker":
        attention.use(model.get_base_model(), recipe.sft.max_tokens)
        made = speaker_trainer.SpeakerTrainer(
            model=model,
            args=TrainingArguments(**arguments),
            train_dataset=[example],
            data_collator=speaker_trainer.collated,
            callbacks=[turns],
        )
    else:
        made = trl.SFTTrainer(
            model=model,
            args=trl.SFTConfig(**arguments, max_length=None, dataset_kwargs={"skip_prepare_dataset": True}),
            train_dataset=Dataset.from_list([{"input_ids": list(example.ids), "labels": list(example.labels)}]),
            processing_class=renderer.tokenizer,
            callbacks=[turns],
        )
    return made, len(example.ids)


def unshared(packed: Any, log_probs: tuple[float, ...]) -> list[tuple[Any, tuple[float, ...]]]:
    """The same pairs in rows: for every turn, one unit with a trunk of its own for each answer."""
    from parrot_lite.lm.tree import Answer, Limb, TokenTree, joined
    from parrot_lite.train.packing import Contrast, Packed

    tree = packed.tree
    units = []
    for chosen in sorted({one.chosen for one in packed.contrasts}):
        contrasts = [one for one in packed.contrasts if one.chosen == chosen]
        places = [chosen, *(one.rejected for one in contrasts)]
        rows = []
        for answer in (tree.answers[place] for place in places):
            ids = tree.way(answer)
            start = len(ids) - len(answer)
            rows.append(TokenTree(ids, (Limb(0, 0, 0, len(ids)),), (Answer(start, len(ids), start - 1),)))
        numbered = tuple(Contrast(0, number, one.kind) for number, one in enumerate(contrasts, 1))
        units.append((Packed(packed.session, joined(rows), numbered), tuple(log_probs[place] for place in places)))
    return units


def reference(model: Any, recipe: Any, tree: Any) -> tuple[float, ...]:
    """The answers' log-probs before training."""
    import torch

    from parrot_lite.lm.likelihood import answer_log_probs
    from parrot_lite.lm.model import device_of, dtype_of

    dtype = dtype_of(recipe.model)
    model.eval()
    with torch.no_grad(), torch.autocast(device_of(recipe.model).type, dtype, enabled=dtype.itemsize == 2):
        return tuple(answer_log_probs(model, tree).tolist())


if __name__ == "__main__":
    if sys.argv[1:2] == ["work"]:
        work(sys.argv[2])
    else:
        typer.run(table)
