from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from parrot_lite.errors import UserError
from parrot_lite.evaluate import probe
from parrot_lite.evaluate.records import Likelihood
from parrot_lite.lm.model import load_for_inference, load_renderer
from parrot_lite.recipe import Probe, Recipe
from parrot_lite.store import RunFolder, read
from parrot_lite.types import Dialogue
from tests.tiny import first_turns, recipe, tiny_model, write


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with tiny_model(tmp_path_factory.mktemp("base") / "tiny") as folder:
        yield folder


def session(name: str, exchanges: int) -> Dialogue:
    made = Dialogue(id=name, source="test")
    for turn in range(1, exchanges + 1):
        made = made.say(f"{name} query {turn}").say(f"{name} answer {turn}")
    return made


def test_score_is_the_loss_of_transformers(tmp_path: Path, base: Path) -> None:
    made = recipe(tmp_path, base)
    model, renderer = load_for_inference(made.model, None), load_renderer(made.model)
    for dialogue in first_turns(3, 3):
        context, answer = dialogue.before(3), dialogue.answers[2]
        nll, tokens = probe.score(model, renderer, context, answer)
        # Laid down by hand, not by the renderer: the answer and its end-of-turn mark are the labels.
        told = "".join(f"<|im_start|>{t.role}\n{t.content}<|im_end|>\n" for t in context.turns)
        prompt = renderer.tokenizer(told + "<|im_start|>assistant\n", add_special_tokens=False).input_ids
        reply = renderer.tokenizer(answer + "<|im_end|>", add_special_tokens=False).input_ids
        ids = torch.tensor([prompt + reply])
        labels = torch.tensor([[-100] * len(prompt) + reply])
        with torch.no_grad():
            loss = model(input_ids=ids, labels=labels).loss.item()
        assert tokens == len(reply)
        assert nll / tokens == pytest.approx(loss, abs=1e-5)
        bare, _ = probe.score(model, renderer, context.model_copy(update={"turns": context.turns[-1:]}), answer)
        assert abs(bare - nll) > 1e-3  # the history reaches the score


def test_contexts_by_hand() -> None:
    sessions = [session("a", 3), session("b", 2)]
    (a2, a3), (b2,) = (
        [items for items in probe.items(sessions, Probe(turns_per_session=2), seed=0) if items[0][0] == name]
        for name in ("a", "b")
    )

    def told(items: list[probe.Item]) -> dict[str, tuple[str, ...]]:
        return {condition: tuple(turn.content for turn in context.turns) for _, _, _, condition, context, _ in items}

    assert told(a2) == {
        "true": ("a query 1", "a answer 1", "a query 2"),
        "swap": ("b query 1", "b answer 1", "a query 2"),
        "none": ("a query 2",),
    }
    assert told(a3) == {
        "true": ("a query 1", "a answer 1", "a query 2", "a answer 2", "a query 3"),
        "swap": ("b query 1", "b answer 1", "b query 2", "b answer 2", "a query 3"),
        "none": ("a query 3",),
    }
    assert told(b2)["swap"] == ("a query 1", "a answer 1", "b query 2")
    assert [items[0][1] for items in (a2, a3, b2)] == [2, 3, 2]
    assert {item[5] for item in a3} == {"a answer 3"}


def test_only_the_latest_turns_and_never_the_first() -> None:
    sessions = [session("a", 4), session("b", 1), session("c", 2)]
    scored = [(i[0][0], i[0][1]) for i in probe.items(sessions, Probe(turns_per_session=2), seed=0)]
    assert scored == [("a", 3), ("a", 4), ("c", 2)]


def test_a_swapped_history_is_as_long_as_the_true_one_where_one_is() -> None:
    sessions = [session("a", 4), session("b", 1), session("c", 5), session("d", 2)]
    for items in probe.items(sessions, Probe(turns_per_session=9), seed=3):
        name, turn = items[0][:2]
        swap = next(context for *_, condition, context, _ in items if condition == "swap")
        other = swap.turns[0].content[0]
        assert other != name
        assert {t.content[0] for t in swap.turns[:-1]} == {other}
        if name != "c" or turn <= 4:  # nobody else has the four exchanges... but a
            assert len(swap.turns) == 2 * (turn - 1) + 1


def test_marked_by_the_rule_of_the_turn() -> None:
    dialogue = session("a", 1).say("Why is it so?").say("So.").say("Name three rivers of Peru in alphabetical order.")
    found = list(probe.items([dialogue.say("R."), session("b", 3)], Probe(), seed=0))[:2]
    assert found[0][0][2] is not None  # "it"
    assert found[1][0][2] is None


def finished_logs(made: Recipe, heldout: list[Dialogue]) -> RunFolder:
    write(made.folder("logs") / "heldout.jsonl", heldout)
    (made.folder("logs") / "manifest.json").write_text("{}", encoding="utf-8")
    return RunFolder(made.folder("eval"), "eval")


def test_runs_and_resumes(tmp_path: Path, base: Path) -> None:
    made = recipe(tmp_path, base, "eval.probe.sessions=3", "eval.probe.turns_per_session=2")
    folder = finished_logs(made, first_turns(4, 3))
    probe.run(made, folder)
    file = folder.path / "likelihoods.jsonl"
    whole = file.read_bytes()
    records = list(read(file, Likelihood))
    assert len(records) == 3 * 2 * 3  # sessions, turns, conditions
    assert folder.counts["probe: turns scored"] == 6
    assert {(one.model, one.turn) for one in records} == {("base", 2), ("base", 3)}
    for number in range(0, 18, 3):
        assert [one.condition for one in records[number : number + 3]] == ["true", "swap", "none"]
        assert len({one.tokens for one in records[number : number + 3]}) == 1
        assert len({one.nll for one in records[number : number + 3]}) == 3
    lines = whole.splitlines(keepends=True)
    file.write_bytes(b"".join(lines[:7]) + lines[7][:20])  # killed while writing the eighth
    probe.run(made, RunFolder(made.folder("eval"), "eval"))
    assert file.read_bytes() == whole
    written = file.stat().st_mtime_ns
    probe.run(made, RunFolder(made.folder("eval"), "eval"))
    assert file.stat().st_mtime_ns == written
    assert file.read_bytes() == whole


def test_one_session_has_no_other_history(tmp_path: Path, base: Path) -> None:
    made = recipe(tmp_path, base, "eval.probe.sessions=1")
    with pytest.raises(UserError, match=r"^eval\.probe\.sessions: .* needs two\. Raise it, or logs\.heldout$"):
        probe.run(made, finished_logs(made, first_turns(4, 3)))


def test_turns_that_are_too_long_are_left_out_in_all_conditions(tmp_path: Path, base: Path) -> None:
    made = recipe(tmp_path, base)
    renderer = load_renderer(made.model)
    heldout = first_turns(3, 3)
    sizes = [
        max(len(renderer.render(context.say(answer)).ids) for *_, context, answer in items)
        for items in probe.items(heldout, Probe(), made.run.seed)
    ]
    limit = sorted(sizes)[2]
    fitting = sum(size <= limit for size in sizes)
    assert 0 < fitting < len(sizes)
    tight = recipe(tmp_path, base, f"eval.probe.max_tokens={limit}")
    folder = finished_logs(tight, heldout)
    probe.run(tight, folder)
    assert folder.counts["probe: turns scored"] == fitting
    assert folder.counts["probe: turns left out, longer than probe.max_tokens"] == len(sizes) - fitting
    assert len(list(read(folder.path / "likelihoods.jsonl", Likelihood))) == 3 * fitting
