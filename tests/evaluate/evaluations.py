"""Records of an evaluation that was never made: seeded scores and likelihoods, texts of a given length."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from parrot_lite.evaluate.card import Card, Finding
from parrot_lite.evaluate.page import Records
from parrot_lite.evaluate.records import Comparison, Label, Likelihood, Played, Preference, Question
from parrot_lite.types import Dialogue, Judgment, Turn

MODELS = ("base", "sft", "capo")
CATEGORIES = ("writing", "roleplay", "reasoning", "math", "coding", "extraction", "stem", "humanities")
ALONE = Label(kinds=("self-contained",))
LABELS = (
    ALONE,
    Label(kinds=("anaphora",), leans_on=1),
    Label(kinds=("ellipsis",), leans_on=1),
    Label(kinds=("anaphora", "shift"), leans_on=2),
    Label(kinds=("self-contained", "shift")),
    Label(kinds=("anaphora", "ellipsis"), leans_on=1),
    Label(kinds=("ellipsis", "shift"), leans_on=3),
    Label(kinds=("anaphora",), leans_on=1, entity=("Odile",)),
)
WORDS = (
    "the letter says that nobody wanted to sell before the spring although two of them had asked for a price and the "
    "second offer was higher by a third than what her brother thought fair so he kept it for another year"
)


def prose(random_: random.Random, characters: int) -> str:
    """Sentences that say nothing, of about this length."""
    text = ""
    while len(text) < characters:
        text += " ".join(random_.choices(WORDS.split(), k=random_.randint(6, 18))).capitalize() + ". "
        text += "\n\n" if random_.random() < 0.15 else ""
    return text[:characters].strip()


def benchmark(sessions: int) -> list[Question]:
    """Labelled questions of eight turns, spread over the categories."""
    draw = random.Random(3)
    return [
        Question(
            id=str(number),
            category=CATEGORIES[number * len(CATEGORIES) // sessions],
            queries=tuple(prose(draw, draw.randint(40, 240)) for _ in LABELS),
            references=(None,) * len(LABELS),
            labels=LABELS,
        )
        for number in range(sessions)
    ]


def evaluation(
    questions: Sequence[Question],
    effects: Sequence[float] = (0.0, 0.35, 0.6),
    answer: int = 1000,
    verdict: int = 500,
    lost: float = 0.0,
    heldout: int = 40,
) -> Records:
    """Three models, each better than the first by its effect, on all questions; ``lost`` verdicts missing."""
    draw = random.Random(7)
    played, judgments = [], []
    for question in questions:
        level = draw.gauss(5.5, 1.2)
        for model, effect in zip(MODELS, effects, strict=True):
            full = draw.random() < lost / 3
            turns = []
            for turn, query in enumerate(question.queries, 1):
                if full and turn > 6:
                    judgments.append(_judgment(question, model, turn, None, None, "no answer: context full"))
                    continue
                text = prose(draw, int(draw.uniform(0.6, 1.4) * answer))
                label = question.labels[turn - 1] if question.labels else None
                if label and label.entity and draw.random() < 0.5 + effect / 2:
                    text = f"{label.entity[0]}: {text}"
                turns += [Turn(role="user", content=query), Turn(role="assistant", content=text)]
                score = min(10, max(1, round(level + effect * (1 + turn / 8) - 0.18 * turn + draw.gauss(0, 1.1))))
                missing = draw.random() < lost
                text = f"{prose(draw, verdict)} Rating: [[{score}]]"
                reason = "no verdict" if missing else None
                judgments.append(_judgment(question, model, turn, None if missing else float(score), text, reason))
            played.append(
                Played(
                    model=model,
                    category=question.category,
                    dialogue=Dialogue(id=question.id, source="bench", turns=tuple(turns)),
                    failed="context full" if full else None,
                    lasting="context full" if full else None,
                    tokens=300,
                )
            )
    return Records(
        models=MODELS,
        sources=(
            "SmolLM2-135M-Instruct",
            "SmolLM2-135M-Instruct + runs/demo/train-sft/adapter",
            "SmolLM2-135M-Instruct + runs/demo/train-capo/adapter",
        ),
        played=tuple(played),
        judgments=tuple(judgments),
        likelihoods=tuple(likelihoods(draw, heldout)),
        comparisons=tuple(_comparisons(draw, questions)),
        questions=tuple(questions),
        card=card(),
    )


def _judgment(
    question: Question, model: str, turn: int, score: float | None, text: str | None, reason: str | None
) -> Judgment:
    return Judgment(
        model=model,
        dialogue=question.id,
        category=question.category,
        turn=turn,
        judge="Selene-1-Mini-8B@single",
        score=score,
        text=text,
        reason=reason,
    )


def _comparisons(draw: random.Random, questions: Sequence[Question]) -> Iterator[Comparison]:
    for question in questions:
        for turn in range(1, len(question.queries) + 1):
            verdicts: tuple[Preference, Preference] = draw.choices([("A", "B"), ("A", "A"), ("B", "A")], [5, 3, 2])[0]
            yield Comparison(
                model_a="capo",
                model_b="sft",
                dialogue=question.id,
                category=question.category,
                turn=turn,
                judge="Selene-1-Mini-8B@pair",
                first=verdicts[0],
                second=verdicts[1],
            )


def likelihoods(draw: random.Random, sessions: int) -> list[Likelihood]:
    found = []
    for session in range(sessions):
        base = draw.gauss(1.5, 0.2)
        for turn in (2, 3, 4, 5):
            rule = "pronoun" if turn % 2 else None
            for model, gain in zip(MODELS, (0.0, 0.003, 0.1 if rule else 0.02), strict=True):
                for condition, more in (("true", 0.0), ("swapped", 0.43), ("shortened", 0.12), ("withheld", 0.3)):
                    if turn == 2 and condition == "shortened":
                        continue
                    lost = (more + gain * (more > 0.4) + draw.gauss(0, 0.08)) * (more > 0) * (1 if rule else 0.4)
                    nll = 60 * (base + lost)
                    found.append(
                        Likelihood(
                            model=model,
                            dialogue=f"h{session}",
                            turn=turn,
                            rule=rule,
                            condition=condition,
                            nll=nll,
                            tokens=60,
                        )
                    )
    return found


def card(fit: bool = False) -> Card:
    moved = "+0.80 [+0.40, +1.20]" if fit else "+0.05 [-0.10, +0.20]"
    return Card(
        judge="Selene-1-Mini-8B@single",
        items=40,
        sessions=20,
        findings=(
            Finding(what="gives a verdict", found="396/400", wanted="at least 95%", holds=True),
            Finding(
                what="punishes an answer that says nothing",
                found="drop +3.10 [+2.60, +3.60], lower in 95%",
                wanted="drop > 0",
                holds=True,
            ),
            Finding(
                what="reads the history",
                found=f"hidden, it moves {moved} more than a repeat",
                wanted="> 0",
                holds=fit,
            ),
            Finding(what="the same verdict 5 times", found="SD 0.31 in 12/40 turns", wanted="", holds=None),
        ),
    )
