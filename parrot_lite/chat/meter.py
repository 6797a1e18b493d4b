"""What a stage asks of its speakers: calls, tokens, failures and money over all its attempts, and the cap on them."""

from __future__ import annotations

import json
import threading
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from parrot_lite.errors import UserError
from parrot_lite.recipe import Budget, ChatSpec, Decoding, Price, Recipe, Server
from parrot_lite.store import write_atomically
from parrot_lite.types import Dialogue, Reply, Role

if TYPE_CHECKING:
    from parrot_lite.chat import Chat

FILE = "usage.json"
SPENT = "the budget is spent"  # how the reason of a reply begins whose call was not made
SECONDS = 1.0  # between two writes of the file


@dataclass
class Usage:
    """What one model was asked for. ``counts``: calls, prompt_tokens, tokens, cut replies, replies without usage; where
    a speaker in this process says it, the prompt tokens evaluated (prefilled) and those new to it (unique).
    """

    counts: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)  # calls that failed, by kind; those made again, too
    addresses: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))

    def facts(self) -> dict[str, Any]:
        """As plain data, what a manifest and the file hold."""
        at = {name: dict(counts) for name, counts in self.addresses.items()}
        return {**self.counts, "failures": dict(self.failures), **({"addresses": at} if at else {})}

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Self:
        """What ``facts`` gave."""
        at = {name: Counter(counts) for name, counts in facts.get("addresses", {}).items()}
        counts = {key: value for key, value in facts.items() if isinstance(value, int)}
        return cls(Counter(counts), Counter(facts["failures"]), defaultdict(Counter, at))


class Meter:
    """Counts calls and says when no further one may be made. May be used from many threads.

    A call counts from when it is made: a kill loses none of it but what happened within the last second. What calls
    cost that failed without saying so, nobody knows; they count as calls and not as money.
    """

    def __init__(self, recipe: Recipe | None = None, folder: Path | None = None) -> None:
        self._budget = recipe.budget if recipe else Budget()
        self._prices: Mapping[str, Price] = recipe.prices if recipe else {}
        self._path = folder / FILE if folder else None
        self._lock = threading.Lock()
        self._models: defaultdict[str, Usage] = defaultdict(Usage)
        if self._path and self._path.exists():
            kept = json.loads(self._path.read_text(encoding="utf-8"))
            self._models.update({model: Usage.of(facts) for model, facts in kept.items()})
        self._changed = False
        self._closed = threading.Event()
        self._writer = threading.Thread(target=self._write_now_and_then, daemon=True)

    def __enter__(self) -> Self:
        self._writer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        self._writer.join()
        self._write()

    def begin(self, model: str, address: str | None = None) -> str | None:
        """Count a call that is made now; or why it must not be made."""
        with self._lock:
            if (spent := self._spent()) is not None:
                return spent
            usage = self._models[model]
            usage.counts["calls"] += 1
            if address:
                usage.addresses[address]["calls"] += 1
            self._changed = True
            return None

    def end(self, model: str, reply: Reply, failure: str | None = None, address: str | None = None) -> None:
        """Count what came of a call; ``failure`` is its kind."""
        with self._lock:
            usage = self._models[model]
            if failure:
                usage.failures[failure] += 1
                if address:
                    usage.addresses[address]["failed"] += 1
            usage.counts["prompt_tokens"] += reply.prompt_tokens or 0
            usage.counts["tokens"] += reply.tokens or 0
            if reply.prefilled is not None and reply.unique is not None:
                usage.counts["prefilled"] += reply.prefilled
                usage.counts["unique"] += reply.unique
            usage.counts["cut"] += reply.stop == "length"
            usage.counts["without usage"] += not failure and None in (reply.prompt_tokens, reply.tokens)
            self._changed = True

    def facts(self) -> dict[str, Any]:
        """What the manifest says, by model; with money where there is a price."""
        with self._lock:
            return {
                model: {**usage.facts(), **({"money": round(self._cost(model), 6)} if model in self._prices else {})}
                for model, usage in self._models.items()
            }

    @property
    def tokens(self) -> int:
        """Generated tokens of all models."""
        with self._lock:
            return sum(usage.counts["tokens"] for usage in self._models.values())

    @property
    def note(self) -> str:
        """What the priced models have cost, for the progress bar; empty where none has a price."""
        with self._lock:
            return f"{self._money():.2f} spent" if self._prices else ""

    def _cost(self, model: str) -> float:
        price, counts = self._prices[model], self._models[model].counts
        return (counts["prompt_tokens"] * price.input + counts["tokens"] * price.output) / 1e6

    def _money(self) -> float:
        return sum(self._cost(model) for model in self._models if model in self._prices)

    def _spent(self) -> str | None:
        calls = sum(usage.counts["calls"] for usage in self._models.values())
        if self._budget.calls is not None and calls >= self._budget.calls:
            return f"{SPENT}: {calls:,} of {self._budget.calls:,} calls (budget.calls)"
        if self._budget.money is None:
            return None
        money = self._money()
        if money >= self._budget.money:
            return f"{SPENT}: {money:.4f} of {self._budget.money:g} after {calls:,} calls (budget.money)"
        for model, usage in self._models.items():
            price = self._prices.get(model)
            if price and (price.input or price.output) and usage.counts["without usage"]:
                return f"{SPENT} as far as anyone can know: {model} does not say what it used (budget.money)"
        return None

    def _write_now_and_then(self) -> None:
        while not self._closed.wait(SECONDS):
            with suppress(OSError):  # a full disk may have room again; the last write tells
                self._write()

    def _write(self) -> None:
        with self._lock:
            if self._path is None or not self._changed:
                return
            text = json.dumps({model: usage.facts() for model, usage in self._models.items()}, indent=1)
            self._changed = False
        try:
            write_atomically(self._path, text + "\n")
        except OSError:
            self._changed = True
            raise


class Metered:
    """A chat in this process whose calls a meter counts, a dialogue as one call."""

    def __init__(self, chat: Chat, meter: Meter) -> None:
        self.name = chat.name
        self._chat, self._meter = chat, meter

    def reply(self, dialogues: Sequence[Dialogue], speaker: Role, decoding: Decoding, seed: int) -> list[Reply]:
        """See ``Chat.reply``; a call that the budget forbids is a failed reply that says so."""
        refused = [self._meter.begin(self.name) for _ in dialogues]
        made = [dialogue for dialogue, reason in zip(dialogues, refused, strict=True) if reason is None]
        replies = iter(self._chat.reply(made, speaker, decoding, seed) if made else [])
        together = [next(replies) if reason is None else Reply.failure(reason) for reason in refused]
        for reply, reason in zip(together, refused, strict=True):
            if reason is None:
                failed = reply.stop == "failed"
                self._meter.end(self.name, reply, (reply.lasting or "failed") if failed else None)
        return together

    def close(self) -> None:
        """Close the chat."""
        self._chat.close()


def check_prices(recipe: Recipe, specs: Iterable[ChatSpec]) -> None:
    """Raises UserError where money is capped and a server's model has no price."""
    if recipe.budget.money is None:
        return
    for spec in specs:
        if isinstance(spec, Server) and spec.model not in recipe.prices:
            fix = f'Add [prices."{spec.model}"] with input and output a million tokens (0 for a server of your own)'
            raise UserError(f"budget.money is set and the model {spec.model} has no price", "prices", fix)
