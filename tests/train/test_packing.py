from __future__ import annotations

from pathlib import Path

import pytest

from parrot_lite.errors import UserError
from parrot_lite.lm.tokens import Renderer
from parrot_lite.lm.tree import Limb
from parrot_lite.recipe import Capo
from parrot_lite.store import RunFolder
from parrot_lite.train.packing import Packed, pack, packed
from parrot_lite.train.pairs import pairs
from parrot_lite.types import KINDS, SessionTree
from tests.lm.test_template import shared
from tests.lm.tokenizers import TEMPLATES
from tests.train.trees import ALONE, ICE, branch, tree

OTHER = (*tree().dialogue.turns[2:4], *ALONE)  # "And snow?" asked twice: a history that is not the session's


def folder(path: Path) -> RunFolder:
    return RunFolder(path, "train-capo")


def rows(one: Packed) -> list[tuple[list[int], list[int], str]]:
    """The pairs read back from the tree: the whole row of the chosen and of the rejected answer."""

    def row(place: int) -> list[int]:
        return one.tree.way(one.tree.answers[place]).tolist()

    return [(row(c.chosen), row(c.rejected), c.kind) for c in one.contrasts]


TREES = {
    "the session's own answers": tree(),
    "one turn alone": tree(turns=(2,)),
    "answers of the negatives' writer": SessionTree(
        dialogue=ICE,
        branches=(
            branch(ICE, 2, "neglect", "Yes.", chosen="Snow, too."),
            branch(ICE, 2, "hallucination", "No.", chosen="Snow, too."),
            branch(ICE, 3, "neglect", "No."),
            branch(ICE, 3, "random", "It too.", chosen="So it is."),
        ),
    ),
    "an answer of the session as the worse one": SessionTree(
        dialogue=ICE, branches=(branch(ICE, 2, "same-writer", "It too.", chosen="Snow, too."),)
    ),
    "contexts of their own": SessionTree(
        dialogue=ICE,
        branches=(
            branch(ICE, 2, "neglect", "Yes.", context=ALONE),
            branch(ICE, 2, "hallucination", "No.", context=ALONE),
            branch(ICE, 2, "neglect", "Yes.", context=OTHER),
            branch(ICE, 2, "neglect", "Yes.", chosen="Snow, too.", context=ALONE),
            branch(ICE, 3, "neglect", "Yes."),
        ),
    ),
}


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("name", TREES)
def test_a_tree_holds_the_rows_of_the_usual_layout(tmp_path: Path, template: str, name: str) -> None:
    """Against ``pairs``, which renders every row by itself."""
    made, one = shared(template), TREES[name]
    section = Capo(kinds=(*KINDS, "random", "same-writer"))
    expected = [
        ([*p.prompt, *p.chosen], [*p.prompt, *p.rejected], p.kind)
        for p in pairs(made, [one], section, folder(tmp_path))
    ]
    (laid,) = packed(made, [one], section, folder(tmp_path), 1)
    assert sorted(rows(laid)) == sorted(expected)
    assert laid.pair_tokens == sum(len(chosen) + len(rejected) for chosen, rejected, _ in expected)
    assert len(laid.tree) < laid.pair_tokens


def test_every_text_lies_there_once() -> None:
    made = shared("chatml")
    laid = pack(made, tree(), tree().branches)
    whole = made.render(ICE)
    end = max(i for i, message in enumerate(whole.messages) if message == 5) + 1
    assert tuple(laid.tree.ids[:end]) == whole.ids[:end]
    assert len(laid.tree.limbs) == 1 + 6
    assert [(limb.root, limb.fork) for limb in laid.tree.limbs[1:4]] == [(0, laid.tree.answers[0].start)] * 3
    assert [one.chosen for one in laid.contrasts] == [0, 0, 0, 4, 4, 4]
    assert [one.kind for one in laid.contrasts] == [*KINDS, *KINDS]


