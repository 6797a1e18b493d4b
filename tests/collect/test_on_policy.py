"""On-policy negatives through the real code: SFT, the policy's own answers, CaPO on them."""

import math

from parrot_lite.chat import open_chat
from parrot_lite.collect import negatives
from parrot_lite.store import fingerprint, read
from parrot_lite.train import capo, sft
from parrot_lite.types import SessionTree
from tests import tiny
from tests.collect.test_negatives import BEES, RIVER


class Ending:
    """The random model ends no answer by itself; here what it wrote up to max_tokens counts as ended."""

    def __init__(self, chat):
        self._chat, self.name, self.close = chat, chat.name, chat.close

    def reply(self, *given):
        return [reply.model_copy(update={"stop": "end"}) for reply in self._chat.reply(*given)]


def test_the_sft_model_writes_both_answers_and_capo_trains_on_them(tmp_path, monkeypatch):
    with tiny.tiny_model(tmp_path / "tiny") as base:
        data = tiny.write(tmp_path / "data.jsonl", [BEES, RIVER])
        recipe = tiny.recipe(
            tmp_path,
            base,
            f"negatives.data=['{data}']",
            'negatives.how=["on-policy"]',
            'negatives.kinds=["neglect", "same-writer"]',
            "negatives.chosen=writer",
            "negatives.decoding.max_tokens=12",
            "negatives.check_worse=likelihood",
            'capo.kinds=["neglect", "same-writer"]',
            data=data,
        )
        sft.run(recipe, "train-sft")
        monkeypatch.setattr(negatives, "open_chat", lambda *given: Ending(open_chat(*given)))
        negatives.run(recipe)
        folder = recipe.folder("negatives")
        trees = list(read(folder / "trees.jsonl", SessionTree))
        assert sorted(tree.id for tree in trees) == ["bees", "river"]
        branches = [branch for tree in trees for branch in tree.branches]
        assert {branch.negative.writer for branch in branches} == {"tiny+train-sft"}
        assert {branch.negative.how for branch in branches} == {"on-policy"}
        assert all(branch.chosen and branch.negative.worse is not None for branch in branches)
        adapter = recipe.folder("train-sft") / "adapter"
        assert tiny.manifest(folder)["inputs"]["train-sft"] == fingerprint(adapter)

        capo.run(recipe)
        done = tiny.manifest(recipe.folder("train-capo"))
        kept = sum(branch.negative.kind == "neglect" for branch in branches)
        assert done["counts"]["pairs of neglect"] == kept
        first = tiny.log(recipe.folder("train-capo"))[0]
        assert math.isclose(first["loss"], math.log(2), rel_tol=1e-4)  # nothing has been learnt yet
