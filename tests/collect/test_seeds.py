"""First queries: sources, filters, duplicates, benchmarks and draws by hand; sessions that go on from logged ones."""

import hashlib
import json
from collections import Counter
from pathlib import Path

import pytest

from parrot_lite.collect import loop, seeds, sources
from parrot_lite.errors import UserError
from parrot_lite.recipe import Recipe
from parrot_lite.recipe_file import load
from parrot_lite.store import RunFolder, locate, read
from parrot_lite.types import Dialogue, Rejected, Reply, Turn, derive_seed
from tests.collect.speakers import DEMO, FunctionChat, recipe_in, said

BENCH = locate("package:parrot_lite/data/bench.jsonl")
# Thirteen words, and the same with one more in front or one in the middle.
RUN = "name the eleven longest rivers of europe with their sources and their mouths"


def recipe_of(folder: Path, *tables: str, collect: str = "") -> Recipe:
    """The demo with these seeds, in a file: tables of TOML."""
    path = folder / "seeds-demo.toml"
    body = "".join(f"[[collect.seeds]]\n{table}\n" for table in tables)
    path.write_text(f"extends = {json.dumps(str(DEMO))}\n[collect]\n{collect}\n{body}", encoding="utf-8")
    return load(path, [f"run.folder={json.dumps(str(folder / 'runs'))}"])


def drawn(recipe: Recipe, folder: Path) -> tuple[list[Dialogue], dict[str, dict[str, int]]]:
    folder.mkdir(exist_ok=True)
    there = RunFolder(folder, "collect")
    sessions = seeds.draw(recipe, there)
    return sessions, there.facts["seeds"]


def rows(path: Path, *listed: object) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in listed), encoding="utf-8")
    return json.dumps(str(path))


def exchange(query: str, answer: str = "It is.") -> list[dict[str, str]]:
    return [{"role": "user", "content": query}, {"role": "assistant", "content": answer}]


def text(path: Path, *queries: str) -> str:
    path.write_text("\n".join(queries) + "\n", encoding="utf-8")
    return json.dumps(str(path))


def shared_gpt(query: str) -> list[dict[str, str]]:
    return [{"from": "human", "value": query}, {"from": "gpt", "value": "Yes."}]


def test_every_kind_of_source_gives_its_first_queries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "hub"
    folder.mkdir()
    rows(folder / "train.jsonl", {"id": "0", "data": ["From the hub?", "Yes.", "More?", "No."]})
    (tmp_path / "d.jsonl").write_text(Dialogue(id="d", source="s").say("From dialogues?").model_dump_json() + "\n")
    paths = {
        "text": text(tmp_path / "t.txt", "From a text?", "", "  "),
        "sharegpt": rows(tmp_path / "s.json", {"id": "a_0", "conversations": shared_gpt("From ShareGPT?")}),
        "conversations": rows(tmp_path / "c.jsonl", {"conversations": shared_gpt("From conversations?")}),
        "messages": rows(tmp_path / "m.jsonl", {"messages": exchange("From messages?")}),
        "ultrachat": rows(tmp_path / "u.jsonl", {"id": "0", "data": ["From UltraChat?", "Yes."]}),
        "dialogues": json.dumps(str(tmp_path / "d.jsonl")),
        "hub": json.dumps(str(folder)),  # read by the real library, which takes a folder for an id
    }
    tables = [f'source = "{kind}"\npath = {path}' for kind, path in paths.items()]
    recipe = recipe_of(tmp_path, *tables, 'source = "bundled"\nname = "ours"', collect="sessions = 207")
    sessions, counts = drawn(recipe, tmp_path / "run")
    queries = {session.source: session.queries for session in sessions if session.source != "collect:ours"}
    assert queries == {
        "collect:text": ("From a text?",),
        "collect:sharegpt": ("From ShareGPT?",),
        "collect:conversations": ("From conversations?",),
        "collect:messages": ("From messages?",),
        "collect:ultrachat": ("From UltraChat?",),
        "collect:dialogues": ("From dialogues?",),
        "collect:hub": ("From the hub?",),
    }
    assert len(sessions) == 207
    assert all(session.due == "assistant" and session.given is None for session in sessions)
    assert counts["ours"] == {"read": 200, "left": 200, "drawn": 200}
    assert set(seeds.inputs(recipe)) == {
        "collect.benchmarks.bundled", "collect.seeds.ours", *(f"collect.seeds.{kind}" for kind in paths)
    }  # fmt: skip


