"""The recipe's base model in transformers, with or without an adapter, decoding several dialogues together."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Sequence
from typing import Any

import torch
from transformers import LogitsProcessor, LogitsProcessorList
from transformers.generation.logits_process import TemperatureLogitsWarper, TopPLogitsWarper

from parrot_lite.chat import adapter_inputs, check_due, normalised
from parrot_lite.errors import UserError
from parrot_lite.lm.model import load_for_inference, load_renderer
from parrot_lite.recipe import Decoding, Local, Recipe
from parrot_lite.types import Dialogue, Reply, Role, derive_seed


class RowSeededGumbel(LogitsProcessor):  # type: ignore[misc]  # transformers is untyped here
    """Sampling as argmax over logits plus Gumbel noise, drawn for each row from its own generator.

    So what a dialogue gets does not depend on the dialogues it was batched with; ``torch.multinomial`` over a batch
    draws all rows from one stream.
    """

    def __init__(self, seeds: Sequence[int]) -> None:
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Scores (rows, vocabulary) whose argmax is a draw from softmax(scores)."""
        uniform = torch.stack([torch.rand(scores.shape[1], generator=g) for g in self._generators])
        gumbel = -torch.log(-torch.log(uniform.clamp(1e-20, 1 - 1e-7)))
        return scores + gumbel.to(scores.device)


class LocalChat:
    """See ``parrot_lite.chat.Chat``."""

    def __init__(self, spec: Local, recipe: Recipe) -> None:
        adapter = next(iter(adapter_inputs(spec, recipe).values()), None)
        self._batch = spec.batch
        self._renderer = load_renderer(recipe.model)
        self._model: Any = load_for_inference(recipe.model, adapter, merge=True)
        base = recipe.model.base.rstrip("/").rsplit("/", 1)[-1].removesuffix(".gguf")
        held = "-nf4" if recipe.model.load_in_4bit else ""
        self.name = f"{base}{held}" + (f"+{spec.adapter}" if spec.adapter else "")

    def reply(self, dialogues: Sequence[Dialogue], speaker: Role, decoding: Decoding, seed: int) -> list[Reply]:
        """See ``Chat.reply``. A prompt that leaves no room in the model's context is a failed reply."""
        check_due(dialogues, speaker)
        if decoding.json_schema is not None:
            fix = "Set eval.judge.verdict = written or expected, or judge with a server or a gguf speaker"
            raise UserError("a local speaker cannot be held to a JSON schema", self.name, fix)
        prompts = [self._renderer.prompt(dialogue) for dialogue in dialogues]
        context = self._model.config.max_position_embeddings
        replies: dict[int, Reply] = {}
        fitting = []
        for index, prompt in enumerate(prompts):
            if len(prompt) < context:
                fitting.append(index)
            else:
                reason = f"prompt of {len(prompt)} tokens does not fit a context of {context}"
                replies[index] = Reply.failure(reason, lasting="context full")
        if decoding.choices:
            replies.update({index: self._choose(prompts[index], decoding.choices) for index in fitting})
            fitting = []
        fitting.sort(key=lambda index: len(prompts[index]))  # neighbours of one length need little padding
        # Rows share their room; near the end of the context one would take it from its neighbours.
        free = [index for index in fitting if len(prompts[index]) + decoding.max_tokens <= context]
        batches = [free[start : start + self._batch] for start in range(0, len(free), self._batch)]
        for rows in batches + [[index] for index in fitting if index not in free]:
            seeds = [derive_seed(seed, dialogues[i].id, len(dialogues[i].turns)) for i in rows]
            replies.update(zip(rows, self._decode([prompts[i] for i in rows], speaker, decoding, seeds), strict=True))
        return [replies[index] for index in range(len(dialogues))]

    @torch.inference_mode()
    def _decode(self, prompts: list[list[int]], speaker: Role, decoding: Decoding, seeds: list[int]) -> list[Reply]:
        started = time.monotonic()
        width = max(map(len, prompts))
        stop_ids, stop_text = self._renderer.stop_ids(speaker)
        pad = self._renderer.tokenizer.pad_token_id
        pad = stop_ids[0] if pad is None else pad
        ids = torch.tensor([[pad] * (width - len(p)) + p for p in prompts], device=self._model.device)
        seen = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=self._model.device)
        processors = LogitsProcessorList()
        if decoding.temperature > 0:
            processors.append(TemperatureLogitsWarper(decoding.temperature))
            if decoding.top_p < 1:
                processors.append(TopPLogitsWarper(decoding.top_p))
            processors.append(RowSeededGumbel(seeds))
        room = self._model.config.max_position_embeddings - width
        stopping = {} if stop_text is None else {"stop_strings": [stop_text], "tokenizer": self._renderer.tokenizer}
        out = self._model.generate(
            input_ids=ids,
            attention_mask=seen,
            max_new_tokens=max(1, min(decoding.max_tokens, room)),
            do_sample=False,
            logits_processor=processors,
            eos_token_id=stop_ids,
            pad_token_id=pad,
            # The model's own defaults would be applied on top of ours.
            temperature=None,
            top_p=None,
            top_k=None,
            repetition_penalty=None,
            **stopping,
        )
        seconds = (time.monotonic() - started) / len(prompts)
        return [
            self._reply(row[width:].tolist(), len(prompt), set(stop_ids), stop_text, seconds)
            for prompt, row in zip(prompts, out, strict=True)
        ]

    @torch.inference_mode()
    def _choose(self, prompt: list[int], choices: Sequence[str]) -> Reply:
        started = time.monotonic()
        answers = [self._renderer.encode(choice) for choice in choices]
        width = max(map(len, answers))
        rows = torch.tensor([prompt + answer + [0] * (width - len(answer)) for answer in answers])
        # Padding behind an answer is seen by nothing that is read.
        logits = self._model(rows.to(self._model.device), logits_to_keep=width + 1, use_cache=False).logits
        log_probs = logits.float().log_softmax(-1).cpu()
        scores = [
            sum(float(row[at, token]) for at, token in enumerate(answer))
            for row, answer in zip(log_probs, answers, strict=True)
        ]
        weights = normalised(scores)
        best = max(range(len(choices)), key=weights.__getitem__)
        seconds = time.monotonic() - started
        return Reply(
            text=choices[best],
            stop="end",
            tokens=len(answers[best]),
            prompt_tokens=len(prompt),
            seconds=seconds,
            weights=weights,
        )

    def _reply(self, new: list[int], prompt: int, stop_ids: set[int], stop_text: str | None, seconds: float) -> Reply:
        end = next((i for i, token in enumerate(new) if token in stop_ids), None)
        tokens = len(new) if end is None else end + 1
        text = self._renderer.tokenizer.decode(new[:end], skip_special_tokens=True)
        ended = end is not None
        if stop_text is not None and stop_text in text:
            text, ended = text.split(stop_text, 1)[0], True
            decode = self._renderer.tokenizer.decode
            tokens = 1 + bisect_left(range(len(new)), True, key=lambda n: stop_text in decode(new[: n + 1]))
        if not text.strip():
            return Reply.failure("empty reply", seconds, "empty reply")
        return Reply(
            text=text.strip(),
            stop="end" if ended else "length",
            tokens=tokens,
            prompt_tokens=prompt,
            seconds=seconds,
        )

    def close(self) -> None:
        """Free the model."""
        self._model = None
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
