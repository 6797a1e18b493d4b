"""The probe: its variants by hand, its trees against rows of their own, killed and resumed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from parrot_lite.chat.meter import Meter
from parrot_lite.errors import UserError
from parrot_lite.evaluate import bench, choices, evaluation, probe, report, written
from parrot_lite.evaluate.records import Choice, Label, Likelihood, Played, Question, Written
from parrot_lite.evaluate.variants import Variant, of_bench, of_logs
from parrot_lite.lm.model import load_for_inference, load_renderer
from parrot_lite.recipe import Local, Probe, Recipe
from parrot_lite.store import RunFolder, read
from parrot_lite.types import Branch, Dialogue, Kind, Negative, SessionTree
from tests.rows import score
from tests.tiny import first_turns, recipe, tiny_model, write


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with tiny_model(tmp_path_factory.mktemp("base") / "tiny") as folder:
        yield folder


def session(name: str, exchanges: int) -> Dialogue:
    made = Dialogue(id=name, source="test")
    for turn in range(1, exchanges + 1):
        made = made.say(f"{name}q{turn}").say(f"{name}a{turn}")
    return made


def variants(sessions: list[Dialogue], settings: Probe, seed: int = 0) -> list[Variant]:
    return [one for found in of_logs(sessions, {}, settings, seed) for one in found]


def told(found: list[Variant], dialogue: str, turn: int) -> dict[str, str]:
    return {
        one.condition: " ".join(message.content for message in one.context.turns)
        for one in found
        if (one.dialogue, one.query.turn) == (dialogue, turn)
    }


def test_a_row_scores_as_the_loss_of_transformers(tmp_path: Path, base: Path) -> None:
    """The oracle of the other tests, and with it the renderer's rows."""
    made = recipe(tmp_path, base)
    model, renderer = load_for_inference(made.model, None), load_renderer(made.model)
    for dialogue in first_turns(3, 3):
        context, answer = dialogue.before(3), dialogue.answers[2]
        nll, tokens = score(model, renderer, context, answer)
        # Laid down by hand, not by the renderer: the answer and its end-of-turn mark are the labels.
        said = "".join(f"<|im_start|>{t.role}\n{t.content}<|im_end|>\n" for t in context.turns)
        prompt = renderer.tokenizer(said + "<|im_start|>assistant\n", add_special_tokens=False).input_ids
        reply = renderer.tokenizer(answer + "<|im_end|>", add_special_tokens=False).input_ids
        assert renderer.row(context, answer) == (tuple(prompt), tuple(reply))
        assert renderer.row(context, answer, ended=False) == (tuple(prompt), tuple(reply[:-1]))
        ids = torch.tensor([prompt + reply])
        labels = torch.tensor([[-100] * len(prompt) + reply])
        with torch.no_grad():
            loss = model(input_ids=ids, labels=labels).loss.item()
        assert tokens == len(reply)
        assert nll / tokens == pytest.approx(loss, abs=1e-5)


def test_variants_by_hand() -> None:
    found = variants([session("a", 3), session("b", 2)], Probe(turns_per_session=2))
    assert told(found, "a", 1) == {"true": "aq1"}
    assert told(found, "a", 2) == {"true": "aq1 aa1 aq2", "swapped": "bq1 ba1 aq2", "withheld": "aq2"}
    assert told(found, "a", 3) == {
        "true": "aq1 aa1 aq2 aa2 aq3",
        "swapped": "bq1 ba1 bq2 ba2 aq3",
        "shortened": "aq1 aa1 aq3",
        "scrambled": "aq2 aa2 aq1 aa1 aq3",
        "withheld": "aq3",
    }
    assert told(found, "b", 2)["swapped"] == "aq1 aa1 bq2"
    assert {one.text for one in found if (one.dialogue, one.query.turn) == ("a", 3)} == {"aa3"}
    assert len(found) == 1 + 3 + 5 + 1 + 3
    few = variants([session("a", 3), session("b", 2)], Probe(conditions=("withheld", "true")))
    assert told(few, "a", 3) == {"true": "aq1 aa1 aq2 aa2 aq3", "withheld": "aq3"}


