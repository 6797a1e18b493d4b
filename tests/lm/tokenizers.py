"""Fast tokenizers of the two families that the templates meet, built here: no download, every token known by hand."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from parrot_lite.lm.template import source_of
from parrot_lite.lm.tokens import Renderer

# Merged to the end, so that each of these words is one token and every other word falls into pieces.
WORDS = "Why is ice cold ? Because heat leaves . And snow It too user assistant USER: ASSISTANT: [INST] [/INST]"
TEXT = (WORDS, *WORDS.split())
TEMPLATES = ("chatml", "llama-2", "vicuna")


def byte_level(texts: Iterable[str] = TEXT, size: int = 2000) -> Any:
    """Byte-level BPE with ChatML's special tokens, as in GPT-2's descendants (Qwen, SmolLM)."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=source_of("chatml", None),
    )


def llama_like(texts: Iterable[str] = TEXT, size: int = 2000) -> Any:
    """BPE over ▁-marked words with byte fallback, as in LLaMA: no pad token, no template of its own."""
    learnt = Tokenizer(models.BPE())
    learnt.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    learnt.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=size, show_progress=False))
    model = json.loads(learnt.to_str())["model"]
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *model["vocab"]]
    tokenizer = Tokenizer(
        models.BPE(
            {piece: index for index, piece in enumerate(dict.fromkeys(pieces))},
            [tuple(merge) for merge in model["merges"]],
            unk_token="<unk>",
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def renderer(template: str, texts: Iterable[str] = TEXT) -> Renderer:
    """A renderer of one of the shipped templates over the tokenizer family that it belongs to."""
    return Renderer(byte_level(texts) if template == "chatml" else llama_like(texts), template)


def strings(made: Renderer, ids: Iterable[int]) -> list[str]:
    """Token strings, spaces and line ends readable."""
    return [made.tokenizer.convert_ids_to_tokens(i).replace("Ġ", "▁").replace("Ċ", "\n") for i in ids]
