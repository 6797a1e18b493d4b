from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from parrot_lite.context import Asked, likelihood, other_history
from parrot_lite.context.likelihood import Likelihood
from parrot_lite.lm.model import load_for_inference, load_renderer
from parrot_lite.recipe import Dependence
from parrot_lite.types import Dialogue, derive_seed
from tests.rows import score
from tests.tiny import first_turns, recipe, tiny_model


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with tiny_model(tmp_path_factory.mktemp("base") / "tiny") as folder:
        yield folder


def test_scores_are_those_of_rows_of_their_own(tmp_path: Path, base: Path) -> None:

    made = recipe(tmp_path, base)
    sessions = first_turns(4, 3)
    detect = Likelihood(made, Dependence(), sessions)
    verdicts = list(detect([Asked.of(session, turn) for session in sessions for turn in (2, 3)]))
    model, renderer = load_for_inference(made.model, None), load_renderer(made.model)
    seed = derive_seed(made.run.seed, "dependence")
    for said in verdicts:
        session = next(one for one in sessions if one.id == said.session)
        before = session.before(said.turn)
        shown = {
            "true": before.turns[:-1],
            "swapped": other_history(sessions, session.id, said.turn, seed),
            "shortened": before.turns[:-3],
            "withheld": (),
        }
        for name, turns in shown.items():
            context = before.model_copy(update={"turns": (*turns, before.turns[-1])})
            nll, tokens = score(model, renderer, context, session.answers[said.turn - 1])
            assert said.scores[name] == pytest.approx(-nll / tokens, abs=2e-5), (said.session, said.turn, name)
        cost = said.scores["true"] - said.scores["withheld"]
        assert said.dependent == (cost >= 0.5)
        assert said.why == f"withheld {cost:+.3f}"
    assert len({round(said.scores["withheld"] - said.scores["true"], 3) for said in verdicts}) > 4


@pytest.mark.parametrize(
    ("nats", "dependent"),
    [({"withheld": 0.5}, True), ({"withheld": 0.5, "swapped": 0.3}, False), ({"shortened": -0.1}, True)],
)
def test_every_named_history_must_cost_enough(nats: dict[Any, float], dependent: bool) -> None:
    scores = {"true": -1.0, "swapped": -1.2, "shortened": -1.0, "withheld": -1.5}
    assert likelihood._decide(scores, nats)["dependent"] is dependent


def test_what_cannot_be_scored_has_no_verdict(tmp_path: Path, base: Path) -> None:
    made = recipe(tmp_path, base)
    (session,) = first_turns(1, 2)
    others = [session, session.model_copy(update={"id": "other"})]
    one = Asked.of(session, 2)

    def why(asked: Asked, sessions: list[Dialogue], settings: Dependence) -> str:
        (said,) = Likelihood(made, settings, sessions)([asked])
        assert said.dependent is None
        return said.why

    assert why(Asked(one.id, 2, one.query, one.history, None), others, Dependence()) == "no answer to score"
    assert why(Asked(one.id, 2, one.query, (), one.answer), others, Dependence()) == "no answer to score"
    assert why(one, [session], Dependence()) == "no other session to swap with"
    assert why(one, others, Dependence(max_tokens=8)) == "longer than dependence.max_tokens"
