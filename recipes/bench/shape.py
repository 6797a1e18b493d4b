"""A LLaMA of 7B or 13B with random weights: time and memory of training depend on a model's shape, not on its values.

    .venv/bin/python recipes/bench/shape.py 7b /dev/shm/llama-7b
    .venv/bin/python recipes/bench/speed.py --base /dev/shm/llama-7b --precision nf4 --checkpointing --cell 8,3,180

Written in bfloat16 (13.8 GB and 26.4 GB), with the demo's tokenizer: 49,152 entries where LLaMA-2 has 32,000, so
embeddings and head are a little larger than they would be. ``tiny`` is for trying the commands on a processor.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

# arXiv 2307.09288; without grouped queries, as 7B and 13B are.
SHAPES = {
    "tiny": {"hidden_size": 64, "intermediate_size": 172, "num_hidden_layers": 2, "num_attention_heads": 4},
    "7b": {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32},
    "13b": {"hidden_size": 5120, "intermediate_size": 13824, "num_hidden_layers": 40, "num_attention_heads": 40},
}


def write(
    shape: Annotated[str, typer.Argument(help=", ".join(SHAPES))],
    folder: Annotated[Path, typer.Argument(help="where the model goes")],
    tokenizer: Annotated[str | None, typer.Option(help="folder of another tokenizer than the demo's")] = None,
) -> None:
    """Write the model and its tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig

    from parrot_lite.lm.model import load_renderer
    from parrot_lite.recipe_file import load

    if shape not in SHAPES:
        raise typer.BadParameter(f"{shape}: there are {', '.join(SHAPES)}")
    words = (
        AutoTokenizer.from_pretrained(tokenizer)
        if tokenizer
        else load_renderer(load("recipes/demo.toml", []).model).tokenizer
    )
    config = LlamaConfig(
        **SHAPES[shape],
        vocab_size=len(words),
        max_position_embeddings=4096,
        bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id,
        pad_token_id=words.pad_token_id,
    )
    torch.manual_seed(0)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters in {folder}")


if __name__ == "__main__":
    typer.run(write)
