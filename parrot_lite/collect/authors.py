"""Who writes negatives, and chosen answers where the recipe asks for them: replies become branches or reasons."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from parrot_lite.chat.calls import Speaker
from parrot_lite.collect import filters
from parrot_lite.collect.shown import Author, Contexts, Place, Shown, Skipped, shown
from parrot_lite.collect.validity import REFUSAL, objection, words
from parrot_lite.recipe import Negatives
from parrot_lite.types import Branch, Dialogue, Negative, Reply
from parrot_lite.words import whole


@dataclass(frozen=True)
class Failed:
    """A failed call, which a later attempt repeats."""

    reason: str


Result = Branch | Skipped | Failed


@dataclass(frozen=True)
class _Asked:
    """A negative on its way: the answer that it will be contrasted with, and what its author is shown."""

    place: Place
    chosen: str
    shown: Shown


class Authors:
    """The writer, the policy, or both, with what they are shown."""

    def __init__(self, speakers: Mapping[Author, Speaker], contexts: Contexts, settings: Negatives) -> None:
        self._speakers, self._contexts, self._settings = speakers, contexts, settings

    def write(self, places: Sequence[Place]) -> dict[str, Result]:
        """One result a place, by its id. All chosen answers go out together, then all guesses, then all negatives."""
        results: dict[str, Result] = {}
        guessing: list[_Asked] = []
        answering: list[_Asked] = []
        answers = self._chosen(places)
        for place in places:
            chosen = answers[place.id]
            if not isinstance(chosen, str):
                results[place.id] = chosen
            elif place.kind == "random":
                results[place.id] = self._random(place, chosen)
            elif isinstance(context := self._contexts.show(place, chosen), Skipped):
                results[place.id] = context
            else:
                (guessing if context.guess else answering).append(_Asked(place, chosen, context))
        for asked, reply in self._replies(guessing):
            guess = _guess(asked, reply)
            if isinstance(guess, _Asked):
                answering.append(guess)
            else:
                results[asked.place.id] = guess
        for asked, reply in self._replies(answering):
            text = text_of(kept := self._shortened(reply))
            name = self._speakers[asked.place.author].name
            shorter = kept is not reply
            results[asked.place.id] = self._branch(asked, text, name, shorter) if isinstance(text, str) else text
        return results

    def _chosen(self, places: Sequence[Place]) -> dict[str, str | Skipped | Failed]:
        """The better answer of each place's pair: the session's own, or its author's under the true history.

        A random negative's author is another session; there it is the first of ours.
        """
        if self._settings.chosen == "session":
            return {place.id: place.answer for place in places}
        found: dict[str, str | Skipped | Failed] = {}
        for author, speaker in self._speakers.items():
            turns: dict[str, list[Place]] = {}  # the kinds of a turn share their chosen answer
            for place in places:
                if self._author(place) == author:
                    turns.setdefault(f"{place.session.id}/{place.turn}/chosen/{author}", []).append(place)
            asked = [
                Dialogue(id=name, source="negatives", turns=group[0].session.before(group[0].turn).turns)
                for name, group in turns.items()
            ]
            for group, reply in zip(turns.values(), speaker.reply(asked), strict=True):
                text = text_of(self._shortened(reply))
                if isinstance(text, str) and filters.refusal(text):
                    text = Skipped(REFUSAL)
                if isinstance(text, Skipped):
                    text = Skipped(f"chosen: {text.reason}")
                found.update({place.id: text for place in group})
        return found

    def _shortened(self, reply: Reply) -> Reply:
        """The reply, where max_tokens cut it and the recipe says so up to its last whole sentence."""
        if not self._settings.shorten or reply.stop != "length" or not (text := whole(reply.text or "")):
            return reply
        return reply.model_copy(update={"text": text, "stop": "end"})

    def _author(self, place: Place) -> Author:
        return place.author if place.author in self._speakers else next(iter(self._speakers))

    def _replies(self, asked: Sequence[_Asked]) -> Iterator[tuple[_Asked, Reply]]:
        for author, speaker in self._speakers.items():
            mine = [each for each in asked if each.place.author == author]
            yield from zip(mine, speaker.reply([each.shown.context for each in mine]), strict=True)

    def _random(self, place: Place, chosen: str) -> Branch | Skipped:
        if (drawn := self._contexts.exchange_elsewhere(place)) is None:
            return Skipped("no other session")
        session, turn = drawn
        there = Shown(session.before(turn), f"the answer of another session: {session.id} turn {turn}")
        return self._branch(_Asked(place, chosen, there), session.answers[turn - 1], session.source)

    def _branch(self, asked: _Asked, text: str, writer: str, shortened: bool = False) -> Branch | Skipped:
        reason = objection(text, asked.chosen, self._settings)
        if reason:
            return Skipped(reason)
        place, prompt = asked.place, asked.shown.prompt
        negative = Negative(
            kind=place.kind,
            text=text,
            how=place.how,
            writer=writer,
            done=asked.shown.done,
            saw=asked.shown.context.turns,
            prompt=prompt.sha256 if prompt else None,
            words=words(text),
            chosen_words=words(asked.chosen),
            shortened=shortened,
        )
        own = asked.chosen if self._settings.chosen == "writer" else None
        return Branch(turn=place.turn, rule=place.rule, negative=negative, chosen=own)


def _guess(asked: _Asked, reply: Reply) -> _Asked | Skipped | Failed:
    """The guessed question as all that the author of the answer sees."""
    text = text_of(reply)
    if not isinstance(text, str):
        return text
    guess = text.splitlines()[0].strip().strip('"').strip()
    if not guess:
        return Skipped("empty reply")
    if guess.casefold() == asked.place.query.casefold():
        return Skipped("nothing guessed")  # the answer would be a second neglect under another name
    context = shown(asked.place, [guess], "history withheld; referent guessed", asked.shown.prompt)
    return _Asked(asked.place, asked.chosen, context)


def text_of(reply: Reply) -> str | Skipped | Failed:
    """What a reply says, or why it says nothing that can be used."""
    if reply.text is None:
        return Skipped(reply.lasting) if reply.lasting else Failed(reply.reason or "unknown")
    if reply.stop == "length":
        return Skipped("cut at max_tokens")  # an answer that breaks off would teach that breaking off is the fault
    return reply.text.strip() or Skipped("empty reply")
