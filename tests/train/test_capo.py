from __future__ import annotations

import json
import math
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from parrot_lite.errors import UserError
from parrot_lite.lm.model import load_for_inference, load_renderer, load_trainable
from parrot_lite.lm.tokens import Renderer
from parrot_lite.recipe import Capo, Lora, Recipe
from parrot_lite.store import RunFolder
from parrot_lite.train import capo, capo_trainer, pair_trainer, sft, trainer
from parrot_lite.train.capo import in_context
from parrot_lite.train.pairs import pairs
from parrot_lite.types import KINDS, Dialogue, SessionTree
from tests.lm.test_template import session, shared
from tests.lm.tokenizers import TEMPLATES
from tests.rows import score
from tests.tiny import (
    REAL,
    first_turns,
    killed_at,
    log,
    manifest,
    needs_real,
    one_thread,
    recipe,
    recipe_file,
    tiny_model,
    write,
)
from tests.train.test_sft import Killed, killed_in_conclude
from tests.train.trees import ICE, branch, tree


def folder(path: Path) -> RunFolder:
    return RunFolder(path, "train-capo")


@pytest.mark.parametrize("template", TEMPLATES)
def test_pairs_are_prompt_and_two_answers(tmp_path: Path, template: str) -> None:
    made, counted = shared(template), folder(tmp_path)
    found = pairs(made, [tree()], Capo(), counted)
    assert [(one.turn, one.kind) for one in found] == [
        (turn, kind) for turn in (2, 3) for kind in ("neglect", "hallucination", "misunderstanding")
    ]
    end = made.tokenizer.convert_tokens_to_ids("<|im_end|>" if template == "chatml" else "</s>")
    for one in found:
        assert list(one.prompt) == made.prompt(ICE.before(one.turn))
        assert one.chosen[-1] == one.rejected[-1] == end
        assert end not in one.chosen[:-1] + one.rejected[:-1]
        assert made.tokenizer.decode(one.chosen[:-1]).strip() == ICE.answers[one.turn - 1]
        assert made.tokenizer.decode(one.rejected[:-1]).strip() == f"It is cold. {one.kind}"
        whole = made.render(ICE.before(one.turn).say(f"It is cold. {one.kind}")).ids
        assert (one.prompt + one.rejected) == whole[: len(one.prompt + one.rejected)]
    assert counted.counts == {
        "pairs of neglect": 2,
        "pairs of hallucination": 2,
        "pairs of misunderstanding": 2,
        "pairs whose first exchanges were cut": 0,
    }


def longest(made: Renderer, dialogue: Dialogue, turn: int, cut: int, text: str) -> int:
    """Tokens of the longer row of a pair whose first ``cut`` exchanges are gone."""
    shown = dialogue.before(turn)
    shown = shown.model_copy(update={"turns": shown.turns[2 * cut :]})
    rows = [made.render(shown.say(answer)) for answer in (dialogue.answers[turn - 1], text)]
    return max(max(i for i, m in enumerate(row.messages) if m is not None) + 1 for row in rows)


def test_long_prompts_lose_their_first_exchanges_whole(tmp_path: Path) -> None:
    made = shared("chatml")
    only = SessionTree(dialogue=ICE, branches=(branch(ICE, 3, "neglect", "It is cold."),))
    sizes = [longest(made, ICE, 3, cut, "It is cold.") for cut in range(3)]
    assert sizes[0] > sizes[1] > sizes[2]
    for cut, size in enumerate(sizes):
        counted = folder(tmp_path)
        (one,) = pairs(made, [only], Capo(max_tokens=size), counted)  # fits to the token
        expected = ICE.before(3)
        assert list(one.prompt) == made.prompt(expected.model_copy(update={"turns": expected.turns[2 * cut :]}))
        assert counted.counts["pairs whose first exchanges were cut"] == (cut > 0)
        assert len(one.prompt) + max(len(one.chosen), len(one.rejected)) == size
    for size, less in pairwise(sizes):  # one token fewer costs a whole exchange
        (one,) = pairs(made, [only], Capo(max_tokens=size - 1), folder(tmp_path))
        assert len(one.prompt) + max(len(one.chosen), len(one.rejected)) == less


