"""What may stand as a negative, by hand; and that nothing is lost between wanted and kept."""

import json

import pytest

from parrot_lite.collect.validity import objection
from parrot_lite.errors import UserError
from parrot_lite.recipe import Negatives, Scripted
from parrot_lite.types import Rejected, Reply, SessionTree
from tests.collect.speakers import DEMO, said
from tests.collect.test_negatives import ALL, BEES, PERU, RIVER, data, result, settings, write
from tests.test_recipe import refusal

CHOSEN = "The hive stands outside in the winter wind."  # eight words


def negatives(**keys):
    return Negatives(writer=Scripted(kind="scripted", path="unused"), **keys)


@pytest.mark.parametrize(
    ("text", "keys", "reason"),
    [
        ("Lakes lose their heat to the air.", {}, None),
        (CHOSEN, {}, "equals the chosen answer"),
        ("I'm sorry, but I cannot answer that without more context.", {}, "refusal"),
        # Seven of eight words in order: precision, recall and ROUGE-L are 7/8.
        ("The hive stands outside in the summer wind.", {}, "too close to the chosen answer"),
        ("The hive stands outside in the summer wind.", {"max_rouge": 0.9}, None),
        # Five of its eight words in order: 5/8 = 0.625.
        ("The hive stands here and in no wind.", {}, None),
        ("The hive stands here and in no wind.", {"max_rouge": 0.6}, "too close to the chosen answer"),
        ("Yes.", {}, "too short beside the chosen answer"),  # 1/8 < 0.2
        ("Quite so.", {}, None),  # 2/8
        ("word " * 39 + "word", {}, None),  # 40/8 = 5, the most
        ("word " * 40 + "word", {}, "too long beside the chosen answer"),
        ("Yes.", {"min_length_ratio": 0.1}, None),
        (
            "One two three four five six seven eight nine.",
            {"max_length_ratio": 1.0},
            "too long beside the chosen answer",
        ),
    ],
)
def test_objections_by_hand(text, keys, reason):
    assert objection(text, CHOSEN, negatives(**keys)) == reason


def test_wanted_is_kept_and_skipped(tmp_path, monkeypatch):
    replies = [
        said("Springs are."),
        said("As an AI language model, I cannot say."),
        said("It is." * 30),
        Reply(text="Because it", stop="length"),
        Reply.failure("empty", lasting="empty reply"),
        said("A scripted answer of some words."),
        said("Another one."),
    ]
    calls = iter(range(1000))
    recipe = settings(
        tmp_path,
        [data(tmp_path, "a", BEES, PERU, RIVER)],
        f"negatives.kinds={ALL}",
        'negatives.how=["structural", "prompted", "on-policy"]',
        "negatives.policy={kind='scripted', path='unused'}",
        "negatives.max_length_ratio=4.0",
    )
    monkeypatch.setattr("parrot_lite.collect.negatives.inputs_of", lambda *_: {})
    write(monkeypatch, recipe, lambda d: replies[next(calls) % len(replies)])
    folder = recipe.folder("negatives")
    counts = json.loads((folder / "manifest.json").read_text())["counts"]
    trees, skipped = result(recipe, "trees.jsonl", SessionTree), result(recipe, "skipped.jsonl", Rejected)
    pairs = recipe.negatives.wanted
    assert len(pairs) == 3 * 3 + 2 + 2 + 1  # the paper's in three ways; two controls by both authors; random by none
    for kind, how in pairs:
        name = f"{kind}, {how}"
        kept = sum((b.negative.kind, b.negative.how) == (kind, how) for tree in trees for b in tree.branches)
        lost = [one.reason for one in skipped if one.id.endswith(f"/{kind}/{how}")]
        assert counts[f"{name}: wanted"] == 3 == kept + len(lost)  # turns 2 and 3 of the bees, 2 of the river
        assert counts.get(f"{name}: kept", 0) == kept
        unheard = sum(reason in ("cut at max_tokens", "empty reply", "nothing guessed") for reason in lost)
        assert counts[f"{name}: checked"] == 3 - unheard
        assert sum(n for key, n in counts.items() if key.startswith(f"{name}: skipped, ")) == len(lost)
    reasons = {one.reason for one in skipped}
    assert reasons >= {"refusal", "too long beside the chosen answer", "cut at max_tokens", "empty reply"}
    for tree in trees:
        for branch in tree.branches:
            assert objection(branch.negative.text, tree.chosen(branch), recipe.negatives) is None
            assert branch.negative.words == len(branch.negative.text.split())
            assert branch.negative.chosen_words == len(tree.chosen(branch).split())


def test_nothing_valid_is_an_error_that_says_so(tmp_path, monkeypatch):
    recipe = settings(tmp_path, [data(tmp_path, "a", RIVER)], 'negatives.kinds=["neglect"]')
    with pytest.raises(UserError, match="no session has a negative: 1 x no negative left"):
        write(monkeypatch, recipe, lambda d: said("I'm sorry, but I can't help with that."))


@pytest.mark.parametrize(
    ("overrides", "said_of_it"),
    [
        (["negatives.check_worse=judge"], "check_worse = judge needs a judge"),
        (
            ["negatives.min_length_ratio=2.0", "negatives.max_length_ratio=1.0"],
            "min_length_ratio = 2 is above max_length_ratio = 1",
        ),
        (["negatives.how=[]"], "at least 1"),
        (["negatives.how=['offpolicy']"], "'structural', 'prompted' or 'on-policy'"),
        (["negatives.policy={kind='local', adaptr='x'}"], ".adapter'?"),
        (["negatives.scorer={kind='local', adaptr='x'}"], ".adapter'?"),
        (["negatives.how=['on-policy']", "negatives.policy=none"], "how = on-policy needs a policy"),
    ],
)
def test_keys_that_do_not_hold_together(overrides, said_of_it):
    assert said_of_it in refusal(DEMO, *overrides)
