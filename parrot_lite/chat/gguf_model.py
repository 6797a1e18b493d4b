"""A GGUF file in llama.cpp: its words, and several sequences of tokens that are evaluated together.

On llama.cpp's own interface: ``llama_cpp.Llama`` knows one sequence.
"""

from __future__ import annotations

import ctypes
import json
import logging
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from parrot_lite.errors import UserError
from parrot_lite.recipe import Gguf
from parrot_lite.store import existing_file, locate

Tokens = NDArray[np.int32]
Logits = NDArray[np.float32]
State = NDArray[np.uint8]

BATCH = 512  # tokens that one call evaluates at most


class Part(NamedTuple):
    """Tokens that continue a sequence of ``position`` tokens; ``asks`` for the logits behind the last of them."""

    sequence: int
    position: int
    tokens: Tokens
    asks: bool


class GgufModel:
    """``spec.parallel`` sequences, each with a context of its own: none takes room or speed from another.

    ``specials`` are the texts that the tokenizer reads as one special token, ``ends`` the tokens that end a turn: any
    special token does, for a message holds none.
    Raises UserError where llama-cpp-python or the file is missing or does not hold.
    """

    def __init__(self, spec: Gguf) -> None:
        try:
            import llama_cpp
        except ImportError as error:
            fix = "Run make setup, or in the checkout: pip install '.[gguf]'"
            raise UserError(f"llama-cpp-python does not import ({error})", spec.path, fix) from None
        path = existing_file(locate(spec.path))
        # What fails comes back as a value or an exception; text on standard error would tear a progress bar.
        logging.getLogger("llama-cpp-python").setLevel(logging.CRITICAL + 1)
        self._llama: Any = llama_cpp
        self.name = path.stem
        llama_cpp.llama_backend_init()
        self._model = self._loaded(str(path), spec)
        self._context = self._opened(str(path), spec)
        self._memory = llama_cpp.llama_get_memory(self._context)
        self._batch = llama_cpp.llama_batch_init(BATCH, 0, 1)
        self._vocab = llama_cpp.llama_model_get_vocab(self._model)
        self.vocabulary: int = llama_cpp.llama_vocab_n_tokens(self._vocab)
        # The tokenizer also reads "<unk>" as a token, although it controls nothing.
        special = llama_cpp.LLAMA_TOKEN_ATTR_CONTROL | llama_cpp.LLAMA_TOKEN_ATTR_UNKNOWN
        tokens = range(self.vocabulary)
        marked = {token for token in tokens if llama_cpp.llama_vocab_get_attr(self._vocab, token) & special}
        self.specials = tuple(filter(None, map(self.text, sorted(marked))))
        self.ends = marked | {token for token in tokens if llama_cpp.llama_vocab_is_eog(self._vocab, token)}
        self.bos = self.text(llama_cpp.llama_vocab_bos(self._vocab))
        self.eos = self.text(llama_cpp.llama_vocab_eos(self._vocab))
        template: bytes | None = llama_cpp.llama_model_chat_template(self._model, None)
        self.template = None if template is None else template.decode()

    def _loaded(self, path: str, spec: Gguf) -> Any:
        parameters = self._llama.llama_model_default_params()
        parameters.n_gpu_layers = spec.gpu_layers
        model = self._llama.llama_model_load_from_file(path.encode(), parameters)
        if model is None:
            raise UserError("llama.cpp cannot open it", path, "Check that it is a whole GGUF file")
        return model

    def _opened(self, path: str, spec: Gguf) -> Any:
        cores = os.cpu_count() or 1
        parameters = self._llama.llama_context_default_params()
        parameters.n_seq_max = spec.parallel
        # In one buffer for all every sequence attends over its neighbours' cells, masked: with 8 sequences of 1,500
        # tokens of a 135M model a step took 1.6 times as long, a prompt 2.9 times.
        parameters.kv_unified = False
        parameters.n_ctx = spec.context * spec.parallel
        parameters.n_batch = parameters.n_ubatch = BATCH
        parameters.n_threads = spec.threads or max(cores // 2, 1)  # of a batch of one token, which waits for memory
        parameters.n_threads_batch = spec.threads or cores
        parameters.flash_attn_type = self._llama.LLAMA_FLASH_ATTN_TYPE_DISABLED  # on a processor slower
        parameters.no_perf = False
        context = self._llama.llama_init_from_model(self._model, parameters)
        if context is None:
            self._llama.llama_model_free(self._model)
            raise UserError("llama.cpp has no room for its context", path, "Lower context or parallel")
        return context

    def tokenize(self, text: str, special: bool) -> Tokens:
        """The tokens of a text, and none that is not in it; ``special`` reads marks such as ``<|im_end|>`` as one."""
        data = text.encode()
        size = len(data) + 8
        while True:
            tokens = np.empty(size, np.int32)
            into = tokens.ctypes.data_as(ctypes.POINTER(ctypes.c_int32))
            found: int = self._llama.llama_tokenize(self._vocab, data, len(data), into, size, False, special)
            if found >= 0:
                return tokens[:found].copy()
            size = -found

    def text(self, token: int) -> str:
        """How the vocabulary writes a special token; empty for the -1 of a token that the model lacks."""
        if token < 0:
            return ""
        text: bytes = self._llama.llama_vocab_get_text(self._vocab, token)
        return text.decode()

    def piece(self, token: int) -> bytes:
        """The bytes of a token, also of those longer than 32 bytes: long rules and indents."""
        size = 32
        while True:
            buffer = ctypes.create_string_buffer(size)
            length: int = self._llama.llama_token_to_piece(self._vocab, token, buffer, size, 0, False)
            if length >= 0:
                return buffer.raw[:length]
            size = -length

    def grammar(self, schema: dict[str, Any]) -> Grammar:
        """What a JSON object of this schema may go on with. Close it when it is done with."""
        return Grammar(self._llama, self._vocab, self.vocabulary, schema)

    def decode(self, parts: Sequence[Part]) -> list[Logits]:
        """Evaluate at most ``BATCH`` tokens; (vocabulary,) logits for each part that asks, in order.

        The logits are llama.cpp's own memory: the next call overwrites them. Raises RuntimeError where it fails.
        """
        batch, count, asked = self._batch, 0, []
        for part in parts:
            for offset, token in enumerate(part.tokens.tolist()):
                batch.token[count] = token
                batch.pos[count] = part.position + offset
                batch.n_seq_id[count] = 1
                batch.seq_id[count][0] = part.sequence
                batch.logits[count] = False
                count += 1
            if part.asks:
                batch.logits[count - 1] = True
                asked.append(count - 1)
        batch.n_tokens = count
        code = self._llama.llama_decode(self._context, batch)
        if code:
            raise RuntimeError(f"llama_decode returned {code}")
        rows = [self._llama.llama_get_logits_ith(self._context, at) for at in asked]
        return [np.ctypeslib.as_array(row, shape=(self.vocabulary,)) for row in rows]

    def cut(self, sequence: int, length: int) -> bool:
        """Forget what a sequence has behind ``length`` tokens; False where the model cannot, as recurrent ones."""
        done: bool = self._llama.llama_memory_seq_rm(self._memory, sequence, length, -1)
        return done

    def size(self, sequence: int) -> int:
        """The bytes that ``save`` takes."""
        size: int = self._llama.llama_state_seq_get_size(self._context, sequence)
        return size

    def save(self, sequence: int) -> State | None:
        """All that is known of a sequence; None where it cannot be had. Logits are not part of it."""
        state = np.empty(self.size(sequence), np.uint8)
        into = state.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
        got = self._llama.llama_state_seq_get_data(self._context, into, len(state), sequence)
        return state if got == len(state) else None

    def restore(self, sequence: int, state: State) -> bool:
        """Put a saved sequence in place of another; False where that fails."""
        source = state.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
        put: int = self._llama.llama_state_seq_set_data(self._context, source, len(state), sequence)
        return put == len(state)

    def clear(self) -> None:
        """Forget all sequences."""
        self._llama.llama_memory_clear(self._memory, True)

    def close(self) -> None:
        """Free everything."""
        if self._context is not None:
            self._llama.llama_batch_free(self._batch)
            self._llama.llama_free(self._context)
            self._llama.llama_model_free(self._model)
            self._context = None


class Grammar:
    """Which tokens may come next where a reply is to be a JSON object of a schema. Raises ValueError for a schema that
    llama.cpp cannot take.
    """

    def __init__(self, llama: Any, vocab: Any, vocabulary: int, schema: dict[str, Any]) -> None:
        from llama_cpp.llama_grammar import json_schema_to_gbnf

        rules = json_schema_to_gbnf(json.dumps(schema))
        self._llama, self._tokens = llama, np.arange(vocabulary, dtype=np.int32)
        self._sampler = llama.llama_sampler_init_grammar(vocab, rules.encode(), b"root")
        if not self._sampler:
            raise ValueError("llama.cpp cannot read the grammar of the schema")

    def begin(self) -> None:
        """Nothing is written yet."""
        self._llama.llama_sampler_reset(self._sampler)

    def take(self, token: int) -> None:
        """A token is written."""
        self._llama.llama_sampler_accept(self._sampler, token)

    def allowed(self, logits: Logits, greedy: bool) -> Logits:
        """The (vocabulary,) logits, minus infinity where a token may not come next.

        ``greedy`` tells that only the likeliest will be looked at.
        """
        best = int(logits.argmax())
        # A look at all tokens takes as long as a token of a small model.
        if greedy and np.isfinite(self._applied(logits, self._tokens[best : best + 1])[0]):
            return logits
        return self._applied(logits, self._tokens)

    def _applied(self, logits: Logits, tokens: Tokens) -> Logits:
        data = np.empty(len(tokens), _TOKEN_DATA)
        data["id"], data["logit"], data["p"] = tokens, logits[tokens], 0
        array = self._llama.llama_token_data_array(
            data=data.ctypes.data_as(self._llama.llama_token_data_p), size=len(tokens), selected=-1, sorted=False
        )
        self._llama.llama_sampler_apply(self._sampler, ctypes.byref(array))
        allowed: Logits = data["logit"].copy()
        return allowed

    def close(self) -> None:
        """Free it."""
        self._llama.llama_sampler_free(self._sampler)


_TOKEN_DATA = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])
