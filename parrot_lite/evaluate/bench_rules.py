"""What a benchmark must keep to: each rule is a pure function from its sessions to what breaks it.

``GENERAL`` holds for any file. ``DESIGN`` holds for labelled sessions of eight turns or more: the mixture of phenomena
that makes the late turns depend on the early ones. ``BUNDLED`` is the size of the benchmark that this package ships.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from parrot_lite.evaluate.records import Label, Question
from parrot_lite.evaluate.spellings import named
from parrot_lite.words import runs, words

RUN = 8  # words in a row that no two sessions share
OPENING = 4  # words with which at most two turns begin
ALIKE = 85.0  # per cent of Indel similarity between two queries
SHORT = 5  # words; shorter queries are alike by nature
LONG_SENTENCE = 70  # words
ASCII = 0.97  # share of a session's characters, at least
EASE = 40.0  # Flesch reading ease of a session; 30 to 50 is difficult, below 30 very difficult
FRAME = 5  # function words that make a sentence's frame its own
CATEGORIES = ("writing", "roleplay", "reasoning", "math", "coding", "extraction", "stem", "humanities")
ANSWERED = frozenset({"reasoning", "math", "coding", "extraction"})
EACH = 10  # sessions in a category
TURNS = 8

_FUNCTION_WORDS = (
    "a about after all also am an and another any are as at be been before being both but by can could did do does "
    "don each else even every for from had has have he her here him his how i if in into is it its just let like many "
    "may me might more most much must my no nor not of off on one only or other our out over own same shall she should "
    "so some still such t than that the their them then there these they this those though through to too under until "
    "up us very was we were what when where whether which while who whom whose why will with without would yet you "
    "your s d ll re ve m"
)
FUNCTION_WORDS = frozenset(_FUNCTION_WORDS.split())
MOJIBAKE = re.compile("\ufffd|Ã[\u0080-\u00bf]|Â[\u0080-\u00bf]|â(?:€|\u0080)|ï»¿|[\u0080-\u009f]")
FENCED = re.compile(r"```.*?(?:```|\Z)", re.DOTALL)
ENUMERATOR = re.compile(r"(?:^|\s)\w{1,3}$")  # before the bracket of "a) this b) that"
CLOSES = {")": "(", "]": "[", "}": "{"}


@dataclass(frozen=True)
class Finding:
    """What breaks a rule, and where. ``session`` is None where the whole file does, ``turn`` where a whole session."""

    rule: str
    session: str | None
    turn: int | None
    what: str

    def __str__(self) -> str:
        where = "the file" if self.session is None else f"session {self.session}"
        return f"{where}{'' if self.turn is None else f' turn {self.turn}'}: {self.rule}: {self.what}"


Rule = Callable[[Sequence[Question]], Iterator[Finding]]


def label(questions: Sequence[Question]) -> Iterator[Finding]:
    """A session is labelled throughout or not at all; its first turn is self-contained and no shift."""
    for question in questions:
        missing = [turn for turn, one in enumerate(question.labels, 1) if one is None]
        if missing and len(missing) < len(question.labels):
            yield Finding("label", question.id, missing[0], "has none, where other turns have one")
        for turn, one in _labelled(question):
            if len(set(one.kinds)) < len(one.kinds):
                yield Finding("label", question.id, turn, "names a kind twice")
            if turn == 1 and one.kinds != ("self-contained",):
                yield Finding("label", question.id, 1, "a first turn is self-contained and nothing else")


def entity(questions: Sequence[Question]) -> Iterator[Finding]:
    """Each spelling of an entity stands in an earlier query, as whole words, and none in the query itself."""
    for question in questions:
        for turn, one in _labelled(question):
            for spelling in one.entity:
                if not words(spelling) or set(words(spelling)) <= FUNCTION_WORDS:
                    yield Finding("entity", question.id, turn, f"{spelling!r} is too common to show anything")
                if not any(named(query, [spelling]) for query in question.queries[: turn - 1]):
                    yield Finding("entity", question.id, turn, f"{spelling!r} is in no earlier query")
                if named(question.queries[turn - 1], [spelling]):
                    yield Finding("entity", question.id, turn, f"{spelling!r} is in the query itself")


def duplicate(questions: Sequence[Question]) -> Iterator[Finding]:
    """No two queries of at least five words are nearly the same (normalised Indel similarity of their words)."""
    from rapidfuzz import fuzz, process

    places = [(one.id, turn, " ".join(text)) for one, turn, text in _texts(questions) if len(text) >= SHORT]
    texts = [text for *_, text in places]
    scores = process.cdist(texts, texts, scorer=fuzz.ratio, score_cutoff=ALIKE)
    for one, other in itertools.combinations(range(len(texts)), 2):
        if scores[one, other]:
            (session, turn, _), (at, where, _) = places[other], places[one]
            yield Finding("duplicate", session, turn, f"{scores[one, other]:.0f}% like session {at} turn {where}")


def opening(questions: Sequence[Question]) -> Iterator[Finding]:
    """At most two turns begin with the same four words."""
    found: dict[tuple[str, ...], list[tuple[str, int]]] = defaultdict(list)
    for question, turn, text in _texts(questions):
        if len(text) >= OPENING:
            found[text[:OPENING]].append((question.id, turn))
    for begin, places in found.items():
        for session, turn in places[2:]:
            yield Finding("opening", session, turn, f"begins as {len(places) - 1} others do: {' '.join(begin)}")


def run(questions: Sequence[Question]) -> Iterator[Finding]:
    """No two sessions share eight words in a row."""
    first: dict[tuple[str, ...], str] = {}
    told: set[tuple[str, str]] = set()
    for question, turn, text in _texts(questions):
        for gram in runs(text, RUN):
            other = first.setdefault(gram, question.id)
            if other != question.id and (other, question.id) not in told:
                told.add((other, question.id))
                yield Finding("run", question.id, turn, f"shares with session {other}: {' '.join(gram)}")


def frame(text: str) -> tuple[str, ...]:
    """The function words of a sentence, and "_" for each run of other words between them.

    >>> frame("Write it again in the voice of a retired sailor.")
    ('_', 'it', '_', 'in', 'the', '_', 'of', 'a', '_')
    """
    kept = [word if word in FUNCTION_WORDS else "_" for word in words(text)]
    return tuple(word for word, before in zip(kept, ["", *kept], strict=False) if word != "_" or before != "_")


def template(questions: Sequence[Question]) -> Iterator[Finding]:
    """No sentence is another session's with the content words exchanged, where it has at least five function words."""
    first: dict[tuple[str, ...], tuple[str, int, str]] = {}
    for question in questions:
        for turn, query in enumerate(question.queries, 1):
            for sentence in sentences(query):
                found = frame(sentence)
                if sum(word != "_" for word in found) < FRAME or found.count("_") < 2:
                    continue
                session, where, other = first.setdefault(found, (question.id, turn, sentence))
                if session != question.id:
                    yield Finding("template", question.id, turn, f"as session {session} turn {where}: {other[:80]!r}")