def test_the_first_turn_and_the_latest_ones() -> None:
    found = variants([session("a", 4), session("b", 1), session("c", 2)], Probe(turns_per_session=2))
    scored = dict.fromkeys((one.dialogue, one.query.turn) for one in found)
    assert list(scored) == [("a", 1), ("a", 3), ("a", 4), ("b", 1), ("c", 1), ("c", 2)]


def test_one_other_history_a_session_as_long_as_the_true_one_where_one_is() -> None:
    sessions = [session("a", 4), session("b", 1), session("c", 5), session("d", 2)]
    found = [one for one in variants(sessions, Probe(turns_per_session=9), seed=3) if one.condition == "swapped"]
    for name in "acd":
        histories = [one.context.turns[:-1] for one in found if one.dialogue == name]
        longest = max(histories, key=len)
        assert {turn.content[0] for turn in longest} not in ({name}, set())
        assert len({turn.content[0] for turn in longest}) == 1
        for turn, history in enumerate(histories, 2):
            assert history == longest[: 2 * (turn - 1)]
    assert len([one for one in found if one.dialogue == "c"][-1].context.turns) == 2 * 4 + 1  # of a, which has four


def test_marked_by_the_rule_of_the_turn() -> None:
    dialogue = session("a", 1).say("Why is it so?").say("So.").say("Name three rivers of Peru in alphabetical order.")
    found = {one.query.turn: one.query.rule for one in variants([dialogue.say("R."), session("b", 3)], Probe())[:9]}
    assert found[2] is not None  # "it"
    assert found[3] is None


def test_the_same_writers_answers_stand_beside_the_sessions() -> None:
    settings = Probe(answers=("session", "same-writer"), turns_per_session=1)
    wrote = {("a", 3): Written(dialogue="a", turn=3, text="other", ended=False)}
    found, _ = of_logs([session("a", 3), session("b", 2)], wrote, settings, 0)
    mine = {(one.answer, one.condition): one for one in found if one.query.turn == 3}
    assert len(mine) == 2 * 5
    for (answer, condition), one in mine.items():
        assert (one.text, one.ended) == (("other", False) if answer == "same-writer" else ("aa3", True))
        assert one.context == mine["session", condition].context
    assert {one.answer for one in found if one.query.turn == 1} == {"session"}


def test_played_sessions_by_their_labels() -> None:
    alone, leaning = Label(kinds=("self-contained", "shift")), Label(kinds=("ellipsis",), leans_on=1)
    labels = (alone, leaning, None, alone)
    questions = [
        Question(id=name, category="c", queries=("q",) * 4, references=(None,) * 4, labels=labels) for name in "ab"
    ]
    played = [Played(model="m", category="c", dialogue=session(*one)) for one in (("a", 4), ("b", 1))]
    found, ended_early = of_bench(played, questions, Probe(), 0)
    assert {(one.query.turn, one.query.phenomena) for one in found} == {
        (2, ("ellipsis",)),
        (4, ("self-contained", "shift")),
    }
    assert told(found, "a", 4)["swapped"] == "bq1 ba1 aq4"  # all that b has
    assert {one.answer for one in found} == {"played"}
    assert ended_early == []
    failed = played[1].model_copy(update={"dialogue": Dialogue(id="b", source="bench")})
    alone_there, _ = of_bench([played[0], failed], questions, Probe(), 0)
    assert set(told(alone_there, "a", 4)) == {"true", "shortened", "scrambled", "withheld"}  # nothing to swap with


def test_the_split_decides_which_sessions_are_scored(tmp_path: Path, base: Path) -> None:
    made = recipe(tmp_path, base)
    finished_logs(made, [session("h", 2), session("i", 2)])
    write(made.folder("logs") / "selection.jsonl", [session("s", 2), session("t", 2)])
    probed = Probe(split="selection")
    chosen = made.model_copy(update={"eval": made.eval.model_copy(update={"probe": probed})})
    assert [one.id for one in bench.heldout(made, Probe())] == ["h", "i"]
    assert [one.id for one in bench.heldout(chosen, probed)] == ["s", "t"]
    assert bench.scored_on(made) == []
    assert bench.scored_on(chosen)[0][1].startswith("selection sessions")