def test_what_differs_in_case_space_and_punctuation_alone_is_one_query_in_all_sources(tmp_path: Path) -> None:
    first = text(tmp_path / "a.txt", "How do bees fly?", "how  do Bees fly", "Name a river.", "ＮＡＭＥ a river…")
    second = text(tmp_path / "b.txt", '"How do bees fly?"', "Name a river, a lake.", "How do the bees fly?")
    tables = (f'source = "text"\nname = "a"\npath = {first}', f'source = "text"\nname = "b"\npath = {second}')
    sessions, counts = drawn(recipe_of(tmp_path, *tables), tmp_path / "run")
    assert {(session.source, *session.queries) for session in sessions} == {
        ("collect:a", "How do bees fly?"),
        ("collect:a", "Name a river."),
        ("collect:b", "Name a river, a lake."),
        ("collect:b", "How do the bees fly?"),
    }
    assert counts == {
        "a": {"read": 4, "left": 2, "repeated": 2, "drawn": 2},
        "b": {"read": 3, "left": 2, "drawn by an earlier source": 1, "drawn": 2},
    }


def test_one_file_in_both_readings(tmp_path: Path) -> None:
    path = rows(tmp_path / "d.jsonl", *(session_of(str(n), f"Name river {n}.", "The Tagus.") for n in range(30)))
    table = f'source = "dialogues"\npath = {path}\nsessions'
    recipe = recipe_of(tmp_path, f'{table} = 12\nname = "v1"\nextend = 1', f"{table} = 20", collect="sessions = 32")
    sessions, counts = drawn(recipe, tmp_path / "run")
    assert len({session.queries[0] for session in sessions}) == len(sessions) == 30
    assert Counter(session.given for session in sessions) == {1: 12, None: 18}
    assert counts["dialogues"] == {"read": 30, "left": 18, "drawn by an earlier source": 12, "drawn": 18}


def test_rows_that_share_an_id_are_two_queries(tmp_path: Path) -> None:
    listed = [{"id": "0", "data": [query, "Yes."]} for query in ("Is it cold?", "Is it warm?")]
    path = rows(tmp_path / "u.jsonl", *listed)
    sessions, _ = drawn(recipe_of(tmp_path, f'source = "ultrachat"\npath = {path}'), tmp_path / "run")
    assert {session.queries[0] for session in sessions} == {"Is it cold?", "Is it warm?"}
    assert len({session.id for session in sessions}) == 2


def test_filters_and_rejections_are_counted_by_reason(tmp_path: Path) -> None:
    english, german = "This is what you have to do with it.", "Das machst du am besten so, wie ich es dir sage."
    listed = [
        {"messages": exchange("Name three rivers.", english)},  # English by its answer
        {"messages": exchange("Nenne drei Seen.", german)},
        {"messages": exchange("Two words.", english)},
        {"messages": exchange("¿ … !? — ***", english)},
        {"messages": exchange("One two three four five six.", english)},
        {"messages": [{"role": "user", "content": "Nobody answers this."}]},
        {"messages": exchange("Name three rivers!", english)},
    ]
    table = f'source = "messages"\npath = {rows(tmp_path / "m.jsonl", *listed)}\nenglish = 0.9'
    table += "\nmin_query_words = 3\nmax_query_words = 5"
    [session], counts = drawn(recipe_of(tmp_path, table), tmp_path / "run")
    assert session.queries == ("Name three rivers.",)
    assert counts["messages"] == {
        "read": 7,
        "left": 1,
        "drawn": 1,
        "not English": 1,
        "query too short": 2,
        "query too long": 1,
        "no answered query": 1,
        "unanswered last queries dropped": 1,
        "repeated": 1,
    }


