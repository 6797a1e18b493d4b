"""Speaks through a GGUF file, decoded in this process by llama.cpp. Needs neither torch nor transformers."""

from __future__ import annotations

import ctypes
import logging
import time
from collections import OrderedDict
from collections.abc import Sequence
from itertools import chain, pairwise, takewhile
from typing import TYPE_CHECKING, Literal

import numpy as np

from parrot_lite.chat import check_due, normalised
from parrot_lite.errors import UserError
from parrot_lite.lm.template import Template, source_of
from parrot_lite.recipe import Decoding, Gguf
from parrot_lite.store import existing, locate
from parrot_lite.types import Dialogue, Reply, Role, derive_seed

if TYPE_CHECKING:
    from llama_cpp import Llama


class GgufChat:
    """Writes either speaker's message: to a language model both are text behind a template.

    A prompt is evaluated in pieces that end where the dialogue's earlier prompts ended, and what is known of it is
    reused by whole pieces. So a text depends on seed and dialogue to the last bit: not on neighbours, not on whether
    a run was interrupted. Batches of other sizes round otherwise, and on a quantised model that changes words.

    ``prompted`` counts prompt tokens, ``prefilled`` those of them that had to be evaluated. ``top_p`` cuts before the
    temperature is applied, as llama.cpp does it.
    Raises UserError where llama-cpp-python or the file is missing or the file has no template that holds.
    """

    def __init__(self, spec: Gguf) -> None:
        try:
            import llama_cpp
        except ImportError as error:
            fix = "Run make setup, or in the checkout: pip install '.[gguf]'"
            raise UserError(f"llama-cpp-python does not import ({error})", spec.path, fix) from None
        path = existing(locate(spec.path))
        try:
            self._llm: Llama = llama_cpp.Llama(
                str(path),
                n_ctx=spec.context,
                n_gpu_layers=spec.gpu_layers,
                n_threads=spec.threads,
                n_threads_batch=spec.threads,
                verbose=False,
            )
        except Exception as error:  # llama.cpp's binding names no types of its own
            fix = "Check that it is a whole GGUF file, or lower context"
            raise UserError(f"llama.cpp cannot open it: {error}", str(path), fix) from None
        # A failed decode comes back as an exception; its text on standard error would tear a progress bar.
        logging.getLogger("llama-cpp-python").setLevel(logging.CRITICAL + 1)
        self.name = path.stem
        self.prefilled = 0
        self.prompted = 0
        self._context = spec.context
        self._vocabulary = _Vocabulary(self._llm)
        self._prefixes = _Prefixes(self._llm, spec.cache_mb << 20)
        self.template = Template(
            source_of(spec.template, self._llm.metadata.get("tokenizer.chat_template")),
            bos=self._vocabulary.text(self._llm.token_bos()),
            eos=self._vocabulary.text(self._llm.token_eos()),
            specials=self._vocabulary.specials,
        )

    def reply(self, dialogues: Sequence[Dialogue], speaker: Role, decoding: Decoding, seed: int) -> list[Reply]:
        """One reply a dialogue, in order, one after the other. Raises UserError where the template does not hold."""
        check_due(dialogues, speaker)
        stop = self.template.stop(speaker)
        return [self._one(dialogue, stop, decoding, seed) for dialogue in dialogues]

    def close(self) -> None:
        """Free the model and the kept prefixes."""
        self._prefixes.clear()
        self._llm.close()

    def _one(self, dialogue: Dialogue, stop: str, decoding: Decoding, seed: int) -> Reply:
        start = time.monotonic()
        prompt = self._tokens(dialogue)
        if len(prompt) >= self._context:
            return Reply.failure(
                f"prompt of {len(prompt)} tokens does not fit a context of {self._context}", lasting="context full"
            )
        pieces = self._pieces(dialogue, prompt)
        try:
            self.prompted += len(prompt)
            self.prefilled += len(prompt) - self._prefixes.enter(dialogue.id, pieces)
            if decoding.choices:
                return self._choose(prompt, decoding.choices, start)
            self._llm.set_seed(derive_seed(seed, dialogue.id, len(dialogue.turns)))
            written, tokens, end = self._write(prompt, stop.encode(), decoding)
        except Exception as error:  # a dialogue that llama.cpp cannot continue must not end the others
            self._prefixes.clear()
            return Reply.failure(f"llama.cpp: {type(error).__name__}: {error}", time.monotonic() - start)
        content = written.decode(errors="ignore").strip()  # the last character may be cut in half
        if not content:
            return Reply.failure("empty reply", time.monotonic() - start, "empty reply")
        return Reply(text=content, stop=end, tokens=tokens, seconds=time.monotonic() - start)

    def _choose(self, prompt: list[int], choices: Sequence[str], start: float) -> Reply:
        """The likeliest of the texts, with the probability of each given that it is one of them."""
        tokens = [self._llm.tokenize(choice.encode(), add_bos=False, special=False) for choice in choices]
        self._llm.eval(prompt[self._llm.n_tokens :])
        weights = normalised(self._weigh(tokens))
        best = max(range(len(choices)), key=weights.__getitem__)
        seconds = time.monotonic() - start
        return Reply(text=choices[best], stop="end", tokens=len(tokens[best]), seconds=seconds, weights=weights)

    def _weigh(self, choices: list[list[int]]) -> list[float]:
        """Summed log-probabilities of token lists behind what is evaluated; common beginnings are evaluated once."""
        import llama_cpp

        pointer = llama_cpp.llama_get_logits_ith(self._llm.ctx, -1)
        logits = np.ctypeslib.as_array(pointer, shape=(self._llm.n_vocab(),)).astype(np.float64)
        log_probs = logits - np.logaddexp.reduce(logits)
        scores = [float(log_probs[choice[0]]) for choice in choices]
        here = self._llm.n_tokens
        for first in dict.fromkeys(choice[0] for choice in choices if len(choice) > 1):
            longer = [index for index, choice in enumerate(choices) if choice[0] == first and len(choice) > 1]
            self._llm.eval([first])
            for index, rest in zip(longer, self._weigh([choices[i][1:] for i in longer]), strict=True):
                scores[index] += rest
            self._llm.n_tokens = here
            llama_cpp.llama_memory_seq_rm(llama_cpp.llama_get_memory(self._llm.ctx), -1, here, -1)
        return scores

    def _tokens(self, dialogue: Dialogue) -> list[int]:
        tokens: list[int] = self._llm.tokenize(self.template.prompt(dialogue).encode(), add_bos=False, special=True)
        return tokens

    def _pieces(self, dialogue: Dialogue, prompt: list[int]) -> list[list[int]]:
        cuts = [0]
        # Length 0 is the template's own beginning, which all dialogues share.
        for length in sorted({0, *range(len(dialogue.turns) % 2, len(dialogue.turns), 2)}):
            earlier = self._tokens(dialogue.model_copy(update={"turns": dialogue.turns[:length]}))
            if cuts[-1] < len(earlier) < len(prompt) and prompt[: len(earlier)] == earlier:
                cuts.append(len(earlier))
        return [prompt[start:end] for start, end in pairwise([*cuts, len(prompt)])]

    def _write(self, prompt: list[int], stop: bytes, decoding: Decoding) -> tuple[bytes, int, Literal["end", "length"]]:
        written, count = b"", 0
        limit = min(decoding.max_tokens, self._context - len(prompt))
        for token in self._llm.generate(prompt, top_k=0, top_p=decoding.top_p, min_p=0.0, temp=decoding.temperature):
            if token in self._vocabulary.ends:
                return written, count, "end"
            piece = self._vocabulary.piece(token)
            written, count = written + piece, count + 1
            if stop and (at := written.find(stop, max(0, len(written) - len(piece) - len(stop)))) >= 0:
                return written[:at], count, "end"
            if count == limit:
                break
        return written, count, "length"