def finished_logs(made: Recipe, heldout: list[Dialogue]) -> RunFolder:
    write(made.folder("logs") / "heldout.jsonl", heldout)
    (made.folder("logs") / "manifest.json").write_text("{}", encoding="utf-8")
    return RunFolder(made.folder("eval"), "eval")


@pytest.mark.parametrize("tree_tokens", [1024, 4096])
def test_a_tree_scores_as_rows_of_their_own(tmp_path: Path, base: Path, tree_tokens: int) -> None:
    """Sessions parted into several trees, and several sessions in one."""
    settings = Probe(answers=("session", "same-writer"), tree_tokens=tree_tokens)
    sessions = first_turns(4, 4)
    wrote = {
        (one.id, turn): Written(dialogue=one.id, turn=turn, text=text)
        for one in sessions
        for turn, text in ((2, "It is because of the wind."), (3, one.answers[2]), (4, one.answers[3] + " Indeed."))
    }
    made = recipe(tmp_path, base)
    renderer, folder = load_renderer(made.model), RunFolder(tmp_path, "eval")
    wanted = list(of_logs(sessions, wrote, settings, 0))
    batches = probe.laid_down(renderer, wanted, settings, folder)
    assert max(len(batch.tree) for batch in batches) <= tree_tokens
    assert sorted(one.key for batch in batches for one in batch.variants) == sorted(
        one.key for s in wanted for one in s
    )
    assert folder.counts["probe: tokens of trees"] == sum(len(batch.tree) for batch in batches)
    assert folder.counts["probe: tokens of rows"] > 1.5 * folder.counts["probe: tokens of trees"]
    plain = load_for_inference(made.model, None)
    model = probe.loaded(made, Local(kind="local"), settings.max_tokens)
    seen = []
    for batch in batches:
        for variant, found in zip(batch.variants, probe.scored(model, "base", batch), strict=True):
            nll, tokens = score(plain, renderer, variant.context, variant.text)
            assert found.tokens == tokens
            assert found.nll / tokens == pytest.approx(nll / tokens, abs=1e-4), variant.key
            seen.append(round(nll, 3))
    assert len(set(seen)) > 0.8 * len(seen)


def test_runs_and_resumes(tmp_path: Path, base: Path) -> None:
    made = recipe(tmp_path, base, "eval.probe.sessions=3", "eval.probe.turns_per_session=2")
    folder = finished_logs(made, first_turns(4, 3))
    probe.run(made, folder)
    file = folder.path / "likelihoods.jsonl"
    whole = file.read_bytes()
    records = list(read(file, Likelihood))
    assert len(records) == 3 * (1 + 3 + 5)  # sessions; conditions at turns 1, 2 and 3
    assert folder.counts["probe: likelihoods a model"] == len(records)
    assert folder.counts["probe: session answers scored"] == 9
    for name in {one.dialogue for one in records}:
        for turn in (1, 2, 3):
            own = [one for one in records if (one.dialogue, one.turn) == (name, turn)]
            assert len({one.tokens for one in own}) == 1
            assert len({one.nll for one in own}) == len(own)
    lines = whole.splitlines(keepends=True)
    file.write_bytes(b"".join(lines[:7]) + lines[7][:20])  # killed while writing the eighth
    probe.run(made, RunFolder(made.folder("eval"), "eval"))
    assert file.read_bytes() == whole
    stamp = file.stat().st_mtime_ns
    probe.run(made, RunFolder(made.folder("eval"), "eval"))
    assert file.stat().st_mtime_ns == stamp
    assert file.read_bytes() == whole


def test_one_session_has_no_other_history(tmp_path: Path, base: Path) -> None:
    made = recipe(tmp_path, base, "eval.probe.sessions=1")
    with pytest.raises(UserError, match=r"^eval\.probe\.sessions: .* needs two\. Raise it, or logs\.heldout$"):
        probe.run(made, finished_logs(made, first_turns(4, 3)))