def test_what_is_too_long_is_left_out_and_counted(tmp_path: Path) -> None:
    made, counted = shared("chatml"), folder(tmp_path)
    short = SessionTree(dialogue=ICE, branches=(branch(ICE, 3, "neglect", "It is cold."),))
    long = SessionTree(dialogue=ICE, branches=(branch(ICE, 3, "neglect", "It is cold." * 9),))
    limit = longest(made, ICE, 3, 2, "It is cold.")
    assert len(pairs(made, [long, short], Capo(max_tokens=limit), counted)) == 1
    assert counted.counts["pairs left out: query and answer alone exceed max_tokens"] == 1
    with pytest.raises(UserError, match="no pair is left"):
        pairs(made, [long], Capo(max_tokens=limit), folder(tmp_path))


def test_kinds_and_cap(tmp_path: Path) -> None:
    made, counted = shared("chatml"), folder(tmp_path)
    found = pairs(made, [tree(), tree()], Capo(kinds=("neglect", "misunderstanding"), pairs=3), counted)
    assert [(one.turn, one.kind) for one in found] == [(2, "neglect"), (2, "misunderstanding"), (3, "neglect")]
    assert counted.counts["pairs not used: capo.pairs reached"] == 5
    assert "pairs of hallucination" not in counted.counts
    with pytest.raises(UserError, match="no pair is left"):
        pairs(made, [tree()], Capo(kinds=("random",)), folder(tmp_path))


def finished_before(made: Recipe, trees: list[SessionTree]) -> None:
    """The negatives stage as train-capo finds it."""
    write(made.folder("negatives") / "trees.jsonl", trees)
    (made.folder("negatives") / "manifest.json").write_text("{}", encoding="utf-8")


@pytest.fixture
def base(tmp_path: Path) -> Iterator[Path]:
    with tiny_model(tmp_path / "tiny") as made:
        yield made


# Nine steps either way: 4 sessions of 3 pairs, 2 sessions or 2 pairs a step.
LAYOUTS = {"tree": ["capo.epochs=4.5"], "pairs": ["capo.layout=pairs", "capo.epochs=1.5"]}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_trains_per_kind_and_resumes_with_the_same_losses(tmp_path: Path, base: Path, layout: str) -> None:
    data = write(tmp_path / "data.jsonl", first_turns(4))
    trees = [tree(one, turns=(2,)) for one in first_turns(4)]
    overrides = ["capo.save_every=3", "sft.epochs=2", *LAYOUTS[layout]]
    whole = recipe(tmp_path, base, *overrides, f"run.folder={tmp_path / 'whole'}", data=data)
    killed = recipe(tmp_path, base, *overrides, data=data)
    file = recipe_file(tmp_path, base, data)
    for made in (whole, killed):
        finished_before(made, trees)
        sft.run(made, "train-sft")
    capo.run(whole)
    steps = log(whole.folder("train-capo"))
    assert [line["step"] for line in steps] == list(range(1, 10))
    assert steps[0]["loss"] == pytest.approx(math.log(2), abs=1e-4)
    assert steps[-1]["loss"] < 0.5  # the negatives have words in common: easily learnt
    kinds = {key for line in steps for key in line if "/" in key and key.partition("/")[0] in KINDS}
    names = ("margin", "accuracy", "chosen", "rejected", "chosen_change")
    assert kinds == {f"{kind}/{name}" for kind in KINDS for name in names}
    for line in steps:
        margins = [line[f"{kind}/margin"] for kind in KINDS if f"{kind}/margin" in line]
        if layout == "pairs":  # each kind's mean margin lies among TRL's own
            assert min(margins) - 1e-5 <= line["rewards/margins"] <= max(margins) + 1e-5
        else:  # log(1 + e^-margin) is convex: the loss is at least that of the mean margin
            assert len(margins) == 3
            assert line["loss"] >= math.log1p(math.exp(-sum(margins) / 3)) - 1e-6
    found = manifest(whole.folder("train-capo"))
    assert found["pairs"] == 12
    assert found["counts"]["pairs of neglect"] == 4
    if layout == "tree":
        renderer = load_renderer(whole.model)
        rows = pairs(renderer, trees, whole.capo, folder(tmp_path))
        usual = sum(2 * len(row.prompt) + len(row.chosen) + len(row.rejected) for row in rows)
        assert found["tokens_in_pairs_layout"] == usual > 2 * found["tokens"]
    assert found["means"]["neglect/accuracy"] > 0.5

    assert killed_at(5, ["train-capo", str(file), *overrides]) == -9
    folder_ = killed.folder("train-capo")
    assert [path.name for path in folder_.glob("checkpoint-*")] == ["checkpoint-3"]
    capo.run(killed)
    resumed = log(folder_)
    assert [line["step"] for line in resumed] == list(range(1, 10))
    for key in ("loss", "grad_norm", "neglect/margin"):
        expected = [line.get(key) for line in steps]
        assert [line.get(key) for line in resumed] == pytest.approx(expected, abs=1e-6)
    first, second = (
        load_file(made.folder("train-capo") / "adapter" / "adapter_model.safetensors") for made in (whole, killed)
    )
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        torch.testing.assert_close(second[name], tensor, atol=1e-6, rtol=0)
    before = load_file(whole.folder("train-sft") / "adapter" / "adapter_model.safetensors")
    assert before.keys() == first.keys()  # one adapter of the SFT adapter's shape, no second one for the reference
    assert all(not torch.equal(first[name], before[name]) for name in first)