class _Vocabulary:
    """``specials`` are the texts that the tokenizer reads as one special token, ``ends`` the tokens that end a turn.

    Any special token ends a turn: a message holds none.
    """

    def __init__(self, llm: Llama) -> None:
        import llama_cpp

        self._llama = llama_cpp
        self._vocab = llama_cpp.llama_model_get_vocab(llm.model)
        # The tokenizer also reads "<unk>" as a token, although it controls nothing.
        special = llama_cpp.LLAMA_TOKEN_ATTR_CONTROL | llama_cpp.LLAMA_TOKEN_ATTR_UNKNOWN
        marked = {i for i in range(llm.n_vocab()) if llama_cpp.llama_vocab_get_attr(self._vocab, i) & special}
        self.specials = tuple(filter(None, map(self.text, sorted(marked))))
        self.ends = marked | {i for i in range(llm.n_vocab()) if llama_cpp.llama_vocab_is_eog(self._vocab, i)}

    def text(self, token: int) -> str:
        """How the vocabulary writes a special token; empty for the -1 of a token that the model lacks."""
        if token < 0:
            return ""
        text: bytes = self._llama.llama_vocab_get_text(self._vocab, token)
        return text.decode()

    def piece(self, token: int) -> bytes:
        """The bytes of a token. ``Llama.detokenize`` loses tokens of more than 32 bytes: long rules and indents."""
        size = 32
        while True:
            buffer = ctypes.create_string_buffer(size)
            length: int = self._llama.llama_token_to_piece(self._vocab, token, buffer, size, 0, False)
            if length >= 0:
                return buffer.raw[:length]
            size = -length