def test_answers_that_are_too_long_are_left_out_under_all_histories(tmp_path: Path, base: Path) -> None:
    made = recipe(tmp_path, base)
    renderer = load_renderer(made.model)
    heldout = first_turns(3, 3)
    sizes: dict[tuple[str, int], int] = {}
    for one in variants(heldout, Probe(), made.run.seed):
        prompt, answer = renderer.row(one.context, one.text)
        at = one.dialogue, one.query.turn
        sizes[at] = max(sizes.get(at, 0), len(prompt) + len(answer))
    limit = sorted(sizes.values())[4]
    fitting = [at for at, size in sizes.items() if size <= limit]
    assert 0 < len(fitting) < len(sizes)
    tight = recipe(tmp_path, base, f"eval.probe.max_tokens={limit}", f"eval.probe.tree_tokens={limit}")
    folder = finished_logs(tight, heldout)
    probe.run(tight, folder)
    left_out = len(sizes) - len(fitting)
    assert folder.counts["probe, left out: session answer, longer than probe.max_tokens"] == left_out
    records = list(read(folder.path / "likelihoods.jsonl", Likelihood))
    assert {(one.dialogue, one.turn) for one in records} == set(fitting)
    assert len(records) == sum({1: 1, 2: 3, 3: 5}[turn] for _, turn in fitting)


def test_the_writer_writes_once_and_its_cut_answers_have_no_end(tmp_path: Path, base: Path) -> None:
    made = recipe(
        tmp_path,
        base,
        "eval.probe.sessions=2",
        'eval.probe.answers=["same-writer"]',
        "eval.probe.decoding.max_tokens=5",
    )
    settings = made.eval.probe
    assert settings is not None
    assert settings.writer == Local(kind="local")
    folder = finished_logs(made, first_turns(4, 3))
    folder.path.mkdir(parents=True)
    with Meter(made, folder.path) as meter:
        written.run(made, settings, folder, meter)
        file = folder.path / "written.jsonl"
        wrote = list(read(file, Written))
        assert {(one.dialogue, one.turn) for one in wrote} == {(s.id, t) for s in first_turns(2) for t in (2, 3)}
        lines = file.read_bytes().splitlines(keepends=True)
        file.write_bytes(b"".join(lines[:1]) + lines[1][:9])
        written.run(made, settings, folder, meter)
    assert list(read(file, Written)) == wrote
    probe.run(made, folder)
    records = [one for one in read(folder.path / "likelihoods.jsonl", Likelihood) if one.answer == "same-writer"]
    texts = {(one.dialogue, one.turn): one for one in wrote if one.text}
    assert {(one.dialogue, one.turn) for one in records} == set(texts)
    assert any(not one.ended for one in wrote)
    renderer = load_renderer(made.model)
    for one in records:
        wrote_it = texts[one.dialogue, one.turn]
        assert one.tokens == len(renderer.encode(wrote_it.text or "")) + wrote_it.ended