def test_what_a_benchmark_asks_is_no_seed(tmp_path: Path) -> None:
    asked = json.loads(BENCH.read_text(encoding="utf-8").splitlines()[0])["turns"][1]
    own = text(tmp_path / "own.txt", RUN, "Why?")
    twelve = RUN.rpartition(" ")[0]
    table = text(
        tmp_path / "t.txt",
        asked.upper(),
        f"Please {RUN.title()}!",
        RUN.replace(" ", ", "),
        f"{twelve} deltas",  # its first twelve words alone
        RUN.replace("longest", "very longest"),
        "why",
        "Why not?",
    )
    recipe = recipe_of(tmp_path, f'source = "text"\npath = {table}', collect=f"benchmarks = [{own}]")
    there = RunFolder(tmp_path, "collect")
    sessions = seeds.draw(recipe, there)
    assert {session.queries[0] for session in sessions} == {
        f"{twelve} deltas",
        RUN.replace("longest", "very longest"),
        "Why not?",
    }
    name = json.loads(own)
    assert there.facts["seeds"]["text"] == {
        "read": 7,
        "left": 3,
        "drawn": 3,
        "in a benchmark": 4,
        "in bundled: equal": 1,
        f"in {name}: 13 words": 1,
        f"in {name}: equal": 2,
    }
    assert there.facts["benchmarks"][name] == {"queries": 2, "runs of 13 words": 1}
    assert there.facts["benchmarks"]["bundled"]["queries"] == 640
    assert seeds.inputs(recipe)[f"collect.benchmarks.{name}"] == Path(name)


def test_each_source_is_drawn_by_rank_and_a_larger_draw_keeps_the_smaller(tmp_path: Path) -> None:
    names = {kind: [f"Name {kind} number {number}." for number in range(60)] for kind in ("rivers", "lakes")}

    def draw(rivers: int, lakes: int, name: str, order: int = 1, total: int = 0) -> list[Dialogue]:
        paths = {kind: text(tmp_path / f"{kind}.txt", *queries[::order]) for kind, queries in names.items()}
        tables = [
            f'source = "text"\nname = "{kind}"\npath = {paths[kind]}\nsessions = {count}'
            for kind, count in (("rivers", rivers), ("lakes", lakes))
        ]
        recipe = recipe_of(tmp_path, *tables, collect=f"sessions = {total or rivers + lakes}")
        return drawn(recipe, tmp_path / name)[0]

    def ranked(kind: str, count: int) -> list[str]:
        """The same draw written down again, from the ids."""
        ids = {f"collect-{hashlib.sha256(query.encode()).hexdigest()[:12]}": query for query in names[kind]}
        return [ids[name] for name in sorted(ids, key=lambda name: derive_seed(0, "collect", "draw", name))[:count]]

    few = draw(10, 5, "few")
    assert Counter(session.source for session in few) == {"collect:rivers": 10, "collect:lakes": 5}
    for kind, count in (("rivers", 10), ("lakes", 5)):
        assert [s.queries[0] for s in few if s.source == f"collect:{kind}"] == ranked(kind, count)
    more = draw(30, 20, "more")
    assert {session.id for session in few} < {session.id for session in more}
    assert draw(10, 5, "reversed", order=-1) == few
    # A cap below what the sources add up to takes the first of both together.
    assert draw(30, 20, "capped", total=12) == more[:12]
    assert len({session.source for session in more[:12]}) == 2


def test_too_few_are_taken_and_said_and_none_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = text(tmp_path / "t.txt", "Name a river.", "Name a lake.")
    recipe = recipe_of(tmp_path, f'source = "text"\npath = {path}\nsessions = 20')
    sessions, _ = drawn(recipe, tmp_path / "run")
    assert len(sessions) == 2
    said = capsys.readouterr().err
    assert "of seeds text 20 are wanted, 2 are left" in said
    assert "16 sessions wanted, 2 different seed queries" in said
    recipe = recipe_of(tmp_path, f'source = "text"\npath = {path}\nmin_query_words = 4')
    with pytest.raises(UserError, match=r"text: no query is left of 2 read; most went as 'query too short' \(2\)"):
        drawn(recipe, tmp_path / "none")