def trained(folder: Path, base: Path, trees: list[SessionTree], *overrides: str) -> list[dict[str, float]]:
    """The log of a CaPO run over an SFT adapter that is the same in every folder."""
    data = write(folder / "data.jsonl", first_turns(2))
    made = recipe(folder, base, f"run.folder={folder}", "capo.epochs=99", *overrides, data=data)
    finished_before(made, trees)
    sft.run(made, "train-sft")
    capo.run(made)
    return log(made.folder("train-capo"))


@pytest.mark.parametrize(
    "variant",
    [
        [],
        ["capo.sft_weight=0.7"],
        ["capo.dpo_weight=0.0", "capo.sft_weight=1.0"],
        ["capo.length_normalised=true", "capo.beta=5.0"],
    ],
    ids=str,
)
def test_step_losses_are_those_of_trl(tmp_path: Path, base: Path, variant: list[str]) -> None:
    """The six pairs of one session: one tree, or one batch of TRL's ``DPOTrainer``."""
    trees = [tree(first_turns(1, 3)[0])]
    common = ["capo.max_steps=4", "capo.accumulation=1", "capo.learning_rate=1e-3", "capo.warmup=0.0", *variant]
    ours = trained(tmp_path / "tree", base, trees, *common)
    theirs = trained(tmp_path / "pairs", base, trees, *common, "capo.layout=pairs", "capo.batch=6")
    assert len(ours) == len(theirs) == 4
    for key in ("loss", *(f"{kind}/margin" for kind in KINDS)):
        assert [line[key] for line in ours] == pytest.approx([line[key] for line in theirs], abs=1e-4), key
    changes = [[line["neglect/chosen_change"] for line in lines] for lines in (ours, theirs)]
    assert changes[0] == pytest.approx(changes[1], abs=1e-3)  # of sums near 1000 nats: neighbours are 6e-5 apart
    for key in ("grad_norm", "neglect/chosen", "neglect/rejected"):
        assert [line[key] for line in ours] == pytest.approx([line[key] for line in theirs], rel=1e-4), key
    assert abs(ours[-1]["loss"] - ours[0]["loss"]) > 1e-3  # something was trained


def test_without_dpo_the_negatives_do_not_matter(tmp_path: Path, base: Path) -> None:
    """``dpo_weight = 0`` with the SFT term is SFT continued on the chosen answers."""
    size = ["capo.warmup=0.0", "capo.max_steps=3", "capo.dpo_weight=0.0", "capo.sft_weight=1.0"]
    logs = [trained(tmp_path / text, base, [tree(text=f"It is {text}.")], *size) for text in ("cold", "as they say")]
    for key in ("loss", "nll"):
        assert [line[key] for line in logs[0]] == pytest.approx([line[key] for line in logs[1]], rel=1e-4)
    assert logs[0][-1]["loss"] < logs[0][0]["loss"] - 1e-3
    with pytest.raises(UserError, match="both 0, which trains nothing"):
        recipe(tmp_path, base, "capo.dpo_weight=0")