def test_a_whole_evaluation_with_every_kind_of_answer(
    tmp_path: Path, base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Played and written by the model itself; its tables keep within a terminal."""
    keys = ("sessions=4", "max_tokens=6", "probe.sessions=3", "probe.turns_per_session=2", "probe.bench_from=base")
    answers = ('probe.answers=["session", "same-writer"]', "probe.decoding.max_tokens=6", "probe.max_tokens=2048")
    made = recipe(tmp_path, base, *(f"eval.{key}" for key in (*keys, *answers)), 'eval.models.again={kind="local"}')
    finished_logs(made, first_turns(4, 3))
    evaluation.run(made)
    folder = made.folder("eval")
    records = list(read(folder / "likelihoods.jsonl", Likelihood))
    assert {one.answer for one in records} == {"session", "same-writer", "played"}
    by_model = [
        {(one.dialogue, one.turn, one.answer, one.condition): one.nll for one in records if one.model == name}
        for name in ("base", "again")
    ]
    assert by_model[0] == by_model[1]
    played = [one for one in records if one.answer == "played"]
    assert all(one.phenomena and one.rule is None and one.turn > 1 for one in played)
    screen = capsys.readouterr().out
    for title in ("of the session's answers", "of the same writer's answers", "of the played answers"):
        assert title in screen
    assert max(map(len, screen.splitlines())) <= 100
    report.run(made)
    screen = capsys.readouterr().out
    assert "of the played answers by phenomenon" in screen
    assert max(map(len, screen.splitlines())) <= 100
    evaluation.run(made)  # finished: prints again
    assert list(read(folder / "likelihoods.jsonl", Likelihood)) == records


def test_an_architecture_without_trees_is_refused_before_anything_is_played(tmp_path: Path, base: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(base, other)
    config = json.loads((other / "config.json").read_text())
    config["rope_parameters"] = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}
    (other / "config.json").write_text(json.dumps(config))
    made = recipe(tmp_path, other, "eval.probe.max_tokens=4096")
    finished_logs(made, first_turns(3, 2))
    with pytest.raises(UserError, match=r"dynamic positions beyond 2048 tokens"):
        evaluation.run(made)
    assert not (made.folder("eval") / "answers.jsonl").exists()


def test_forced_choice_scores_as_rows_of_their_own(tmp_path: Path, base: Path) -> None:
    heldout = first_turns(4, 3)
    texts: list[tuple[int, Kind, str, str | None]] = [
        (2, "neglect", "Nobody could say.", None),
        (3, "neglect", "It depends on the wind.", None),
        (3, "same-writer", "It depends on the wind.", "As ever."),
    ]
    branches = tuple(
        Branch(
            turn=turn,
            rule="pronoun",
            negative=Negative(kind=kind, text=text, how="structural", writer="w", done="d", saw=heldout[0].turns[:1]),
            chosen=chosen,
        )
        for turn, kind, text, chosen in texts
    )
    # A pair that is trained under a context of its own is chosen under the true history as well.
    apart = (*branches[:2], branches[2].model_copy(update={"context": heldout[3].turns[:1]}))
    trees = [SessionTree(dialogue=one, branches=some) for one, some in zip(heldout, (branches, apart), strict=False)]
    other = trees[0].model_copy(update={"dialogue": trees[0].dialogue.model_copy(update={"id": "of training"})})
    file = write(tmp_path / "trees.jsonl", [*trees, other])
    made = recipe(tmp_path, base, "eval.probe.sessions=2", f"eval.probe.trees={file}")
    folder = finished_logs(made, heldout)
    probe.run(made, folder)
    path = folder.path / "choices.jsonl"
    whole = path.read_bytes()
    found = list(read(path, Choice))
    assert folder.counts["probe, left out: session of eval.probe.trees that is not held out"] == 1
    assert [(one.dialogue, one.turn, one.kind) for one in found] == [
        (tree.id, turn, kind) for tree in trees for turn, kind, *_ in texts
    ]
    model, renderer = load_for_inference(made.model, None), load_renderer(made.model)
    for one in found:
        (tree,) = (tree for tree in trees if tree.id == one.dialogue)
        (branch,) = (branch for branch in tree.at(one.turn) if branch.negative.kind == one.kind)
        for text, mean in ((tree.chosen(branch), one.chosen), (branch.negative.text, one.negative)):
            nll, tokens = score(model, renderer, tree.dialogue.before(one.turn), text)
            assert mean == pytest.approx(-nll / tokens, abs=1e-4)
    path.write_bytes(whole[: len(whole) // 2])
    probe.run(made, RunFolder(made.folder("eval"), "eval"))
    assert path.read_bytes() == whole
    write(file, [other])
    settings = made.eval.probe
    assert settings is not None
    with pytest.raises(UserError, match=r"holds no negative of a held-out session\. Run"):
        choices.check(made, settings)
    with pytest.raises(UserError, match="holds no negative of a held-out session"):
        probe.run(made, RunFolder(made.folder("eval"), "eval"))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ('eval.probe.conditions=["swapped"]', "conditions must have the true history"),
        ("eval.probe.tree_tokens=100", "tree_tokens = 100 is below max_tokens = 1024"),
        ("eval.probe.bench_from=other", 'bench_from = "other" is none of eval.models'),
    ],
)
def test_settings_that_do_not_hold(tmp_path: Path, base: Path, override: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        recipe(tmp_path, base, override)