def test_sources_are_read_once(tmp_path: Path) -> None:
    file = tmp_path / "t.txt"
    recipe = recipe_of(
        tmp_path, f'source = "text"\npath = {text(file, "Name a river.", "Name a lake.", "name a LAKE")}'
    )
    there = RunFolder(tmp_path / "run", "collect")
    there.path.mkdir()
    sessions = seeds.draw(recipe, there)
    (there.path / "starts.jsonl.part").write_text("half of")  # what a kill in the middle of another draw leaves
    file.unlink()
    again = RunFolder(there.path, "collect")
    assert seeds.draw(recipe, again) == sessions
    assert (again.facts, again.counts) == (there.facts, there.counts)
    assert again.counts == {"seeds": 3}


def session_of(name: str, *texts: str) -> dict[str, object]:
    return Dialogue(
        id=name,
        source="logged",
        turns=tuple(Turn(role=("user", "assistant")[at % 2], content=text) for at, text in enumerate(texts)),
    ).model_dump(exclude_none=True)


LOGGED = [
    session_of("short", "Name a river.", "The Tagus.", "Is it long?", "Rather."),
    session_of("other", "Name a lake.", "Como.", "Is it long?", "Fairly."),
    session_of("long", *(f"Message {number}." for number in range(8))),
    session_of("open", "Name a hill."),
]


def test_short_sessions_are_extended_as_the_papers_first_version_does(tmp_path: Path) -> None:
    path = rows(tmp_path / "d.jsonl", *LOGGED)
    recipe = recipe_of(tmp_path, f'source = "dialogues"\npath = {path}\nextend = 2', collect="max_turns = 4")
    sessions, counts = drawn(recipe, tmp_path / "run")
    assert {(s.queries, s.answers, s.given, s.due) for s in sessions} == {
        (("Name a river.", "Is it long?"), ("The Tagus.", "Rather."), 2, "user"),
        (("Name a lake.", "Is it long?"), ("Como.", "Fairly."), 2, "user"),
    }
    expected = {"read": 4, "left": 2, "drawn": 2, "longer than extend": 1, "no answered query": 1}
    assert counts["dialogues"] == expected
    assert list(read(tmp_path / "run" / "starts.jsonl", Dialogue)) == sessions


def test_a_follow_up_of_a_given_session_may_be_no_benchmarks_either(tmp_path: Path) -> None:
    path = rows(tmp_path / "d.jsonl", *LOGGED, session_of("third", "Name a valley.", "The Vale."))
    own = text(tmp_path / "own.txt", "is it LONG")
    tables = (
        f'source = "dialogues"\nname = "v1"\npath = {path}\nextend = 2',
        f'source = "dialogues"\nname = "v2"\npath = {path}',
    )
    sessions, counts = drawn(recipe_of(tmp_path, *tables, collect=f"benchmarks = [{own}]"), tmp_path / "run")
    assert {(session.source, session.queries[0]) for session in sessions} == {
        ("collect:v1", "Name a valley."),
        *(("collect:v2", query) for query in ("Name a river.", "Name a lake.", "Message 0.", "Name a hill.")),
    }
    assert (counts["v1"]["in a benchmark"], counts["v2"]["drawn by an earlier source"]) == (2, 1)