def test_the_trunk_ends_where_nothing_needs_it() -> None:
    made = shared("chatml")
    ends = {message: index + 1 for index, message in enumerate(made.render(ICE).messages)}
    at_two = pack(made, tree(), [b for b in tree().branches if b.turn == 2])
    assert at_two.tree.limbs[0] == Limb(0, 0, 0, ends[3])  # with its second answer, without the third exchange
    own = branch(ICE, 2, "neglect", "Yes.", chosen="Snow, too.")
    before = pack(made, SessionTree(dialogue=ICE, branches=(own,)), [own])
    fork = len(made.prompt(ICE.before(2)))
    assert before.tree.limbs[0] == Limb(0, 0, 0, fork)  # the session's second answer is nobody's
    assert [limb.fork for limb in before.tree.limbs[1:]] == [fork, fork]


def size(made: Renderer, one: SessionTree, cut: int) -> int:
    """Tokens of a tree without its first exchanges, counted from whole renderings."""
    shown = [b for b in one.branches if b.turn > cut]
    last = max(b.turn for b in shown)

    def length(turn: int, text: str) -> int:
        context = ICE.before(turn).model_copy(update={"turns": ICE.before(turn).turns[2 * cut :]})
        messages = made.render(context.say(text)).messages
        return max(i for i, message in enumerate(messages) if message is not None) + 1

    def prompt(turn: int) -> int:
        context = ICE.before(turn)
        return len(made.prompt(context.model_copy(update={"turns": context.turns[2 * cut :]})))

    branches = sum(length(b.turn, b.negative.text) - prompt(b.turn) for b in shown)
    return length(last, ICE.answers[last - 1]) + branches


def test_long_sessions_lose_their_first_exchanges_with_what_hangs_there(tmp_path: Path) -> None:
    made, one = shared("chatml"), tree()
    sizes = [size(made, one, cut) for cut in range(3)]
    assert sizes[0] > sizes[1] > sizes[2]
    for limit, cut, left in ((sizes[0], 0, 6), (sizes[0] - 1, 1, 6), (sizes[1], 1, 6), (sizes[1] - 1, 2, 3)):
        counted = folder(tmp_path)
        (laid,) = packed(made, [one], Capo(tree_tokens=limit), counted, 1)
        assert len(laid.tree) == sizes[cut]
        assert len(laid.contrasts) == left
        assert counted.counts["sessions whose first exchanges were cut"] == (cut > 0)
        assert counted.counts["pairs left out: their session is too long"] == 6 - left
        shown = ICE.model_copy(update={"turns": ICE.turns[2 * cut :]})
        assert tuple(laid.tree.ids[: laid.tree.limbs[0].end]) == made.render(shown).ids[: laid.tree.limbs[0].end]
    counted = folder(tmp_path)
    long = SessionTree(dialogue=ICE, branches=(branch(ICE, 3, "neglect", "It is cold." * 30),))
    assert len(packed(made, [long, one], Capo(tree_tokens=sizes[2]), counted, 2)) == 1
    assert counted.counts["pairs left out: their session is too long"] == 1 + 3
    with pytest.raises(UserError, match="no pair is left"):
        packed(made, [long], Capo(tree_tokens=sizes[2]), folder(tmp_path), 1)


def test_the_longest_way_is_bounded_too(tmp_path: Path) -> None:
    made, one = shared("chatml"), tree()
    (whole,) = packed(made, [one], Capo(), folder(tmp_path), 1)
    longest = max(max(len(chosen), len(rejected)) for chosen, rejected, _ in rows(whole))
    assert whole.tree.context == longest
    (same,) = packed(made, [one], Capo(max_tokens=longest), folder(tmp_path), 1)
    assert same == whole
    (cut,) = packed(made, [one], Capo(max_tokens=longest - 1), folder(tmp_path), 1)
    assert cut == pack(made, one, one.branches, cut=1)


