"""Which queries lean on the history, by rules on the query alone: the "pronoun recognition" of the paper's section 3.3.

Four rules, tried in this order: a third-person ``pronoun`` or a ``demonstrative`` whose referent the query does not
give itself, an ``ellipsis`` (something is left out that the history supplies), a ``cue`` word ("another", "instead").
Rules see words, not meaning: a plain noun phrase that only the history makes definite ("how reliable is the test?")
mostly passes for independent.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from parrot_lite.types import Dialogue, Turn, derive_seed

OPENING = 40  # words of a query that are looked at: behind them stands pasted material or an answer of its own
MATERIAL = 15  # words behind a colon or a line break from which a query brings what it points at
SENTENCE = 8  # words of an earlier sentence of the same query that a demonstrative may take up
EXPLETIVE_SPAN = 60  # characters
SHORT = 6  # words up to which a query without a verb is an ellipsis

_FLAGS = re.IGNORECASE | re.VERBOSE

PRONOUN = re.compile(
    r"\b(?:it|its|itself|they|them|their|theirs|themselves|he|him|his|himself|she|her|hers|herself)\b", re.IGNORECASE
)
# "It" that refers to nothing. Searched for on its own; a pronoun inside a match does not count.
EXPLETIVE = re.compile(
    r"""\b(?:
        it (?:\ is|['’]s|\ was|\ will\ be|\ has\ been)\s (?:\w+\s)?
        (?:rain|snow|cold|warm|hot\ out|late|dark|sunny|windy)\w*
      | (?:it(?:\ is|['’]s|\ was)|(?:is|was|would|makes?|find)\ it (?:\ be)?)\s
        (?:\w+ly\s|so\s|very\s|too\s|not\s|more\s)?
        (?:possible|impossible|true|important|necessary|better|best|safe|legal|illegal|easy|easier|hard|harder|difficult
          |worth|normal|common|clear|ok|okay|wrong|right|good|bad|likely|helpful|useful|essential|time)
        \s (?:\w+ing|to|that|if|for\s\w+(?:\s\w+)?\s to)\b
      | it\ (?:seems|appears|turns\ out|follows)\b
      | (?:does|did|will|would|can|could|should)\ it\ (?:take|cost|mean)\s (?:\w+\s){0,4}?(?:to|for|when|if)\b
      | it\ (?:takes?|took|costs?)\s (?:\w+\s){0,4}?to\b
      | is\ it\ like\ (?:to|being)\b
    )""",
    _FLAGS,
)
# What a pronoun may refer to inside its own query: a name, "a ..." / "my ...", or "what is X and ...".
ANTECEDENT = re.compile(
    r"""(?:
        (?<![.?!:]\s)(?<!^) \b(?!I\b|I['’])[A-Z][\w&-]*
      | \b(?i:an?|my|our|every|each|someone|somebody|people|everyone)\b \s\w+ .* [\s,]
      | ^(?i:what|who)\s(?i:is|are|was|were)\s(?!(?i:the)\b) [\w\s-]+ \b(?:and|or|,)\s
    )""",
    re.VERBOSE | re.DOTALL,
)
DEMONSTRATIVE = re.compile(
    r"""\b(?:
        this (?!\ (?:year|month|week|weekend|morning|afternoon|evening|summer|winter|spring|autumn|fall|time)\b)
      | (?:these (?!\ days)|those (?!\ (?:who|of\ us|with)\b))
      | that (?= \s* (?:[?.!,;]|$) )                              # ... tell me about that.
      | (?:(?<=^)|(?<=[.?!,]\s)) that (?=['’]s|\ (?:is|was|one|would|will|can|does|did|sounds|seems|makes)\b)
      | (?:is|was|does|did|do|doing|would|will|can|could|['’]s) \ that \b
        (?!\ (?:the|a|an|my|your|we|they|he|she|it|i|you)\b)
      | (?:about|for|with|like|to|than|from|on|by|after|before|at|of|given|besides|using|into) \ that \b
      | (?:explain|change|make|mean|means|rewrite|fix|improve|summari[sz]e|translate|put|turn|use|add|convert)\ that \b
      | (?<!\bhi\s)(?<!hey\s)(?<!hello\s)(?<!\bout\s)(?<!\bare\s)(?<!\bis\s) there (?= \s* (?:[?.!,;]|$) )
      | (?<!\bnumber\s)(?<!\bby\s) one (?= (?:\ please)? \s* (?:[?.!,;]|$) )             # suggest one.
      | (?:an?|the|which|another|each|every|any|that|next|last|first|second|third|other|better|new)\ (?:[a-z-]+\ )?one
        (?! \ (?:of|day|time|hundred|thousand|million|more|another)\b) \b
      | (?<!loved\ )ones
    )\b""",
    _FLAGS,
)
CLOSING = re.compile(
    r"""\b(?:
        (?:many\ )?thank(?:s|\ you)\b [^.?!]* | (?:good\s?)?bye(?:\s?bye)? | have\ a\ (?:good|nice|great)\ \w+
      | (?:i\ think\ )? that (?:['’]s|\ is|\ was|['’]ll\ be|\ will\ be|['’]ll|\ will|\ does|\ should\ be)
        \ (?:all|it|everything|do(?:\ it)?)
        (?:\ (?:that\ )?i\ (?:need|want|needed|wanted)\b [^.?!]*)? (?:\ for\ now)?
      | that (?:['’]s|\ is|\ was|\ will\ be|\ would\ be|\ sounds|\ should\ be)
        \ (?:fine|great|good|perfect|wonderful|excellent)
    )\b""",
    _FLAGS,
)
FILLER = re.compile(
    r"\b(?:no|nope|ok|okay|well|great|perfect|please|um|uh|oh|sorry|actually|cool|nice)\b", re.IGNORECASE
)
VERB = re.compile(
    r"""\b(?:
        is|are|am|was|were|be|been|being|do|does|did|done|has|have|had|can|could|will|would|shall|should|may|might|must
      | \w+n['’]t | \w+['’](?:s|re|m|ve|ll|d) | let|want|wants|need|needs|like|prefer|think|know|care|means?|matter\w*
      | write|give|list|tell|explain|describe|create|make|show|find|compare|translate|summari[sz]e|define|solve
      | calculate|name|suggest|recommend|generate|help|use|add|change|build|design|discuss|provide|implement
      | convert|plan|draft|compose|analy[sz]e|act|get|go|look\w*|try|work\w*|said|say|got|found|search|prove
      | simulate|teach|play|pretend|rewrite|rephrase|reword|shorten|simplify
    )\b""",
    _FLAGS,
)
ELLIPSIS = re.compile(
    r"""
      ^(?:and|or|but|then|so)\b (?:\W+[\w'’]+){1,7}\W*$                                      # and in winter?
    | (?:^|[.?!,]\s+) (?:but\ |and\ |so\ )? (?:why|how|how\ come|where|when|who|which(?:\ ones?)?|what)
      (?:\ (?:not|so|else|then|exactly|though))? \W*$                                         # why not?
    | ^(?:please\ )?(?:continue|go\ on|keep\ going|proceed|elaborate|expand|next|carry\ on|explain|rewrite|rephrase
      |shorten|simplify|summari[sz]e|translate|finish|redo|retry|again|make\ (?:shorter|longer|simpler|better))
      (?:\ (?:please|further|more|again|in\ (?:more\ )?detail|to\ \w+|into\ \w+))*\W*$         # continue
    | ^\W*(?:yes|yeah|yep|sure|of\ course|no)\b (?:\W+[\w'’]+){0,3}\W*$                       # yes, the second
    | \b(?:i\ )?(?:don['’]?t|do\ not|doesn['’]?t|does\ not)\ (?:really\ )?(?:care|mind|matter)\W*$
    | (?:^|[.?!,;]\s+) (?:(?:yes|no|ok|okay|and|also|so|then|sorry),?\ )?
      (?:(?:can|could|may)\ (?:i|you)\ (?:please\ )?(?:also\ )?(?:have|get|give\ me|tell\ me)
        | (?:what|who)(?:\ is|\ are|\ was|\ were|['’]s)
        | i(?:\ would|['’]d)\ (?:also\ )?like(?:\ to\ have)? | i\ (?:also\ )?need
        | (?:please\ )?(?:give\ me|provide|tell\ me))
      \ (?:the|some(?:\ of\ the)?)[ ]
      (?!(?:[\w-]+,?\ ){0,6}(?:of|in|for|to|at|between|from|on|with|that|which|about|when)\b)
      (?-i:[a-z-]+(?:,|\b)\s*){1,7}[?.!\s]*$                                                # what is the address?
    | ^\W*which\ (?:is|are|was|were|has|have|of\ the)\b                                     # which is younger?
    | ^\W*(?:what|which)\ (?:kind|type|variety|size|colou?r)s?\ (?:is|are|should|do|does|would|can|works?)\b
    | ^how\ (?:many|much)\ (?-i:[a-z-]+\ )?(?:are|is|were|was)\ there\W*$
    | \b(?:is|are|were|was)\ there\ (?:any|some|an?)\ (?-i:[a-z-]+)(?:\ [a-z-]+)?\W*$         # are there any benefits?
    """,
    _FLAGS,
)
CUE = re.compile(
    r"""
      ^\W*(?:(?:ok|okay|yes|no|and|so|well|but|then)\W+)? (?:what|how)\ about\b
    | \b(?:another|instead|again|previous(?:ly)?|earlier|as\ well|alternate|alternatives?|others|the\ (?:former|latter)
      |(?:mentioned|listed|described|the|text)\ above|above[- ]mentioned|similar\ ones?
      |the\ (?:rest|remaining|same|other)
      |(?:any|some|what)\ other|(?:anything|something|what|who|where)\ else
      |your\ (?:last|previous|first|answer|response))\b (?!\ than)
    | \b(?:also|too)\b
    | \b(?:first|second|third|last|final|next)\ (?:two|three|few|step|part|point|paragraph|sentence|option
      |example|idea)\b (?!\ of)
    | \b(?:any|some|one|two|three|four|five|ten|\d+|a\ few|many|tell\ me|say|show\ me|give\ me)\ more\b
      (?!\ than|\ about)
    | \bmore\ (?:examples?|details?|detail|information|info|options?|ideas?|please)\b | \bmore\W*$
    | ^\W*(?:please\ )?(?:rewrite|rephrase|reword|shorten|simplify|continue|redo|finish|expand)\b
    | ^\W*(?:please\ )?(?:make|keep)\ (?:the|everything)\b | \b(?:shorter|longer|simpler|briefer)\W*$
    """,
    _FLAGS,
)


def dependence(query: str, turn: int) -> str | None:
    """The rule by which ``query``, asked at exchange ``turn`` (from 1), leans on the history; None where none fires.

    A first query has no history to lean on.
    """
    if turn <= 1:
        return None
    asked = re.sub(r"[^\S\n]+", " ", query.strip())
    length = len(asked.split())
    if length <= OPENING:
        asked = CLOSING.sub(" ", asked).strip()
        if not re.sub(r"\W", "", FILLER.sub("", asked)):
            return None  # thanks and goodbye ask for nothing
    if _points(PRONOUN, asked, _refers_inside):
        return "pronoun"
    if _points(DEMONSTRATIVE, asked, _sentence_before):
        return "demonstrative"
    if length <= OPENING and (ELLIPSIS.search(asked) or (length <= SHORT and not VERB.search(asked))):
        return "ellipsis"
    return "cue" if _points(CUE, asked, _sentence_before) else None


def other_history(sessions: Sequence[Dialogue], session: str, turn: int, seed: int) -> tuple[Turn, ...]:
    """Another session's messages, to stand before the query of exchange ``turn`` in place of its own history.

    As many exchanges as there were where some session has them, so that length tells nothing. Which one depends on
    ``seed``, ``session`` and ``turn``. Raises ValueError where ``sessions`` hold no other answered one.
    """
    start = derive_seed(seed, session, turn) % max(1, len(sessions))
    rotated = (sessions[(start + i) % len(sessions)] for i in range(len(sessions)))
    longest: Dialogue | None = None
    for other in rotated:
        if other.id != session and len(other.answers) > (len(longest.answers) if longest else 0):
            longest = other
            if len(other.answers) >= turn - 1:
                break
    if longest is None:
        raise ValueError(f"no session but {session} has a history")
    return longest.complete().turns[: 2 * (turn - 1)]


def _points(rule: re.Pattern[str], text: str, resolved: Callable[[str, int], bool]) -> bool:
    """Whether the rule matches in the opening words, its referent neither ``resolved`` nor pasted behind."""
    opening = re.match(rf"(?:\s*\S+){{0,{OPENING}}}", text)
    end = opening.end() if opening else 0
    for match in rule.finditer(text):
        if match.start() > end:
            return False
        if not resolved(text, match.start()) and not _material_behind(text[match.end() :]):
            return True
    return False


def _material_behind(rest: str) -> bool:
    """Whether a colon or a line break and ``MATERIAL`` words follow: "shorten this text: ..."."""
    mark = re.search(r"[:\n]", rest)
    return mark is not None and len(rest[mark.end() :].split()) >= MATERIAL


def _sentence_before(text: str, start: int) -> bool:
    """Whether the query itself says something before, which "this" or "also" may take up."""
    return any(len(sentence.split()) >= SENTENCE for sentence in re.split(r"[.?!:\n]", text[:start])[:-1])


def _refers_inside(text: str, start: int) -> bool:
    """Whether the pronoun at ``start`` refers to nothing, or to something in the text before it."""
    # Not finditer over all of a long text: an expletive is short and stands around its pronoun.
    near = max(0, start - EXPLETIVE_SPAN)
    for match in EXPLETIVE.finditer(text, near, start + EXPLETIVE_SPAN):
        if match.start() <= start < match.end():
            return True
    return ANTECEDENT.search(text[:start]) is not None
