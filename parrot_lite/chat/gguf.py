"""Speaks through a GGUF file, decoded in this process by llama.cpp. Needs neither torch nor transformers."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from parrot_lite.chat import check_due, normalised
from parrot_lite.chat.gguf_model import BATCH, GgufModel, Grammar, Logits, Part, Tokens
from parrot_lite.chat.prefixes import Prefixes, Trie, common
from parrot_lite.lm.template import Template, source_of
from parrot_lite.recipe import Decoding, Gguf
from parrot_lite.types import Dialogue, Reply, Role, derive_seed


@dataclass(eq=False)
class _Job:
    """A dialogue that waits for its reply, or is at it."""

    prompt: Tokens
    limit: int  # tokens that the reply may have
    seed: int
    unique: int = 0  # tokens of the prompt that are new to this chat
    prefilled: int = 0  # tokens of the prompt that were evaluated
    reply: Reply | None = None
    seconds: float = 0.0
    sequence: int = field(init=False)
    ahead: Tokens = field(init=False)  # to be evaluated: the rest of the prompt, then the token written last
    written: bytes = field(init=False)
    count: int = field(init=False)
    random: np.random.Generator = field(init=False)
    grammar: Grammar | None = None  # what may be written

    @property
    def read(self) -> dict[str, Any]:
        """What a reply says of its prompt."""
        return {"prompt_tokens": len(self.prompt), "prefilled": self.prefilled, "unique": self.unique}

    def begin(self) -> None:
        """Start, perhaps once more, with nothing written."""
        self.written, self.count = b"", 0
        self.random = np.random.default_rng(self.seed)
        if self.grammar is not None:
            self.grammar.begin()

    def take(self, token: int, piece: bytes, stop: bytes) -> None:
        """Take the next token; the reply ends where ``stop`` is written or ``limit`` is reached."""
        start = max(0, len(self.written) - len(stop) + 1)
        self.written, self.count = self.written + piece, self.count + 1
        self.ahead = np.array([token], np.int32)
        if stop and (at := self.written.find(stop, start)) >= 0:
            self.written = self.written[:at]
            self.end("end")
        elif self.count == self.limit:
            self.end("length")

    def end(self, stop: Literal["end", "length"]) -> None:
        """Take what is written as the reply."""
        text = self.written.decode(errors="ignore").strip()  # the last character may be cut in half
        if text:
            self.reply = Reply(text=text, stop=stop, tokens=self.count, seconds=self.seconds, **self.read)
        else:
            self.reply = Reply.failure("empty reply", self.seconds, "empty reply")


Work = Callable[[deque[_Job], list[_Job]], None]


class GgufChat:
    """Writes either speaker's message: to a language model both are text behind a template.

    Up to ``parallel`` dialogues are decoded together; one that ends makes way for the next at once. What was evaluated
    of a dialogue, its replies included, is kept (see ``Prefixes``).

    What is drawn depends on seed, id and length of a dialogue up to rounding, which on a quantised model can change a
    word and all behind it. llama.cpp rounds otherwise where a reply is read in a prompt than where it was written, so
    an interruption or too little memory can change words (measured: 0.3 nats between the two); in principle neighbours
    and another ``parallel`` can, too (measured on a processor: no difference). The same calls in the same order give
    the same replies.

    ``prompted`` counts prompt tokens, ``prefilled`` those of them that were evaluated, ``unique`` those that a cache
    without limit would have evaluated: no prompt and no reply before had them behind the same beginning.
    Raises UserError where llama-cpp-python or the file is missing or the file has no template that holds.
    """

    def __init__(self, spec: Gguf) -> None:
        self._model = GgufModel(spec)
        self.name = self._model.name
        self.prompted = self.prefilled = self.unique = 0
        self._context, self._parallel = spec.context, spec.parallel
        self._prefixes = Prefixes(self._model, spec.parallel, spec.cache_mb << 20)
        self._asked = Trie()
        self.template = Template(
            source_of(spec.template, self._model.template),
            bos=self._model.bos,
            eos=self._model.eos,
            specials=self._model.specials,
        )

    def reply(self, dialogues: Sequence[Dialogue], speaker: Role, decoding: Decoding, seed: int) -> list[Reply]:
        """One reply a dialogue, in order. Raises UserError where the template does not hold."""
        check_due(dialogues, speaker)
        choices = [self._model.tokenize(choice, special=False).tolist() for choice in decoding.choices]
        if choices:
            work: Work = partial(self._choose, decoding.choices, choices)
        else:
            work = partial(self._write, self.template.stop(speaker).encode(), decoding)
        room = max(map(len, choices), default=1)
        jobs = [self._job(dialogue, decoding, seed, room) for dialogue in dialogues]
        waiting = [job for job in jobs if job.reply is None]
        if decoding.json_schema is not None:
            for job in waiting:
                job.grammar = self._model.grammar(decoding.json_schema)
        self.prompted += sum(len(job.prompt) for job in waiting)
        for job in waiting:
            job.unique = self._asked.add(job.prompt)
            self.unique += job.unique
        # Those whose history is known go first, before newcomers put it out.
        waiting.sort(key=lambda job: 2 * self._prefixes.known(job.prompt) < len(job.prompt))
        try:
            self._attempt(work, waiting)
        finally:
            for job in waiting:
                if job.grammar is not None:
                    job.grammar.close()
        return [cast(Reply, job.reply) for job in jobs]

    def close(self) -> None:
        """Free the model and all that is kept."""
        self._model.close()

    def _job(self, dialogue: Dialogue, decoding: Decoding, seed: int, room: int) -> _Job:
        prompt = self._model.tokenize(self.template.prompt(dialogue), special=True)
        limit = min(decoding.max_tokens, self._context - len(prompt))
        job = _Job(prompt, limit, derive_seed(seed, dialogue.id, len(dialogue.turns)))
        if len(prompt) + room > self._context:
            reason = f"prompt of {len(prompt)} tokens does not fit a context of {self._context}"
            job.reply = Reply.failure(reason, lasting="context full")
        return job

    def _attempt(self, work: Work, jobs: Sequence[_Job]) -> None:
        """Work on the jobs. Where llama.cpp fails, each that was at work is tried by itself: one may be at fault."""
        waiting = deque(jobs)
        while waiting:
            running: list[_Job] = []
            try:
                work(waiting, running)
            except Exception as error:  # llama.cpp's binding names no types of its own
                self._prefixes.clear()
                if len(running) == 1:
                    reason = f"llama.cpp: {type(error).__name__}: {error}"
                    running[0].reply = Reply.failure(reason, running[0].seconds)
                    continue
                for job in running:
                    self._attempt(work, [job])

    def _write(self, stop: bytes, decoding: Decoding, waiting: deque[_Job], running: list[_Job]) -> None:
        clock = time.monotonic()
        while waiting or running:
            self._fill(running, waiting)
            heard = self._step(running)
            clock = _share(running, clock)
            for job, logits in heard:
                if job.grammar is not None:
                    logits = job.grammar.allowed(logits, decoding.temperature == 0)
                token = draw(logits, decoding.temperature, decoding.top_p, job.random)
                if token in self._model.ends:
                    job.end("end")
                else:
                    if job.grammar is not None:
                        job.grammar.take(token)
                    job.take(token, self._model.piece(token), stop)
                if job.reply is not None:
                    self._leave(job, running)

    def _choose(
        self, texts: Sequence[str], choices: list[list[int]], waiting: deque[_Job], running: list[_Job]
    ) -> None:
        """The likeliest of the texts, with the probability of each given that it is one of them."""
        while waiting:
            clock = time.monotonic()
            self._fill(running, waiting)
            rows: dict[_Job, NDArray[np.float64]] = {}
            while len(rows) < len(running):
                for job, logits in self._step([job for job in running if len(job.ahead)]):
                    rows[job] = logits.astype(np.float64)
            scores = self._weigh(running, np.stack([rows[job] for job in running]), choices)
            _share(running, clock)
            for job, score in zip(tuple(running), scores.tolist(), strict=True):
                weights = normalised(score)
                best = max(range(len(texts)), key=weights.__getitem__)
                job.reply = Reply(
                    text=texts[best],
                    stop="end",
                    tokens=len(choices[best]),
                    seconds=job.seconds,
                    weights=weights,
                    **job.read,
                )
                self._leave(job, running)

    def _weigh(
        self, jobs: Sequence[_Job], logits: NDArray[np.float64], choices: Sequence[list[int]]
    ) -> NDArray[np.float64]:
        """(jobs, choices) summed log-probs of token lists behind what is evaluated; common beginnings go through once.

        Raises RuntimeError for a model that cannot take tokens back.
        """
        log_probs = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
        scores = log_probs[:, [choice[0] for choice in choices]]
        for first in dict.fromkeys(choice[0] for choice in choices if len(choice) > 1):
            longer = [at for at, choice in enumerate(choices) if choice[0] == first and len(choice) > 1]
            lengths = [len(self._prefixes.tokens(job.sequence)) for job in jobs]
            for job in jobs:
                job.ahead = np.array([first], np.int32)
            rows = np.stack([row.astype(np.float64) for _, row in self._step(jobs)])
            scores[:, longer] += self._weigh(jobs, rows, [choices[at][1:] for at in longer])
            for job, length in zip(jobs, lengths, strict=True):
                self._prefixes.cut(job.sequence, length)
                if len(self._prefixes.tokens(job.sequence)) < length:
                    raise RuntimeError("this model cannot take tokens back, so it cannot weigh texts")
        return scores

    def _fill(self, running: list[_Job], waiting: deque[_Job]) -> None:
        while waiting and len(running) < self._parallel:
            others = tuple(running)
            running.append(job := waiting.popleft())
            job.begin()
            self._await(job, others)
            job.sequence = self._prefixes.enter(job.prompt, {other.sequence for other in others})
            job.ahead = job.prompt[len(self._prefixes.tokens(job.sequence)) :]
            job.prefilled += len(job.ahead)
            self.prefilled += len(job.ahead)

    def _await(self, job: _Job, others: Sequence[_Job]) -> None:
        """Let another evaluate what its prompt begins with in common, where that still lies ahead of it."""
        shared, other = max(
            ((min(common(other.prompt, job.prompt), len(other.prompt) - 1), other) for other in others),
            key=lambda found: found[0],
            default=(0, None),
        )
        if other is None or shared <= self._prefixes.known(job.prompt):
            return
        while (missing := shared - len(self._prefixes.tokens(other.sequence))) > 0:
            self._evaluate([(other, other.ahead[: min(missing, BATCH)])])

    def _leave(self, job: _Job, running: list[_Job]) -> None:
        running.remove(job)
        self._asked.add(self._prefixes.tokens(job.sequence))

    def _step(self, jobs: Sequence[_Job]) -> list[tuple[_Job, Logits]]:
        """One call of llama.cpp, tokens just written before long prompts. Logits where nothing is left ahead."""
        room, parts = BATCH, []
        for job in sorted(jobs, key=lambda job: len(job.ahead)):
            if room:
                parts.append((job, job.ahead[:room]))
                room -= len(parts[-1][1])
        return self._evaluate(parts)

    def _evaluate(self, parts: Sequence[tuple[_Job, Tokens]]) -> list[tuple[_Job, Logits]]:
        through = [job for job, tokens in parts if len(tokens) == len(job.ahead)]
        logits = self._model.decode(
            [
                Part(job.sequence, len(self._prefixes.tokens(job.sequence)), tokens, job in through)
                for job, tokens in parts
            ]
        )
        for job, tokens in parts:
            self._prefixes.grow(job.sequence, tokens)
            job.ahead = job.ahead[len(tokens) :]
        return list(zip(through, logits, strict=True))


def _share(running: Sequence[_Job], since: float) -> float:
    """Divide the seconds since a moment among those that were at work; the moment it is now."""
    now = time.monotonic()
    for job in running:
        job.seconds += (now - since) / len(running)
    return now


def draw(logits: Logits, temperature: float, top_p: float, random: np.random.Generator) -> int:
    """A token from (vocabulary,) logits; the likeliest at temperature 0.

    ``top_p`` cuts before the temperature is applied, as in llama.cpp. Its own samplers do the same in twice the time
    (0.8 ms of the 8 ms that a token of a 135M model takes) and must be freed, also where a reply fails.
    """
    if temperature == 0:
        return int(logits.argmax())
    weights = np.exp(logits - logits.max())
    tokens = np.arange(len(weights))
    if top_p < 1:
        total = weights.sum(dtype=np.float64)
        # Tokens below this share are together less than what top_p leaves out.
        tokens = np.flatnonzero(weights >= (1 - top_p) / len(weights) * total)
        falling = tokens[np.argsort(-weights[tokens], kind="stable")]
        mass = weights[falling].cumsum(dtype=np.float64) / total
        tokens = np.sort(falling[: 1 + int(np.searchsorted(mass, top_p))])
    reached = (weights[tokens].astype(np.float64) ** (1 / temperature)).cumsum()
    return int(tokens[np.searchsorted(reached, random.random() * reached[-1], side="right")])