def test_a_seed_of_its_own_orders_the_sessions(tmp_path: Path, base: Path) -> None:
    trees = [tree(one, turns=(2,)) for one in first_turns(6)]
    size = ["capo.accumulation=1", "capo.max_steps=4", "sft.seed=0"]
    seeds = ([], ["capo.seed=0"], ["capo.seed=5"], ["run.seed=5"])
    plain, same, other, whole = (
        [line["neglect/chosen"] for line in trained(tmp_path / f"{index}", base, trees, *size, *seed)]
        for index, seed in enumerate(seeds)
    )
    assert plain == same != other == whole


def test_sessions_weigh_the_same_however_they_are_batched(tmp_path: Path, base: Path) -> None:
    """Five sessions of one to three pairs, in steps of three and two."""
    trees = [tree(one, turns=(2,)) for one in first_turns(5)]
    trees[1:3] = [t.model_copy(update={"branches": t.branches[:n]}) for n, t in enumerate(trees[1:3], 1)]
    logs = {}
    for batch, accumulation in ((3, 1), (1, 3), (1, 1)):
        size = [f"capo.batch={batch}", f"capo.accumulation={accumulation}", "capo.warmup=0.0", "capo.max_steps=4"]
        logs[batch, accumulation] = trained(tmp_path / f"{batch}x{accumulation}", base, trees, *size)
    for key in ("loss", "grad_norm", "neglect/margin"):
        three = [line[key] for line in logs[3, 1]]
        assert [line[key] for line in logs[1, 3]] == pytest.approx(three, rel=1e-3, abs=1e-5)
    assert [line["loss"] for line in logs[1, 1]] != pytest.approx([line["loss"] for line in logs[3, 1]], abs=1e-3)


def test_a_batch_of_two_and_one_of_one_are_three_sessions(tmp_path: Path, base: Path) -> None:
    trees = [tree(one, turns=(2,)) for one in first_turns(3)]
    size = ["capo.warmup=0.0", "capo.max_steps=3"]
    two = trained(tmp_path / "2x2", base, trees, "capo.batch=2", "capo.accumulation=2", *size)
    one = trained(tmp_path / "1x3", base, trees, "capo.batch=1", "capo.accumulation=3", *size)
    for key in ("loss", "grad_norm"):
        assert [line[key] for line in two] == pytest.approx([line[key] for line in one], rel=1e-3, abs=1e-5)


def test_checkpointing_changes_memory_alone(tmp_path: Path, base: Path) -> None:
    trees = [tree(one, turns=(2,)) for one in first_turns(2)]
    size = ["capo.warmup=0.0", "capo.max_steps=3"]
    kept = trained(tmp_path / "kept", base, trees, *size)
    again = ["capo.checkpointing=true", "sft.checkpointing=true"]
    recomputed = trained(tmp_path / "recomputed", base, trees, *size, *again)
    for key in ("loss", "grad_norm"):
        assert [line[key] for line in recomputed] == pytest.approx([line[key] for line in kept], rel=1e-4)


@pytest.mark.parametrize("layout", ["tree", "pairs"])
def test_the_context_reaches_training(tmp_path: Path, base: Path, layout: str) -> None:
    trees = [tree(one, turns=(2,)) for one in first_turns(2)]
    size = [f"capo.layout={layout}", "capo.max_steps=1", "capo.accumulation=6"]
    chosen = set()
    for how in ("session", "query", "other"):
        (line,) = trained(tmp_path / how, base, trees, f"capo.context={how}", *size)
        chosen.add(round(line["neglect/chosen"], 2))
    assert len(chosen) == 3