class _Prefixes:
    """What llama.cpp has evaluated of each dialogue, swapped in and out of its one context as dialogues alternate.

    Not ``LlamaRAMCache``: it keeps every turn's state and a copy of the score buffer with each, and counts only the
    states against its capacity (measured: 500 MB held, 52 MB counted). Here a dialogue has one state.
    """

    def __init__(self, llm: Llama, capacity: int) -> None:
        self._llm, self._capacity = llm, capacity
        self._inside: str | None = None
        self._pieces: list[list[int]] = []
        self._kept: OrderedDict[str, tuple[list[list[int]], ctypes.Array[ctypes.c_uint8]]] = OrderedDict()

    def enter(self, key: str, pieces: list[list[int]]) -> int:
        """Evaluate a prompt up to its last piece; how many tokens of it were known.

        The last piece is left to the generation: the logits to sample from are not part of a state.
        """
        if key != self._inside:
            self._leave()
            self._inside = key
            if key in self._kept:
                self._restore(*self._kept.pop(key))
        same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(self._pieces, pieces[:-1], strict=False)))
        if not self._cut(pieces[:same]):
            same = 0
            self._llm.reset()
        for piece in pieces[same:-1]:
            self._llm.eval(piece)
        self._pieces = pieces
        return sum(map(len, pieces[:same]))

    def clear(self) -> None:
        """Forget everything, the context's content too."""
        self._kept.clear()
        self._inside, self._pieces = None, []
        self._llm.n_tokens = 0

    def _cut(self, pieces: list[list[int]]) -> bool:
        """Take back what was evaluated behind ``pieces``, such as the reply; recurrent models cannot."""
        import llama_cpp

        self._llm.n_tokens = sum(map(len, pieces))
        memory = llama_cpp.llama_get_memory(self._llm.ctx)
        done: bool = llama_cpp.llama_memory_seq_rm(memory, -1, self._llm.n_tokens, -1)
        return done

    def _leave(self) -> None:
        import llama_cpp

        if self._inside is None or not self._capacity or not self._cut(self._pieces):
            return
        size = llama_cpp.llama_state_seq_get_size(self._llm.ctx, 0)
        if not 0 < size <= self._capacity:
            return
        state = (ctypes.c_uint8 * size)()
        if llama_cpp.llama_state_seq_get_data(self._llm.ctx, state, size, 0) != size:
            return
        self._kept[self._inside] = (self._pieces, state)
        while sum(len(state) for _, state in self._kept.values()) > self._capacity:
            self._kept.popitem(last=False)

    def _restore(self, pieces: list[list[int]], state: ctypes.Array[ctypes.c_uint8]) -> None:
        import llama_cpp

        if llama_cpp.llama_state_seq_set_data(self._llm.ctx, state, len(state), 0) == len(state):
            tokens = list(chain.from_iterable(pieces))
            self._llm.input_ids[: len(tokens)] = tokens  # where llama-cpp-python looks for what is evaluated
            self._pieces = pieces
        else:
            self._pieces = []
