"""The same writer's answers: what one fixed model says to held-out queries, under their true histories.

Appended to ``written.jsonl`` as they come.
"""

from __future__ import annotations

from contextlib import closing

from parrot_lite.chat import all_at_once, open_chat
from parrot_lite.chat.meter import Meter
from parrot_lite.errors import UserError
from parrot_lite.evaluate import bench, play
from parrot_lite.evaluate.records import Written
from parrot_lite.evaluate.variants import scored_turns
from parrot_lite.progress import progress
from parrot_lite.recipe import Probe, Recipe
from parrot_lite.store import RunFolder
from parrot_lite.types import derive_seed

FILE = "written.jsonl"


def run(recipe: Recipe, settings: Probe, folder: RunFolder, meter: Meter) -> None:
    """Have the missing ones written. Raises UserError where calls failed; what did not is kept."""
    if "same-writer" not in settings.answers or settings.writer is None:
        return
    sessions = bench.heldout(recipe, settings)
    places = [(session, turn) for session in sessions for turn in scored_turns(session, settings)]
    failures: list[str] = []
    with folder.journal(FILE, Written, lambda one: (one.dialogue, one.turn)) as journal:
        left = [(session, turn) for session, turn in places if (session.id, turn) not in journal]
        if not left:
            return
        width = len(left) if all_at_once(settings.writer) else play.in_flight(settings.writer)
        seed = derive_seed(recipe.run.seed, "eval", "written")
        with (
            closing(open_chat(settings.writer, recipe, meter)) as chat,
            progress("same-writer answers", len(places), len(journal)) as bar,
        ):
            for start in range(0, len(left), width):
                group = left[start : start + width]
                contexts = [session.before(turn) for session, turn in group]
                replies = chat.reply(contexts, "assistant", settings.decoding, seed)
                for (session, turn), reply in zip(group, replies, strict=True):
                    text = (reply.text or "").strip()
                    if text:
                        journal.append(Written(dialogue=session.id, turn=turn, text=text, ended=reply.stop != "length"))
                    elif reply.text is not None or reply.lasting:
                        reason = reply.lasting or "empty reply"
                        journal.append(Written(dialogue=session.id, turn=turn, text=None, reason=reason))
                    else:
                        failures.append(reply.reason or "")
                bar.advance(len(group), f"{len(failures)} failed" if failures else "")
    if failures:
        raise UserError(
            f"{len(failures)} of {len(places)} answers failed, the first because: {failures[0]}",
            str(folder.path),
            "The others are kept; run it again to retry these",
        )
