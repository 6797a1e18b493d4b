"""Which queries lean on the history, by rules on the query alone: the "pronoun recognition" of the paper's section 3.3.

Six rules, tried in this order; each looks for something that the query leaves for the history to say.

``pronoun``: it, they, he, she, with nothing in the query to refer to. ``demonstrative``: this, that, one, there,
likewise. ``ellipsis``: a fragment, a bare "why?", a "what about ...", a reply to a question. ``definite``: "the test",
a definite noun phrase at the end of its clause with nothing that says which. ``relation``: "what is an example?",
"how does it compare?", a noun or verb whose other half is missing. ``cue``: another, else, instead, previous.

Rules see words, not meaning: "what are the types of orbits?" passes for independent in a talk about satellites. The
words of the history were tried and add nothing, since a query that stands alone shares as many with it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

OPENING = 40  # words of a query that are looked at: behind them stands pasted material or an answer of its own
MATERIAL = 15  # words behind a colon or a line break from which a query brings what it points at
SENTENCE = 8  # words of an earlier sentence of the same query that a demonstrative may take up
SPAN = 100  # characters around a match that may decide about it, so that a long text costs no more than a short one
FRAGMENT = 6  # words up to which a query without a verb is a fragment
TOPIC = 2  # content words up to which "what about ..." leaves out what is asked about it

_FLAGS = re.IGNORECASE | re.VERBOSE

# What completes a noun phrase that stands before it: "the address OF the museum", "the people WHO came".
COMPLETION = r"""(?:of|in|for|to|at|from|on|with|between|by|near|about|serv(?:es?|ing)|located|that|which|who|whose
    |when|where|than|used|called|using|against|under|into|during|after|before|if|without|within|through|versus|vs)"""
# A lower-case word that completes nothing; a preposition may end a clause ("come from?").
PLAIN = rf"(?-i:(?!{COMPLETION}\ \w)[a-z][a-z'’-]*)"
CLAUSE_END = r"\s*(?:[.?!,;:\n]|$)"

PRONOUN = re.compile(
    r"\b(?:it|its|itself|they|them|their|theirs|themselves|he|him|his|himself|she|her|hers|herself)\b", re.IGNORECASE
)
POSSESSIVE = re.compile(r"(?:its|their|theirs|his|her|hers|\w+sel(?:f|ves))\b", re.IGNORECASE)
# "It" that refers to nothing. Searched for on its own; a pronoun inside a match does not count.
EXPLETIVE = re.compile(
    r"""\b(?:
        it (?:\ is|['’]s|\ was|\ will\ be|\ has\ been)\ (?:\w+\ )?
        (?:rain|snow|cold|warm|hot\ out|late|dark|sunny|windy)\w*
      | (?:it(?:\ is|['’]s|\ was)|(?:is|was|would|makes?|find)\ it (?:\ be)?)
        \ (?:\w+ly\ |so\ |very\ |too\ |not\ |more\ )?
        (?:possible|impossible|true|important|necessary|better|best|safe|legal|illegal|easy|easier|hard|harder
          |difficult|worth|normal|common|clear|ok|okay|wrong|right|good|bad|likely|helpful|useful|essential|time)
        \ (?:\w+ing|to|that|if|for\ \w+(?:\ \w+)?\ to)\b
      | it\ (?:seems|appears|turns\ out|follows)\b
      | (?:(?:does|did|will|would|can|could|should)\ it\ (?:take|cost|mean)|it\ (?:takes?|took|costs?))\ (?:\w+\ ){0,4}?
        (?:to|for|when|if)\b
    )""",
    _FLAGS,
)
# What a pronoun may refer to inside its own query: a name that does not begin a sentence, or "a ...", "my ...".
ANTECEDENT = re.compile(
    r"""(?<![.?!:]\s)(?<!^) \b(?!I\b|I['’]|OK\b)[A-Z][\w&-]*
      | \b(?i:an?|my|our|every|each|any|someone|somebody|people|everyone)\b \s\w+
    """,
    re.VERBOSE,
)
# A pronoun and its antecedent do not stand in one clause: in "why did Ford start it" Ford is not "it".
CLAUSE = re.compile(
    r"[,.;:?!\n]|\b(?:and|or|but|because|since|that|which|who|if|when|as|so|while|than|before|after)\b", re.IGNORECASE
)
# "What is X and why is it ...": X is the antecedent, whatever its form.
INTRODUCED = re.compile(
    r"""^(?:what|who)\ (?:is|are|was|were)\ (?!the\b) [\w\ -]+ (?:\b(?:and|or)|,)[ ]
        (?:why|how|where|when|what|who|is|are|do|does|did|was|were|can)\b""",
    _FLAGS,
)
DEMONSTRATIVE = re.compile(
    r"""\b(?:
        this (?!\ (?:year|month|week|weekend|morning|afternoon|evening|summer|winter|spring|autumn|fall|time)\b)
      | these (?!\ days) | those (?!\ (?:who|of\ us|with)\b)
      | that (?= \s* (?:[?.!,;]|$) | \ (?:in|into|as|to|again|more|with|for|one|too|please)\b )   # explain that in ...
      | (?<!\w\ ) that (?=['’]s|\ (?:is|was|would|will|can|does|did|sounds|seems|makes)\b)      # That is odd.
      | (?:is|was|does|did|do|would|about|for|with|like|to|than|from|on|by|after|before|at|of|using) \ that \b
        (?!\ (?:the|an?|my|your|we|they|he|she|it|i|you)\b)
      | (?<!\bhi\s)(?<!hey\s)(?<!hello\s)(?<!\bout\s)(?<!\bare\s)(?<!\bis\s) there (?= \s* (?:[?.!,;]|$) )
      | (?<!\bnumber\s)(?<!\bby\s) one (?= (?:\ please)? \s* (?:[?.!,;]|$) )                       # suggest one.
      | (?:an?|the|which|another|each|every|any|next|last|first|second|third|other|better|new)\ (?:[a-z-]+\ )?one
        (?! \ (?:of|day|time|hundred|thousand|million|more|another)\b) \b
      | (?<!loved\ )ones
    )\b""",
    _FLAGS,
)
# Where an answer is praised: at the start of a clause, or "Write something like that" would be praise as well.
START = r"(?:^\W*|(?<=[.,!?;]\ )|(?<=\bok\ )|(?<=\bokay\ ))"
END = r"(?= \s* (?:[.,!;]|$) )"
CLOSING = re.compile(
    rf"""\b(?:
        (?:many\ )?thank(?:s|\ you)\b [^.?!,]* (?:,(?:\ (?-i:[A-Z])[\w'’]*){{1,2}}(?=[\s.!]*$))?
      | (?:good\ ?)?bye(?:\ ?bye)? | you\ too
      | have\ a\ (?:good|nice|great)\ \w+
      | (?:i\ think\ )? th(?:at|is)
        (?:\ is|\ was|['’]?s|\ ?['’]?ll|\ will|\ should|\ would|\ sounds|\ does)? (?:\ be|\ do)?
        \ (?:all|it|everything|fine|great|good|perfect|okay|ok|do|enough)
        (?:\ (?:of\ )?the\ \w+)? (?:\ (?:that\ )?i\ (?:need|want)(?:ed)?\b [^.?!]* | \ for\ (?:now|today) | \ then)?
        (?= \s* (?:[.,!;]|$) | \ (?:and\ |no\ )?thank )
    )\b
  | {START} (?:
        (?:that|this|it) (?:\ is|\ was|['’]?s|\ sounds) (?:\ (?:pretty|very|really|so|quite|much|also|just))?
        \ (?:fair|better|nice|cool|helpful|awesome|amazing|excellent|interesting|lovely|brilliant|wonderful|fantastic
          |impressive|(?:exactly\ )?what\ i\ (?:need|want)(?:ed)?)
      | (?:i\ (?:really\ )?(?:like|love|appreciate)|love|appreciate)\ (?:it|that|this) | it\ works(?:\ now)?
      | (?:great|good|nice|perfect|excellent|amazing|awesome)\ (?:answer|job|work|effort|response|explanation|try|one)
      | (?:i\ )?got\ it | i\ see | well\ done
    ) {END}""",
    _FLAGS,
)
FILLER = re.compile(
    r"""\b(?:no|nope|ok|okay|well|great|good|perfect|please|um|uh|oh|ah|sorry|actually|cool|nice|awesome|excellent|sweet
    |wow|haha|lol|and)\b""",
    _FLAGS,
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
QUESTION = re.compile(
    r"^\W*(?:(?:ok|okay|yes|no|and|so|well)\W+)?(?:what|who|where|when|why|how|which)\ \w+\ \w", re.IGNORECASE
)
ELLIPSIS = re.compile(
    rf"""
      ^(?:and|or|but|then|so)\b (?:\W+[\w'’]+){{1,7}}\W*$                                   # and in winter?
    | (?:^|[.?!,]\s+) (?:but\ |and\ |so\ )? (?:why|how|how\ come|where|when|who|which(?:\ ones?)?|what)
      (?:\ (?:not|so|else|then|exactly|though))? \W*$                                         # why not?
    | ^(?:please\ )?(?:continue|go\ on|keep\ going|proceed|elaborate|expand|next|carry\ on|explain|rewrite|rephrase
      |shorten|simplify|summari[sz]e|translate|finish|redo|retry|again|make\ (?:shorter|longer|simpler|better))
      (?:\ (?:please|further|more|again|in\ (?:more\ )?detail|to\ \w+|into\ \w+))*\W*$         # continue
    | (?:^|\bno\W+|\b(?:i|it|that)\ (?:really\ )?) (?:don['’]?t|do\ not|doesn['’]?t|does\ not)
      \ (?:really\ )? (?:care|mind|matter) {CLAUSE_END}                                       # I don't care.
    | (?:\bno|\bnot\ have\ an?y?|n['’]t\ have\ an?y?)\ (?:particular\ |real\ )?preferences? {CLAUSE_END}
    | ^\W*which\ (?:is|are|was|were|has|have|of\ the)\b                                       # which is younger?
    | ^\W*(?:what|which)\ (?:kind|type|variety|size|colou?r)s?\ (?:is|are|has|have|should|do|does|would|can|works?)\b
    | ^how\ (?:many|much)\ (?:{PLAIN}\ )?(?:are|is|were|was)\ there\W*$
    | \b(?:is|are|were|was)\ there\ (?:any|some|an?)\ {PLAIN}(?:\ {PLAIN})?\W*$               # are there any benefits?
    """,
    _FLAGS,
)
ABOUT = re.compile(r"\b(?:what|how)\ about\b (?P<topic>[^.?!]*)", _FLAGS)
SMALL = re.compile(r"\b(?:an?|the|some|any|then|instead|please|for|in|with|on|to|at)\b", re.IGNORECASE)
DEFINITE = re.compile(
    rf"""(?<!\bof\ )(?<!\bin\ )(?<!\bto\ )(?<!\bfor\ )(?<!\bfrom\ )(?<!\bat\ )(?<!\bon\ )(?<!\bwith\ )(?<!\babout\ )
    \bthe\ (?!(?:world|internet|web|sun|moon|earth|sky|sea|weather|future|past|universe|government|police|law|public
      |economy|environment|news|night|morning|afternoon|evening|day|way|ground|north|south|east|west|cent(?:er|re)
      |middle|end|beginning|following|same|most|more|less|other|next|last)\b)                 # there is only one of it
    {PLAIN} (?:,?\ {PLAIN}){{0,8}} {CLAUSE_END}""",
    _FLAGS,
)
NEGATION = re.compile(r"n['’]t\b|\b(?:not|dont)\b", re.IGNORECASE)
RELATION = re.compile(
    rf"""
      \b(?:the|an?)\ (?:\w+\ )? (?:differences?|impacts?|effects?|influence|implications?|relations?|relationships?
      |roles?|purpose|origins?|advantages?|disadvantages?|benefits?|risks?|pros|similarit\w+|comparison|significance|importance)
      \ (?:on|for|to|in|with)\b (?!.*\bof\b)                                                  # the impact on prices
    | ^(?:what|which|who)\ (?:is|are|was|were)\ (?:some\ |the\ |an?\ )?(?:most\ )?
      (?:important|popular|typical|common|famous|notable|major|main|key|recent|good|best|first|largest|biggest
      |examples?|types?|kinds?|risks|benefits|advantages|disadvantages|symptoms|reasons?|steps?|causes?|ingredients)
      (?:\ {PLAIN}){{0,2}}\W*$                                                                # what are typical dishes?
    | ^(?:what|which)\ {PLAIN}\ (?:{PLAIN}\ )?(?:is|are|was|were|has|have)\ {PLAIN}\W*$     # which models are free?
    | \b(?:does|do|did|will|would|can|could)\b.*\b(?:compare|differ|help)\W*$                 # how does Rust compare?
    """,
    _FLAGS,
)
CUE = re.compile(
    rf"""
      \b(?:another|(?<!each\ )others?|(?:any|some|no)(?:thing|one|where|body)\ else|(?:what|who|where)\ else
      |alternatives?|(?:any|some|one|two|three|four|five|ten|\d+|few|many|tell\ me|say|show\ me|give\ me)\ more)\b
      (?!\ than|\ about) (?!(?:\ [\w-]+){{0,4}}\ {COMPLETION}\ \w) # another way to ... is none
    | \b(?:instead(?!\ of)|again|previous(?:ly)?|earlier|the\ (?:former|latter|rest|remaining|other|same(?!\ as|\ time))
      |(?:mentioned|listed|described|the|text)\ above|above[- ]mentioned|similar\ ones?
      |your\ (?:last|previous|first|answer|response))\b
    | \b(?:first|second|third|last|final|next)\ (?:two|three|few|step|part|point|paragraph|sentence|option
      |example|idea)\b (?!\ of)
    | \bmore\ (?:examples?|details?|information|info|options?|ideas?)\b (?!\ (?:about|on|of|for))
    | ^\W*(?:please\ )?(?:(?:rewrite|rephrase|reword|shorten|simplify|continue|redo|finish|expand)\b
      |(?:make|keep)\ (?:the|everything)\b)
    | \b(?:shorter|longer|simpler|briefer)\W*$
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
    opening = re.match(rf"(?:\s*\S+){{0,{OPENING}}}", asked)
    end = opening.end() if opening else 0
    short = end == len(asked)
    if short:
        asked = CLOSING.sub(" ", asked).strip()
        if not re.sub(r"\W", "", FILLER.sub("", asked)):
            return None  # thanks and goodbye ask for nothing
    for rule in RULES:
        if not short and rule.whole:
            continue
        for match in rule.pattern.finditer(asked, 0, end + SPAN):
            if match.start() > end or rule.resolved(asked, match) or _material_behind(asked[match.end() :]):
                continue
            return rule.name
    return None


def _refers_inside(text: str, match: re.Match[str]) -> bool:
    """Whether the pronoun refers to nothing, or to something in the query before it."""
    start = match.start()
    # Not finditer over all of a long text: an expletive is short and stands around its pronoun.
    near = max(0, start - SPAN)
    if any(it.start() <= start < it.end() for it in EXPLETIVE.finditer(text, near, start + SPAN)):
        return True
    before = text[:start]
    if INTRODUCED.search(before):
        return True
    antecedent = ANTECEDENT.search(before)
    if antecedent is None:
        return False
    # "Ford and its cars" may share a clause, "Ford started it" may not.
    return POSSESSIVE.match(text, start) is not None or CLAUSE.search(before, antecedent.start()) is not None


def _said_before(text: str, match: re.Match[str]) -> bool:
    """Whether the query itself says something before, which "this" or "another" may take up."""
    sentences = re.split(r"[.?!:\n]", text[: match.start()])[:-1]
    return any(len(sentence.split()) >= SENTENCE for sentence in sentences)


def _says_which(text: str, match: re.Match[str]) -> bool:
    """Whether something before the definite noun phrase says which, or a refusal needs no more: "not the price"."""
    before = text[: match.start()]
    return ANTECEDENT.search(before) is not None or NEGATION.search(before) is not None


def _names_its_topic(text: str, match: re.Match[str]) -> bool:
    """Whether a "what about ..." says enough to be understood without what was asked before."""
    return len(re.findall(r"[\w'’-]+", SMALL.sub("", match["topic"]))) > TOPIC


def _is_sentence(text: str, match: re.Match[str]) -> bool:
    """Whether a text of a few words is a question or has a verb."""
    return VERB.search(text) is not None or QUESTION.search(text) is not None


def _never(text: str, match: re.Match[str]) -> bool:
    return False


def _material_behind(rest: str) -> bool:
    """Whether a colon or a line break and ``MATERIAL`` words follow: "shorten this text: ..."."""
    mark = re.search(r"[:\n]", rest)
    return mark is not None and len(rest[mark.end() :].split()) >= MATERIAL


@dataclass(frozen=True)
class Rule:
    """What a query may lack, and what in the query supplies it; ``whole`` looks at queries of one opening alone."""

    name: str
    pattern: re.Pattern[str]
    resolved: Callable[[str, re.Match[str]], bool]
    whole: bool = True


RULES = (
    Rule("pronoun", PRONOUN, _refers_inside, whole=False),
    Rule("demonstrative", DEMONSTRATIVE, _said_before, whole=False),
    Rule("ellipsis", ELLIPSIS, _never),
    Rule("ellipsis", ABOUT, _names_its_topic),
    Rule("ellipsis", re.compile(rf"^\S+(?:\s+\S+){{0,{FRAGMENT - 1}}}$"), _is_sentence),
    Rule("definite", DEFINITE, _says_which),
    Rule("relation", RELATION, _never),
    Rule("cue", CUE, _said_before, whole=False),
)