def against(questions: Sequence[Question], others: Sequence[str], name: str) -> Iterator[Finding]:
    """No query equals one of ``others`` or shares eight words in a row with it; a match of 13 words is called one."""
    texts = [words(text) for text in others]
    equal = {text for text in texts if len(text) >= SHORT}
    known = {length: {gram for text in texts for gram in runs(text, length)} for length in (13, RUN)}
    for question, turn, text in _texts(questions):
        if text in equal:
            yield Finding("overlap", question.id, turn, f"is a query of {name}")
            continue
        for length, grams in known.items():
            if (shared := next((gram for gram in runs(text, length) if gram in grams), None)) is not None:
                yield Finding("overlap", question.id, turn, f"{length} words of {name}: {' '.join(shared)}")
                break


def readable(questions: Sequence[Question]) -> Iterator[Finding]:
    """English that can be read: characters, brackets and fences, sentences, and Flesch's reading ease of a session."""
    for question in questions:
        text = "\n".join(question.queries)
        if (share := sum(map(str.isascii, text)) / len(text)) < ASCII:
            yield Finding("characters", question.id, None, f"{share:.0%} of its characters are ASCII")
        if (ease := reading_ease(question.queries)) is not None and ease < EASE:
            yield Finding("ease", question.id, None, f"a Flesch reading ease of {ease:.0f}, below {EASE:.0f}")
        for turn, query in enumerate(question.queries, 1):
            if match := MOJIBAKE.search(query):
                yield Finding("mojibake", question.id, turn, f"was decoded wrongly at {query[match.start() :][:20]!r}")
            if (wrong := unbalanced(query)) is not None:
                yield Finding("brackets", question.id, turn, wrong)
            if (longest := max((len(words(one)) for one in sentences(query)), default=0)) > LONG_SENTENCE:
                yield Finding("sentence", question.id, turn, f"has a sentence of {longest} words")


def sentences(text: str) -> list[str]:
    """The sentences and lines of a text outside its fenced blocks."""
    return [one.strip() for one in re.split(r"(?<=[.!?;:])[\"')\]]*\s+|\n+", FENCED.sub("\n", text)) if one.strip()]


def syllables(word: str) -> int:
    """Groups of vowels, without a silent e at the end; at least one.

    >>> [syllables(word) for word in ("bake", "table", "blizzard", "area", "the")]
    [1, 2, 2, 2, 1]
    """
    groups = len(re.findall(r"[aeiouy]+", word.lower()))
    silent = re.search(r"[^aeiouy]e$", word.lower()) is not None and not word.lower().endswith("le")
    return max(1, groups - silent)


def reading_ease(texts: Sequence[str]) -> float | None:
    """Flesch's reading ease (1948), 206.835 - 1.015 words a sentence - 84.6 syllables a word; None without words.

    >>> round(reading_ease(["The cat sat on the mat."]), 3)
    116.145
    """
    parts = [re.findall(r"[A-Za-zÀ-ɏ]+(?:'[a-z]+)?", one) for text in texts for one in sentences(text)]
    parts = [part for part in parts if part]
    count = sum(map(len, parts))
    if not count:
        return None
    return 206.835 - 1.015 * count / len(parts) - 84.6 * sum(syllables(w) for part in parts for w in part) / count


