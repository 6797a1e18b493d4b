"""What ends a session during collection (paper section 3.2): each rule is a pure function of text.

The paper removes repetitive, short and sensitive queries and gives no thresholds; ours are keys of [collect].
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from typing import Any

WORD = re.compile(r"\w+(?:'\w+)*")
# Words that ask for nothing by themselves: with fewer than min_words words and only these, a query says nothing.
STOP_WORDS = frozenset(
    WORD.findall(
        """
        a about ah all also am an and any are as at be because been but by can could did do does for from had has have
        he hello her here hey hi him his how i if in into is it it's its just lol me more my no not nope of oh ok okay
        on or our please really she so some sure thank thanks that that's the their them then there these they this
        those to too very was we well were what what's when where which who why will with would wow yeah yep yes you
        your
        """
    )
)

MODEL = r"(?:an ai|an artificial intelligence|a (?:large )?language model)"
UNABLE = r"(?:can't|can not|cannot|won't|will not|am (?:unable|not able)|'m (?:unable|not able|sorry|afraid))"
SORRY = r"(?:(?:i'm|i am) (?:very |really |so )?sorry|sorry|my apologies|i apologi[sz]e(?: for [^,.]*)?|unfortunately)"
# Only verbs of helping: "I can't believe it" and "I cannot recommend it enough" are no refusals.
HELP = r"(?:to )?(?:assist|help|answer|comply|fulfil|provide|do that|do this|engage|discuss|generate|create|continue)"
REFUSAL = re.compile(
    rf"as {MODEL}\b[^.!?]{{0,60}}?\bi ?(?:{UNABLE}|(?:do not|don't) have (?:access|the ability|the capability))"
    rf"|{SORRY}[,.!]? (?:but )?(?:as {MODEL}\b|i ?{UNABLE})"
    rf"|i ?{UNABLE} {HELP}\b"
)
ROLE_DRIFT = re.compile(
    rf"(?:i'm sorry, but )?as {MODEL}\b"
    r"|certainly[!,]"
    r"|(?:sure|of course|absolutely)[!,.:]? (?:here|i can\b|i'd\b|i'll\b|i will\b|i would\b|let me\b)"
    r"|you're (?:very )?welcome\b"
    r"|(?:i'd|i would|i'm|i am) (?:be )?happy to (?:help|assist)\b"
    r"|how (?:can|may) i (?:help|assist) you\b"
    r"|i hope (?:this|that) helps\b"
    r"|i apologi[sz]e for\b"
    r"|(?:assistant|ai|chatgpt)\s*:"
)

CLAUSE_END = re.compile(r"[.,!;:\n…]+|\s[-–—]+\s")
FILLER = r"(?:(?:ok(?:ay)?|oh|ah|wow|well|yes|yeah|no|great|perfect|alright|awesome|and|so|again|i see|got it)\s+)*"
VERY = r"(?:very|really|so|quite|truly|super|just|such|absolutely|extremely|most|too|a|an|the|much|more|what|all)"
GOOD = (
    r"(?:great|good|nice|perfect|wonderful|amazing|awesome|excellent|fantastic|brilliant|superb|lovely|cool|fine|helpful"
    r"|useful|interesting|informative|impressive|incredible|insightful|kind|beautiful|best|well done|well said"
    r"|good job|great job|nice work|great work|congratulations|makes sense)"
)
PRAISED = r"(?:answer|response|explanation|idea|advice|tip|suggestion|list|point|help|job|work|one|information|info)s?"
UNASKED = r"(?:(?!\b(?:but|now|then|can|could|would|please|what|how|which|why|who|also|next|instead)\b).)*"
COURTESY = re.compile(
    FILLER + r"(?:"
    rf"(?:many |no )?(?:thanks|thank you|thank u|thx|cheers)\b{UNASKED}"
    rf"|(?:i|we) (?:{VERY} )*appreciate\b{UNASKED}|much appreciated"
    rf"|(?:(?:that|this|it|these|those|you|your \w+)(?:'s|'re|'ve been| is| are| was| were| has been| have been| sounds"
    rf"| looks) )?(?:{VERY} )*{GOOD}(?: {PRAISED})?(?: indeed| to know| to hear)?"
    r"|(?:i|we) (?:really |just |absolutely )?(?:love|like|enjoyed?|loved|liked) (?:it|that|this|them|your \w+)"
    rf"|you(?:'ve| have)? (?:really |already )?(?:helped|been of)\b{UNASKED}"
    r"|(?:good ?bye|bye(?: bye)?)(?: for now)?|see you(?: later| soon| then| around)?|take care|good ?night|farewell"
    rf"|(?:have|wish you) a (?:{VERY} )*{GOOD} \w+(?: ahead| too)?|(?:un)?til next time|talk to you (?:later|soon)"
    r"|that(?:'s| is| was|'ll be| will be) (?:all|it)(?: i (?:need(?:ed)?|wanted)(?: to know)?)?(?: for (?:now|today))?"
    r"|(?:i have )?(?:no (?:more|further|other) questions|nothing else)(?: for (?:now|today))?"
    r")(?: then| again| indeed| everyone| friend)?"
)
# Says that the writer is content, which closes a session only beside a word of courtesy.
CONTENT = re.compile(
    rf"{FILLER}(?:ok(?:ay)?|oh|ah|wow|well|yes|yeah|no|alright|got it|i see|i understand"
    rf"|(?:i'm|i am|i think i'm)(?: all)? (?:alright|done|set|good){UNASKED}"
    rf"|(?:i'll|i will|i'm going to|let me) (?:\w+ )?(?:try|use|give|keep|check|do|remember|look|think)\b{UNASKED})"
)
# Bounded repetition throughout: a model that has broken writes thousands of line ends.
ASKED_LABEL = re.compile(r"(?:^|[\n.?!])\W{0,6}(?:user|human|me|q|question|asker)\W{0,2}:", re.IGNORECASE)
ANSWER_LABEL = re.compile(
    r"(?:^|[\n.?!])\W{0,6}(?:(?P<model>assistant|ai|ai assistant|chatgpt|bot)|a|answer|response)\W{0,2}:\W{0,9}\w",
    re.IGNORECASE,
)
TEMPLATE_MARK = re.compile(r"<\|?(?:im_start\|>\s*assistant|assistant)\|?>?|\[/INST\]|### (?:response|assistant)", re.I)
ANSWER_WORDS = 30  # behind a question; a person who writes as much behind one speaks of himself, or shows something
# What marks the text behind a question as the asker's own matter and not as the answer.
OWN_MATTER = re.compile(
    r"\b(?:i|i'm|i've|i'd|my|mine|me|we|our|us|please|this|these|following|below|above|here|select|choose)\b|```|\""
    r"|^\W{0,6}[a-d][.)]",
    re.IGNORECASE | re.MULTILINE,
)


def repeats(query: str, earlier: Sequence[str], max_rouge: float) -> bool:
    """Whether a query says what an earlier one of its session said: ROUGE-L f-measure of ``max_rouge`` or more."""
    # rouge_score keeps only a-z and 0-9, so a query in another script has no tokens: equality still catches it.
    return any(query == other or (max_rouge <= _scorer().score(other, query)["rougeL"].fmeasure) for other in earlier)


@cache
def _scorer() -> Any:
    from rouge_score.rouge_scorer import RougeScorer  # here because it pulls in nltk and takes a second

    return RougeScorer(["rougeL"])


def too_short(query: str, min_words: int) -> bool:
    """Whether a query has fewer than ``min_words`` words and no content word among them."""
    words = WORD.findall(_plain(query))
    return len(words) < min_words and all(word in STOP_WORDS for word in words)


def sensitive(query: str, words: Sequence[str]) -> bool:
    """Whether a query contains one of ``words`` as a whole word or phrase, in any case."""
    text = _plain(query)
    return any(re.search(rf"(?<!\w){re.escape(_plain(word))}(?!\w)", text) for word in words if word.strip())


def refusal(answer: str) -> bool:
    """Whether an answer begins by declining: "As an AI language model, I cannot ...", "I'm sorry, but I can't ..."."""
    return REFUSAL.match(_plain(answer)) is not None


def role_drift(query: str) -> bool:
    """Whether the asker's query begins as an assistant would: "Sure, here is ...", "As an AI ..."."""
    return ROLE_DRIFT.match(_plain(query)) is not None


def thanks(query: str) -> bool:
    """Whether a query does nothing but thank, praise or say goodbye: "Great, thank you!", "That's all for now, bye"."""
    text = _plain(query)
    clauses = [clause.strip() for clause in CLAUSE_END.split(text) if clause.strip(" \t'\"*()")]
    if "?" in text or not clauses:
        return False
    courteous = [COURTESY.fullmatch(clause) is not None for clause in clauses]
    return any(courteous) and all(
        polite or CONTENT.fullmatch(clause) for polite, clause in zip(courteous, clauses, strict=True)
    )


def answers_itself(query: str) -> bool:
    """Whether the asker writes both sides: "User: ... Assistant: ...", or a question and a long answer behind it."""
    label = ANSWER_LABEL.search(query)
    if TEMPLATE_MARK.search(query) or (label and (label["model"] or ASKED_LABEL.search(query[: label.start() + 1]))):
        return True
    _, mark, rest = query.partition("?")
    if not mark or "?" in rest or OWN_MATTER.search(query.replace("’", "'")):
        return False
    return len(WORD.findall(rest)) >= ANSWER_WORDS


def _plain(text: str) -> str:
    return text.strip().casefold().replace("’", "'")
