"""How exact the session tree is on the real model, beside a row for every answer and beside the usual padded rows.

    .venv/bin/python recipes/bench/exactness.py           # 8 turns x 3 dependent x 3 kinds; takes long
    .venv/bin/python recipes/bench/exactness.py --answer 20 --precision fp32

A random LoRA adapter makes the policy differ from its base. For every answer, the summed log-prob (nats), and the
gradient of a random combination of all of them, each against rows over the same weights in float32 arithmetic:

  rows     a row for each answer by itself through the model's own forward pass
  padded   the same rows, the four of a turn in one padded batch: the usual layout, and the yardstick
  tree     the session tree

In 16 bits every layout rounds, each in its own way: the distance of one from another says little about either, their
distances from float32 can be compared.
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
from parrot_lite.recipe import Lora, Recipe
from parrot_lite.train.packing import Packed, pack

sys.path.insert(0, str(Path(__file__).parent))
from speed import commit, device
from workload import recipe, sessions

ALL = ("fp32", "fp32+ckpt", "bf16", "bf16+ckpt", "nf4", "nf4+ckpt")
Found = tuple[torch.Tensor, torch.Tensor]  # log-probs (answers,), gradient


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
        "Distance from rows in float32: an answer's summed log-prob in nats, the largest and the root mean square; a",
        "token's, the mean; the cosine of gradients.",
        "",
        "| | layout | largest | rms | a token | gradient |",
        "|---|---|---:|---:|---:|---:|",
    ]
    exact: dict[str, Found] = {}
    for name in precision or ALL:
        held, _, checkpointed = name.partition("+")
        made = recipe(held, "model.device=cpu")
        renderer = load_renderer(made.model)
        (session,) = islice(sessions(renderer, turns, dependent, answer), 1)
        packed = pack(renderer, session, session.branches)
        if held not in exact:
            exact[held] = by_rows(model_of(made, False, in_float32=True), packed, 1)
        model = model_of(made, bool(checkpointed))
        rounded = torch.autocast("cpu", torch.bfloat16) if held != "fp32" else contextlib.nullcontext()
        with rounded:
            found = {"rows": by_rows(model, packed, 1), "padded": by_rows(model, packed, 1 + 3)}
            attention.use(model.get_base_model(), 1 << 16)
            found["tree"] = by_tree(model, packed)
        lengths = torch.tensor([len(one) for one in packed.tree.answers])
        for layout, one in found.items():
            lines.append(f"| {name} | {layout} | {distance(one, exact[held], lengths)} |")
            print(lines[-1], file=sys.stderr, flush=True)
    out.mkdir(parents=True, exist_ok=True)
    text = "\n".join(lines) + "\n"
    (out / "exactness.md").write_text(text)
    print(text)


def distance(found: Found, exact: Found, lengths: torch.Tensor) -> str:
    """How far log-probs and gradient are from what they should be; a cosine by its distance from 1."""
    apart = (found[0] - exact[0]).abs()
    cosine = torch.nn.functional.cosine_similarity(found[1].double(), exact[1].double(), dim=0).item()
    numbers = (apart.max().item(), apart.square().mean().sqrt().item(), (apart / lengths).mean().item())
    return " | ".join([*(f"{number:.1e}" for number in numbers), f"1 - {1 - cosine:.1e}"])


def model_of(made: Recipe, checkpointed: bool, in_float32: bool = False) -> Any:
    """The model with a random adapter; ``in_float32`` computes over the same weights in float32 throughout."""
    torch.manual_seed(0)
    model = load_trainable(made.model, None, Lora(), checkpointed)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.02)
    if in_float32:
        for module in model.modules():
            if hasattr(module, "quant_state"):  # a 4-bit layer
                module.compute_dtype = torch.float32
        for parameter in model.parameters():
            if parameter.is_floating_point():  # packed 4-bit weights are not
                parameter.data = parameter.data.float()
    model.train()  # gradient checkpointing does nothing in eval mode
    if checkpointed:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    return model


def pull(answers: int) -> torch.Tensor:
    """How much each answer's log-prob counts in what the gradient is of."""
    return torch.randn(answers, generator=torch.Generator().manual_seed(0))


def by_tree(model: Any, packed: Packed) -> Found:
    """Log-probs of the answers and the gradient, in one pass over the tree."""
    found = answer_log_probs(model, packed.tree)
    (found * pull(len(found))).sum().backward()
    return found.detach(), gradient(model)


def by_rows(model: Any, packed: Packed, batch: int) -> Found:
    """Log-probs of the answers and the gradient, ``batch`` rows a forward pass, padded on the right."""
    rows = []
    for answer in packed.tree.answers:
        ids = packed.tree.way(answer).tolist()
        rows.append((ids, len(ids) - len(answer)))
    pulls, scores = pull(len(rows)).tolist(), list[float]()
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
            total = total + pulls[start + row] * score
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