def test_what_is_too_long_by_itself_costs_nothing_else(tmp_path: Path) -> None:
    made, counted = shared("chatml"), folder(tmp_path)
    long = branch(ICE, 3, "random", "It is cold." * 60)
    one = SessionTree(dialogue=ICE, branches=(*tree().branches, long))
    limit = pack(made, tree(), tree().branches).tree.context
    (laid,) = packed(made, [one], Capo(max_tokens=limit, kinds=(*KINDS, "random")), counted, 1)
    assert laid == pack(made, tree(), tree().branches)
    assert counted.counts["pairs left out: their session is too long"] == 1
    assert counted.counts["sessions whose first exchanges were cut"] == 0


def test_contexts_of_their_own_lose_their_own_first_exchanges(tmp_path: Path) -> None:
    made = shared("chatml")
    long = (*ICE.turns[:4], *ALONE)
    own = (branch(ICE, 2, "neglect", "Yes.", context=long), branch(ICE, 3, "neglect", "No.", context=ALONE))
    one = SessionTree(dialogue=ICE, branches=own)
    whole = pack(made, one, own).tree.context
    (laid,) = packed(made, [one], Capo(max_tokens=whole - 1), folder(tmp_path), 1)
    section = Capo(max_tokens=whole - 1)
    expected = pairs(made, [one], section, folder(tmp_path))
    assert sorted(rows(laid)) == sorted(([*p.prompt, *p.chosen], [*p.prompt, *p.rejected], p.kind) for p in expected)
    assert len(laid.contrasts) == 2


def test_a_turn_with_too_many_negatives_keeps_what_fits(tmp_path: Path) -> None:
    made, counted = shared("chatml"), folder(tmp_path)
    one = SessionTree(dialogue=ICE, branches=tree().branches[3:])
    limit = len(pack(made, one, one.branches[1:], cut=2).tree)
    (laid,) = packed(made, [one], Capo(tree_tokens=limit), counted, 1)
    assert [c.kind for c in laid.contrasts] == list(KINDS[1:])
    assert counted.counts["pairs left out: their session is too long"] == 1


def test_kinds_and_cap(tmp_path: Path) -> None:
    made, counted = shared("chatml"), folder(tmp_path)
    section = Capo(kinds=("neglect", "misunderstanding"), pairs=5)
    first, second = packed(made, [tree(), tree(), tree()], section, counted, 3)
    assert [one.kind for one in first.contrasts] == ["neglect", "misunderstanding"] * 2
    assert [one.kind for one in second.contrasts] == ["neglect"]
    assert counted.counts["pairs not used: capo.pairs reached"] == 7
    assert counted.counts["pairs of neglect"] == 3
    assert "pairs of hallucination" not in counted.counts
    with pytest.raises(UserError, match="no pair is left"):
        packed(made, [tree()], Capo(kinds=("random",)), folder(tmp_path), 1)


def in_two_ways() -> SessionTree:
    ways = [branch(ICE, 2, "neglect", f"{how}.", how=how) for how in ("structural", "on-policy")]
    return SessionTree(dialogue=ICE, branches=(*ways, branch(ICE, 3, "neglect", "Yes.")))


def test_ways_of_writing_are_chosen_like_kinds(tmp_path: Path) -> None:
    made, one = shared("chatml"), in_two_ways()
    for how, turns in ((None, [2, 2, 3]), (("structural",), [2, 3]), (("on-policy",), [2])):
        section = Capo(how=how)
        (laid,) = packed(made, [one], section, folder(tmp_path), 1)
        assert len(laid.contrasts) == len(turns)
        assert [pair.turn for pair in pairs(made, [one], section, folder(tmp_path))] == turns
    with pytest.raises(UserError, match=r"capo\.kinds or how"):
        packed(made, [one], Capo(how=("prompted",)), folder(tmp_path), 1)


def test_two_negatives_of_one_text_share_a_branch() -> None:
    made = shared("chatml")
    same = (branch(ICE, 2, "neglect", "Yes."), branch(ICE, 2, "hallucination", "Yes."))
    laid = pack(made, SessionTree(dialogue=ICE, branches=same), same)
    assert len(laid.tree.limbs) == 2
    assert [one.rejected for one in laid.contrasts] == [1, 1]