def test_weights_of_kinds_by_hand(tmp_path: Path, base: Path) -> None:
    # Every pair's first loss is ln 2: (2 + 1/2 + 1) / 3 of it.
    weights = "capo.weights={neglect = 2.0, hallucination = 0.5}"
    (line,) = trained(tmp_path, base, [tree(turns=(2,))], weights, "capo.max_steps=1")
    assert line["loss"] == pytest.approx(3.5 / 3 * math.log(2), abs=1e-5)
    with pytest.raises(UserError, match="weights need layout = tree"):
        recipe(tmp_path, base, weights, "capo.layout=pairs")


def test_dropout_of_the_sft_adapter_is_off(tmp_path: Path, base: Path) -> None:
    steps = trained(
        tmp_path, base, [tree(turns=(2,))], "sft.lora.dropout=0.5", "sft.learning_rate=0.1", "capo.max_steps=1"
    )
    assert [steps[0][f"{kind}/margin"] for kind in KINDS] == pytest.approx([0, 0, 0], abs=1e-5)


def test_chosen_answers_that_become_less_likely_are_flagged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    changes = [("neglect", 4.0), ("neglect", -2.0), ("random", 1.0), ("neglect", -6.5)]
    lines = [{"step": n, "loss": 0.7, f"{kind}/chosen_change": by} for n, (kind, by) in enumerate(changes, 1)]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    done = folder(tmp_path)
    trainer.conclude(done, 4)
    assert done.facts["chosen_fell"] == {"neglect": -6.5}
    assert done.facts["means"] == {"neglect/chosen_change": -1.5, "random/chosen_change": 1.0}
    assert "chosen answers ended less likely than before, by nats an answer: neglect -6.5" in capsys.readouterr().err
    (tmp_path / "log.jsonl").write_text(json.dumps(lines[0]) + "\n", encoding="utf-8")
    trainer.conclude(done, 1)
    assert done.facts["chosen_fell"] == {}
    assert capsys.readouterr().err == ""


def test_pairs_under_another_context(tmp_path: Path, base: Path) -> None:
    talks = [session(*(turn.content for turn in ICE.turns)), *first_turns(2, 3)]
    trees = [tree(one) for one in talks]
    trees[0] = SessionTree(
        dialogue=ICE, branches=(branch(ICE, 2, "neglect", "No.", context=talks[1].turns[:1]), *tree().branches)
    )
    file = write(tmp_path / "trees.jsonl", trees)

    def contexts(how: str) -> list[tuple[str, ...]]:
        found = list(in_context(recipe(tmp_path, base, f"capo.context={how}"), file))
        assert [one.dialogue for one in found] == [one.dialogue for one in trees]
        return [tuple(t.content for t in b.context or ()) for b in found[0].branches]

    own = (talks[1].queries[0],)  # what brings a context of its own keeps it
    assert contexts("session") == [own, *[()] * 6]
    assert contexts("query") == [own, *[("And snow?",)] * 3, *[("Why?",)] * 3]
    others = contexts("other")
    assert others[0] == own
    assert others == contexts("other")  # the seed decides, not the run
    for at, turn in ((1, 2), (4, 3)):
        assert others[at] == others[at + 1] == others[at + 2]  # the kinds of a turn differ in the answer alone
        assert others[at][-1] == ICE.queries[turn - 1]
        histories = [tuple(t.content for t in talk.turns[: 2 * (turn - 1)]) for talk in first_turns(2, 3)]
        assert others[at][:-1] in histories
    alone = write(tmp_path / "one.jsonl", trees[:1])
    with pytest.raises(UserError, match="no other session's history"):
        list(in_context(recipe(tmp_path, base, "capo.context=other"), alone))


@pytest.fixture
def single() -> Iterator[None]:
    with one_thread():
        yield