def unbalanced(text: str) -> str | None:
    """What is open or closed without its counterpart; a list's "a)" is no bracket.

    >>> unbalanced("a) f(x) = [1, 2]"), unbalanced("(see 12 below"), unbalanced("```python")
    (None, "'(' is never closed", 'a fence is never closed')
    """
    if text.count("```") % 2:
        return "a fence is never closed"
    opened: list[str] = []
    outside = FENCED.sub("", text)
    for at, sign in enumerate(outside):
        if sign in CLOSES.values():
            opened.append(sign)
        elif sign == ")" and not opened and ENUMERATOR.search(outside[:at]):
            continue
        elif sign in CLOSES and (not opened or opened.pop() != CLOSES[sign]):
            return f"'{sign}' closes nothing"
    return f"'{opened[-1]}' is never closed" if opened else None


def phenomena(questions: Sequence[Question]) -> Iterator[Finding]:
    """At least four turns with anaphora or ellipsis, both somewhere, and a shift."""
    for question in _whole(questions):
        kinds = Counter(kind for _, one in _labelled(question) for kind in one.kinds)
        leaning = sum(one.leans_on is not None for _, one in _labelled(question))
        if leaning < 4:
            yield Finding("phenomena", question.id, None, f"{leaning} turns lean on earlier ones, four at least should")
        for kind in ("anaphora", "ellipsis", "shift"):
            if not kinds[kind]:
                yield Finding("phenomena", question.id, None, f"has no {kind}")


def control(questions: Sequence[Question]) -> Iterator[Finding]:
    """One or two self-contained turns after the first."""
    for question in _whole(questions):
        alone = sum(one.leans_on is None for turn, one in _labelled(question) if turn > 1)
        if not 1 <= alone <= 2:
            yield Finding("control", question.id, None, f"{alone} self-contained turns after the first, not one or two")


def distance(questions: Sequence[Question]) -> Iterator[Finding]:
    """At least two turns lean on one at least four back, at least one on one at least six back."""
    for question in _whole(questions):
        back = [turn - one.leans_on for turn, one in _labelled(question) if one.leans_on is not None]
        for far, wanted in ((4, 2), (6, 1)):
            if (found := sum(steps >= far for steps in back)) < wanted:
                yield Finding("distance", question.id, None, f"{found} turns lean {far} or more back, not {wanted}")


def entities(questions: Sequence[Question]) -> Iterator[Finding]:
    """Two to four turns have an entity, at least one of them from the fifth turn on."""
    for question in _whole(questions):
        turns = [turn for turn, one in _labelled(question) if one.entity]
        if not 2 <= len(turns) <= 4:
            yield Finding("entities", question.id, None, f"{len(turns)} turns with an entity, not two to four")
        if max(turns, default=0) < 5:
            yield Finding("entities", question.id, None, "no entity from turn 5 on")


def size(questions: Sequence[Question]) -> Iterator[Finding]:
    """Eighty sessions of eight labelled turns, ten in each category, in the order and with the ids of theirs."""
    names = [name for name in CATEGORIES for _ in range(EACH)]
    if len(questions) != len(names):
        yield Finding("size", None, None, f"{len(questions)} sessions, not {len(names)}")
    for number, (question, category) in enumerate(itertools.zip_longest(questions, names), 1):
        if question is None or category is None:
            return
        if (question.id, question.category) != (str(number), category):
            yield Finding("size", question.id, None, f"a {question.category} where {category} {number} should stand")
        if len(question.queries) != TURNS:
            yield Finding("size", question.id, None, f"{len(question.queries)} turns, not {TURNS}")
        if len(question.labels) != len(question.queries):
            yield Finding("size", question.id, None, "is not labelled")


def reference(questions: Sequence[Question]) -> Iterator[Finding]:
    """Where one answer is right every turn has a reference; elsewhere none has."""
    for question in questions:
        for turn, text in enumerate(question.references, 1):
            if (text is None) == (question.category in ANSWERED):
                what = "has none" if text is None else f"has one, in {question.category}"
                yield Finding("reference", question.id, turn, what)


GENERAL: tuple[Rule, ...] = (label, entity, duplicate, opening, run, template, readable)
DESIGN: tuple[Rule, ...] = (phenomena, control, distance, entities)
BUNDLED: tuple[Rule, ...] = (size, reference)


def findings(questions: Sequence[Question], rules: Sequence[Rule]) -> list[Finding]:
    """What breaks any of the rules, in their order."""
    return [finding for rule in rules for finding in rule(questions)]


def _labelled(question: Question) -> Iterator[tuple[int, Label]]:
    return ((turn, one) for turn, one in enumerate(question.labels, 1) if one is not None)


def _whole(questions: Sequence[Question]) -> Iterator[Question]:
    """The sessions that the design is for."""
    return (one for one in questions if len(one.queries) >= TURNS and one.labels and None not in one.labels)


def _texts(questions: Sequence[Question]) -> Iterator[tuple[Question, int, tuple[str, ...]]]:
    return ((one, turn, words(query)) for one in questions for turn, query in enumerate(one.queries, 1))