def test_the_asker_goes_on_from_given_sessions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = rows(tmp_path / "d.jsonl", *LOGGED, session_of("third", "Name a valley.", "The Vale."))
    recipe = recipe_of(
        tmp_path,
        f'source = "dialogues"\npath = {path}\nextend = 2',
        f'source = "text"\npath = {text(tmp_path / "t.txt", "Name a forest.")}',
        collect="min_turns = 1\nmax_turns = 3\nkeep_turns = 1",
    )

    def ask(session: Dialogue) -> Reply:
        return said("") if session.queries[0] == "Name a valley." else said(f"And {session.id[-12:]}?")

    asker, answerer = FunctionChat(ask), FunctionChat(lambda session: said(f"Answer {len(session.queries)}."))
    monkeypatch.setattr(loop, "open_chat", lambda spec, *_: asker if spec == recipe.collect.asker else answerer)
    monkeypatch.setattr(loop, "_target", lambda session, _: loop._shortest(session))  # one new exchange each
    monkeypatch.setattr(loop, "inputs_of", lambda spec, _: {})
    loop.run(recipe)
    folder = recipe.folder("collect")
    kept = {session.queries[0]: session for session in read(folder / "dialogues.jsonl", Dialogue)}
    assert set(kept) == {"Name a river.", "Name a lake.", "Name a forest."}
    for name, answers in (("Name a river.", ("The Tagus.", "Rather.")), ("Name a lake.", ("Como.", "Fairly."))):
        session = kept[name]
        assert session.queries == (name, "Is it long?", f"And {session.id[-12:]}?")  # not cut where both ask the same
        assert session.answers == (*answers, "Answer 3.")
        assert (session.given, session.ended) == (2, "target")
    assert (kept["Name a forest."].answers, kept["Name a forest."].given) == (("Answer 1.",), None)
    [rejected] = read(folder / "rejected.jsonl", Rejected)  # nothing new came: what was logged is no result
    assert (rejected.reason, rejected.source, rejected.detail) == ("empty query", "collect:dialogues", "1 exchanges")
    assert {len(shown.turns) for shown in asker.shown} == {2, 4}
    counts = json.loads((folder / "manifest.json").read_text())["counts"]
    assert (counts["exchanges"], counts["exchanges given"]) == (7, 4)


def test_targets_of_given_sessions_leave_room_for_the_asker(tmp_path: Path) -> None:
    recipe = recipe_in(tmp_path, "collect.min_turns=1", "collect.max_turns=5")
    session = Dialogue.model_validate({**session_of("x", *"abcdef"), "given": 3})
    targets = {loop._target(session.model_copy(update={"id": str(number)}), recipe) for number in range(40)}
    assert targets == {4, 5}


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        (['source = "text"'], "source 'text' needs a path"),
        (['source = "logs"\npath = "x"'], "source 'logs' takes no path"),
        (['source = "text"\npath = "x"\nextend = 2'], "source 'text' has no sessions to extend"),
        (['source = "sharegpt"\nextend = 4'], "extend must be below max_turns"),
        (['source = "logs"', 'source = "logs"'], "two seeds are called 'logs'"),
        (['source = "logs"\nsessions = 9', 'source = "bundled"\nsessions = 6'], "but the seeds add up to 15"),
        (['source = "text"\npth = "x"'], "unknown key 'pth' of the first of 'collect.seeds'.*Did you mean 'path'"),
        (['source = "reddit"'], "'source' of the first of 'collect.seeds' = \"reddit\""),
    ],
)
def test_seeds_that_contradict_themselves(tmp_path: Path, tables: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        recipe_of(tmp_path, *tables)


def test_the_short_forms(tmp_path: Path) -> None:
    for short, source, path in (("bundled", "bundled", None), ("logs", "logs", None), ("x.txt", "text", "x.txt")):
        recipe = recipe_in(tmp_path, f"collect.seeds={short}")
        assert [(one.source, one.path, one.sessions) for one in recipe.collect.seeds] == [(source, path, None)]
    assert recipe.resolved("collect")["collect"]["seeds"][0]["path"] == "x.txt"
    with pytest.raises(UserError, match="no such file"):
        seeds.inputs(recipe)


def test_first_queries_of_sharegpt(tmp_path: Path) -> None:
    try:
        locate(sources.SHAREGPT)
    except UserError as missing:
        pytest.skip(str(missing))
    recipe = recipe_of(tmp_path, 'source = "sharegpt"\nsessions = 500\nenglish = 0.9', collect="sessions = 500")
    sessions, counts = drawn(recipe, tmp_path / "run")
    assert len(sessions) == 500
    count = counts["sharegpt"]
    assert (count["read"], count["chunks"]) == (9_460, 17_671)
    lost = ("repeated", "not English", "in a benchmark", "query too short", "roles do not alternate", "empty message")
    lost += ("no answered query", "no messages")
    assert count["left"] + sum(count.get(reason, 0) for reason in lost) == count["read"]
    assert count["repeated"] > 0
    assert count["not English"] > 0