@pytest.mark.parametrize("layout", LAYOUTS)
def test_killed_behind_the_last_step_trains_no_further(
    tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch, layout: str
) -> None:
    data = write(tmp_path / "data.jsonl", first_turns(2))
    made = recipe(tmp_path, base, f"capo.layout={layout}", "capo.epochs=3", "capo.max_steps=3", data=data)
    finished_before(made, [tree(one, turns=(2,)) for one in first_turns(2)])
    sft.run(made, "train-sft")
    with monkeypatch.context() as patched:
        killed_in_conclude(patched)
        with pytest.raises(Killed):
            capo.run(made)
    adapter = made.folder("train-capo") / "adapter" / "adapter_model.safetensors"
    expected = adapter.read_bytes()
    adapter.unlink()
    monkeypatch.setattr(pair_trainer, "PairTrainer", None)  # no step, and no log-probs under the reference
    monkeypatch.setattr(capo_trainer, "CapoTrainer", None)
    capo.run(made)
    assert adapter.read_bytes() == expected
    assert manifest(made.folder("train-capo"))["steps"] == 3


def test_the_kinds_never_reach_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[dict[str, object]] = []
    monkeypatch.setattr(
        pair_trainer.trl.DPOTrainer, "compute_ref_log_probs", lambda self, model, inputs: seen.append(inputs)
    )
    batch = pair_trainer.PairPadding(pad_token_id=0)(
        [{"prompt_ids": [1], "chosen_ids": [2, 3], "rejected_ids": [4], "kind": "neglect"}]
    )
    assert batch["kinds"] == ["neglect"]
    pair_trainer.PairTrainer.compute_ref_log_probs(object.__new__(pair_trainer.PairTrainer), None, batch)
    assert seen[0].keys() == batch.keys() - {"kinds"}


@needs_real
@pytest.mark.usefixtures("single")
@pytest.mark.parametrize(("layout", "dtype"), [("tree", "auto"), ("tree", "float32"), ("pairs", "auto")])
def test_the_reference_is_the_sft_adapter_over_nf4(tmp_path: Path, layout: str, dtype: str) -> None:
    made = recipe(
        tmp_path,
        REAL,
        f"model.dtype={dtype}",
        f"capo.layout={layout}",
        "capo.max_steps=1",
        "capo.accumulation=3",
        "capo.learning_rate=1e-6",
        "capo.max_tokens=256",
    )
    talk = session("Why is ice cold?", "Because heat leaves your hand.", "And snow?", "Snow is ice with air in it.")
    finished_before(made, [tree(talk, "I do not know", turns=(2,))])
    model = load_trainable(made.model, None, Lora(r=4, alpha=8), checkpointing=False)
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:  # zero at first: an adapter that does nothing would not tell the references apart
            torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(made.folder("train-sft") / "adapter")
    del model
    (made.folder("train-sft") / "manifest.json").write_text("{}", encoding="utf-8")

    capo.run(made)
    (line,) = log(made.folder("train-capo"))
    margins = [line[f"{kind}/margin"] for kind in KINDS]  # one pair a kind: these are the pairs
    assert margins == pytest.approx([0, 0, 0], abs=1e-4)
    assert line["loss"] == pytest.approx(math.log(2), abs=1e-4)

    first, after = (
        load_file(made.folder(stage) / "adapter" / "adapter_model.safetensors") for stage in ("train-sft", "train-capo")
    )
    assert first.keys() == after.keys()
    for name, tensor in after.items():
        assert tensor.dtype == first[name].dtype == torch.float32
        # One step of 1e-6 away; rounded to bfloat16, as TRL leaves it, up to 2e-3 away.
        torch.testing.assert_close(tensor, first[name], atol=3e-6, rtol=0)

    adapted = load_for_inference(made.model, made.folder("train-sft") / "adapter")
    renderer = load_renderer(made.model)
    context = talk.before(2)
    sft_nll, _ = score(adapted, renderer, context, talk.answers[1])
    with adapted.disable_adapter():
        base_nll, _ = score(adapted, renderer, context, talk.answers[1])
    print(
        f"step-0 margins {margins}, loss {line['loss']}; chosen: trained {-line['neglect/chosen']:.3f}, "
        f"SFT {sft_nll:.3f}, bare base {base_nll:.3f} nats"
    )
    # bf16 sums over 12 tokens, in 4 bits and dequantised: 0.9 apart where measured; the bare base 23.
    assert -line["neglect/chosen"] == pytest.approx(sft_nll, abs=3)
    assert abs(sft_nll - base_nll) > 10
