"""How exact the session tree is on the real model, beside what the usual layout's padding does to the same numbers.

    .venv/bin/python recipes/bench/exactness.py           # 8 turns x 3 dependent x 3 kinds; takes long
    .venv/bin/python recipes/bench/exactness.py --answer 20 --precision fp32

A random LoRA adapter makes the policy differ from its base. For every answer, the summed log-prob (nats), and the
gradient of a random combination of all of them:

  rows     a row for each answer by itself through the model's own forward pass: what the others are compared with
  padded   the same rows, the four of a turn in one padded batch: the usual layout, and the yardstick
  tree     the session tree
"""

from __future__ import annotations

import contextlib
import sys
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from parrot_lite.lm import attention
from parrot_lite.lm.likelihood import answer_log_probs
from parrot_lite.lm.model import load_renderer, load_trainable
from parrot_lite.recipe import Lora
from parrot_lite.train.packing import Packed, pack

sys.path.insert(0, str(Path(__file__).parent))
from speed import commit, device
from workload import recipe, sessions

ALL = ("fp32", "fp32+ckpt", "bf16", "bf16+ckpt", "nf4", "nf4+ckpt")


def table(
    turns: int = 8,
    dependent: int = 3,
    answer: Annotated[int, typer.Option(help="tokens of an answer")] = 180,
    precision: Annotated[list[str] | None, typer.Option(help=f"of {', '.join(ALL)}; may be repeated")] = None,
    out: Annotated[Path, typer.Option(help="folder of exactness.md")] = Path("runs/bench"),
) -> None:
    """Compare the layouts in each precision and print the table."""
    shape = f"{turns} turns x {dependent} dependent x 3 kinds, answers of about {answer} tokens"
    lines = [
        f"{device()}, commit {commit()}; SmolLM2-135M, {shape}.",
        "Largest difference of an answer's summed log-prob, in nats; mean difference a token; cosine of gradients.",
        "",
        "| | padded: log-prob | a token | gradient | tree: log-prob | a token | gradient |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for name in precision or ALL:
        padded, tree = compared(name, turns, dependent, answer)
        lines.append("| " + " | ".join([name, *shown(padded), *shown(tree)]) + " |")
        print(lines[-1], file=sys.stderr, flush=True)
    out.mkdir(parents=True, exist_ok=True)
    text = "\n".join(lines) + "\n"
    (out / "exactness.md").write_text(text)
    print(text)


def shown(found: tuple[float, float, float]) -> list[str]:
    """Two differences, and a cosine by its distance from 1."""
    return [f"{found[0]:.1e}", f"{found[1]:.1e}", f"1 - {1 - found[2]:.1e}"]


def compared(name: str, turns: int, dependent: int, answer: int) -> list[tuple[float, float, float]]:
    """(largest difference, mean difference a token, gradient cosine) against rows: of padded rows, of the tree."""
    held, _, checkpointed = name.partition("+")
    made = recipe(held, "model.device=cpu")
    renderer = load_renderer(made.model)
    (session,) = islice(sessions(renderer, turns, dependent, answer), 1)
    packed = pack(renderer, session, session.branches)
    torch.manual_seed(0)
    model = load_trainable(made.model, None, Lora(), bool(checkpointed))
    for parameter_name, parameter in model.named_parameters():
        if "lora_B" in parameter_name:
            torch.nn.init.normal_(parameter, std=0.02)
    model.train()  # gradient checkpointing does nothing in eval mode
    if checkpointed:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    pull = torch.randn(len(packed.tree.answers)).tolist()
    rounded = torch.autocast("cpu", torch.bfloat16) if held != "fp32" else contextlib.nullcontext()
    with rounded:
        expected, slope = by_rows(model, packed, pull, 1)
        padded = by_rows(model, packed, pull, 1 + 3)
        attention.use(model.get_base_model(), 1 << 16)
        found = answer_log_probs(model, packed.tree)
    (found * torch.tensor(pull)).sum().backward()
    tree = found.detach(), gradient(model)
    lengths = torch.tensor([len(one) for one in packed.tree.answers])
    return [
        (
            (log_probs - expected).abs().max().item(),
            ((log_probs - expected).abs() / lengths).mean().item(),
            torch.nn.functional.cosine_similarity(grad.double(), slope.double(), dim=0).item(),
        )
        for log_probs, grad in (padded, tree)
    ]


def by_rows(model: Any, packed: Packed, pull: list[float], batch: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probs of the answers and the gradient, ``batch`` rows a forward pass, padded on the right."""
    rows = []
    for answer in packed.tree.answers:
        ids = packed.tree.way(answer).tolist()
        rows.append((ids, len(ids) - len(answer)))
    scores: list[float] = []
    for start in range(0, len(rows), batch):
        some = rows[start : start + batch]
        width = max(len(ids) for ids, _ in some)
        first = min(begin for _, begin in some) - 1
        filled = torch.tensor([ids + [0] * (width - len(ids)) for ids, _ in some])
        mask = torch.tensor([[1] * len(ids) + [0] * (width - len(ids)) for ids, _ in some])
        given = {"attention_mask": mask} if batch > 1 else {}
        logits = model(input_ids=filled, use_cache=False, logits_to_keep=width - first, **given).logits.float()
        total = logits.new_zeros(())
        for row, (ids, begin) in enumerate(some):
            targets = torch.tensor(ids[begin:])
            log_probs = logits[row, begin - 1 - first : len(ids) - 1 - first].log_softmax(dim=-1)
            score = log_probs.gather(1, targets[:, None]).sum()
            total = total + pull[start + row] * score
            scores.append(score.item())
        total.backward()
    return torch.tensor(scores), gradient(model)


def gradient(model: Any) -> torch.Tensor:
    """All gradients as one vector; none is left behind."""
    found = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    model.zero_grad()
    return found


if __name__ == "__main__":
    typer.run(table)
