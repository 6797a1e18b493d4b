"""Exports: read back by our own readers, by ``datasets``, by TRL's trainers as they are; and the card beside them."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from parrot_lite.collect import card, export, logs, sources
from parrot_lite.errors import UserError
from parrot_lite.recipe_file import load
from parrot_lite.store import read
from parrot_lite.types import Branch, Dialogue, Negative, SessionTree, Turn
from tests.collect.speakers import DEMO
from tests.tiny import sessions as bundled
from tests.tiny import tiny_model, write

SESSIONS = [
    Dialogue(id="a", source="collect:sharegpt", ended="target", given=1)
    .say('Why is "ice" cold?\n\n```x = "<|im_end|>"```')
    .say("Because … 冰.")
    .say("And snow?")
    .say("It is, too."),
    Dialogue(id="b", source="collect:ultrachat", ended="role drift").say("Name a river.").say("The Tagus."),
    Dialogue(id="c", source="collect:ultrachat").say("Name a lake.").say("Como.").say("And another?"),
    Dialogue(id="d", source="collect:ultrachat").say("Nobody answered this."),
]
COMPLETE = [session.complete() for session in SESSIONS[:3]]


def negative(kind: str, text: str) -> Negative:
    fields = {"kind": kind, "text": text, "how": "structural", "writer": "w", "done": "history withheld", "saw": ()}
    return Negative.model_validate(fields)


TREES = [
    SessionTree(
        dialogue=COMPLETE[0],
        branches=(
            Branch(turn=2, rule="pronoun", negative=negative("neglect", "Snow is a film.")),
            Branch(
                turn=2,
                rule="pronoun",
                negative=negative("hallucination", "Snow, the band?"),
                chosen="Yes.",
                context=(Turn(role="user", content="And snow, is that cold?"),),
            ),
        ),
    )
]


def exported(tmp_path: Path, form: str, records: list[Any] = SESSIONS, **options: str) -> Path:
    source, out = write(tmp_path / "in.jsonl", records), tmp_path / form / "data.jsonl"
    export.run([source], out, form, **options)
    return out


def front_matter(readme: Path) -> Any:
    _, front, _ = readme.read_text(encoding="utf-8").split("---\n", 2)
    return yaml.safe_load(front)


@pytest.mark.parametrize(
    ("form", "reader"), [("messages", sources.messages), ("sharegpt", sources.conversations)], ids=lambda x: str(x)[:9]
)
def test_what_is_exported_is_read_back_the_same(tmp_path: Path, form: str, reader: Any) -> None:
    found = list(reader(exported(tmp_path, form)))
    assert [(one.id, one.source, one.turns) for one in found] == [(one.id, one.source, one.turns) for one in COMPLETE]


def test_our_own_layout_keeps_every_field(tmp_path: Path) -> None:
    assert list(read(exported(tmp_path, "dialogues"), Dialogue)) == COMPLETE
    assert list(read(exported(tmp_path, "dialogues", TREES), Dialogue)) == COMPLETE[:1]


def test_each_layout_by_hand(tmp_path: Path) -> None:
    def first(form: str, records: list[Any] = SESSIONS[1:]) -> Any:
        return json.loads(exported(tmp_path, form, records).read_text(encoding="utf-8").splitlines()[0])

    listed = [{"role": "user", "content": "Name a river."}, {"role": "assistant", "content": "The Tagus."}]
    assert first("messages") == {"id": "b", "source": "collect:ultrachat", "messages": listed}
    assert first("sharegpt")["conversations"] == [
        {"from": "human", "value": "Name a river."},
        {"from": "gpt", "value": "The Tagus."},
    ]
    rows = [json.loads(line) for line in exported(tmp_path, "trl-preference", TREES).read_text().splitlines()]
    said = [{"role": turn.role, "content": turn.content} for turn in COMPLETE[0].turns]
    assert [row["prompt"] for row in rows] == [said[:3], [{"role": "user", "content": "And snow, is that cold?"}]]
    assert [row["chosen"] for row in rows] == [said[3:], [{"role": "assistant", "content": "Yes."}]]
    assert [row["rejected"][0]["content"] for row in rows] == ["Snow is a film.", "Snow, the band?"]
    assert [(row["id"], row["kind"], row["turn"]) for row in rows] == [
        ("a/1", "neglect", 2),
        ("a/2", "hallucination", 2),
    ]


def test_one_source_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = exported(tmp_path, "dialogues", source="collect:ultrachat")
    assert list(read(out, Dialogue)) == COMPLETE[1:]
    text = (out.parent / "README.md").read_text()
    command = "parrot export-data in.jsonl --out data.jsonl --format dialogues --source collect:ultrachat"
    assert f"\n    {command}\n" in text
    rows = ("rows | 2", "sessions | 2", "left out: of another source | 1", "left out: no answered query | 1")
    assert all(f"| {row} |\n" in text for row in rows)
    assert "1 left out: of another source, 1 left out: no answered query" in capsys.readouterr().err
    with pytest.raises(UserError, match="no row for the format dialogues and 4 left out: of another source"):
        exported(tmp_path / "none", "dialogues", source="collect:nobody")
    assert not list((tmp_path / "none").rglob("data.jsonl*"))


@pytest.mark.parametrize(
    ("form", "records"),
    [("messages", SESSIONS), ("sharegpt", SESSIONS), ("dialogues", SESSIONS), ("trl-preference", TREES)],
)
def test_datasets_reads_the_file_and_the_folder_with_its_card(tmp_path: Path, form: str, records: list[Any]) -> None:
    import datasets

    out = exported(tmp_path, form, records)
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    cache = str(tmp_path / "cache")
    file = datasets.load_dataset("json", data_files=str(out), split="train", cache_dir=cache)
    assert file.to_list() == rows
    folder = datasets.load_dataset(str(out.parent), split="train", cache_dir=cache)
    assert folder.to_list() == rows
    assert list(folder.features) == list(export.FORMATS[form].features)
    declared = front_matter(out.parent / "README.md")["dataset_info"]["features"]
    assert folder.features == datasets.Features._from_yaml_list(declared)


def test_trl_trains_on_it_as_it_is(tmp_path: Path) -> None:
    import datasets
    import trl
    from transformers import AutoModelForCausalLM, AutoTokenizer

    trees = [
        SessionTree(dialogue=one, branches=(Branch(turn=2, rule="r", negative=negative("neglect", "No idea at all.")),))
        for one in bundled()[:4]
    ]
    options: dict[str, Any] = {
        "max_steps": 1, "per_device_train_batch_size": 2, "report_to": [], "bf16": False, "use_cpu": True,
        "gradient_checkpointing": False, "disable_tqdm": True, "save_strategy": "no", "logging_steps": 1,
    }  # fmt: skip
    with tiny_model(tmp_path / "model") as model:
        tokenizer = AutoTokenizer.from_pretrained(model)
        for form, records, trainer, config in (
            ("messages", list(bundled()[:4]), trl.SFTTrainer, trl.SFTConfig),
            ("trl-preference", trees, trl.DPOTrainer, trl.DPOConfig),
        ):
            out = exported(tmp_path, form, records)
            data = datasets.load_dataset(str(out.parent), split="train", cache_dir=str(tmp_path / "cache"))
            made = trainer(
                model=AutoModelForCausalLM.from_pretrained(model),
                args=config(output_dir=str(tmp_path / "out"), **options),
                train_dataset=data,
                processing_class=tokenizer,
            )
            made.train()
            losses = [entry["loss"] for entry in made.state.log_history if "loss" in entry]
            assert len(losses) == 1
            # From TRL's own templates and masks: DPO begins at ln 2, SFT near the entropy of what a random model says.
            assert losses[0] == pytest.approx(0.6931, abs=1e-3) if form == "trl-preference" else 2 < losses[0] < 20
            if form == "trl-preference":
                ids = made.train_dataset[0]
                assert "No idea at all." in tokenizer.decode(ids["rejected_ids"])
                assert bundled()[0].answers[0] in tokenizer.decode(ids["prompt_ids"])


def test_the_card_says_where_it_comes_from(tmp_path: Path) -> None:
    recipe = load(DEMO, [f"run.folder={json.dumps(str(tmp_path / 'runs'))}", "logs.source=bundled"])
    logs.run(recipe)
    out = tmp_path / "out" / "train.jsonl"
    export.run([recipe.folder("logs") / "train.jsonl"], out, "messages")
    readme = out.with_name("README.md")
    text = readme.read_text(encoding="utf-8")
    assert front_matter(readme)["configs"][0]["data_files"] == [{"split": "train", "path": "train.jsonl"}]
    assert front_matter(readme)["size_categories"] == ["n<1K"]
    manifest = json.loads((recipe.folder("logs") / "manifest.json").read_text())
    assert f"Recipe `demo`, seed 0, finished {manifest['finished']}" in text
    for name, number in manifest["counts"].items():
        assert f"| {name} | {number:,} |" in text
    assert (recipe.folder("logs") / "recipe.toml").read_text().strip() in text
    assert "| `bundled` | written for parrot_lite: MIT, as the package |" in text
    (recipe.folder("logs") / "manifest.json").unlink()
    with pytest.raises(UserError, match="its stage is not finished"):
        export.run([recipe.folder("logs") / "train.jsonl"], out, "messages")
    assert readme.read_text(encoding="utf-8") == text


def stage(folder: Path, name: str, section: str, settings: str, **facts: Any) -> None:
    """A finished stage's folder, written by hand."""
    (folder / name).mkdir(parents=True)
    (folder / name / "recipe.toml").write_text(f"[run]\nseed = 3\n[{section}]\n{settings}")
    manifest = {
        "stage": name,
        "recipe": "mine",
        "seed": 3,
        "finished": "today",
        "device": "a card",
        "counts": {},
        **facts,
    }
    (folder / name / "manifest.json").write_text(json.dumps(manifest))


def chain_by_hand(folder: Path) -> Path:
    stage(folder, "logs", "logs", 'source = "sharegpt"\npath = "V3.json"', counts={"rejected: not English": 1234})
    stage(folder, "train-ask", "ask", 'data = ["logs"]')
    seeds = 'seeds = [{source = "logs", name = "s"}, {source = "hub", name = "u", path = "stingning/ultrachat"}]\n'
    seeds += 'asker = {kind = "local", adapter = "train-ask"}\nanswerer = {kind = "server", model = "gpt-x"}'
    facts = {"s": {"read": 9, "drawn": 5}, "u": {"read": 8, "in a benchmark": 2, "drawn": 1}}
    named = {"gpt-x": {"calls": 9}, "answerer": {"calls": 8}}  # by model, and one is called like a role
    benchmarks = {"bundled": {"queries": 128}}
    stage(folder, "collect", "collect", seeds, seeds=facts, calls=named, benchmarks=benchmarks)
    stage(folder, "negatives", "negatives", 'data = ["collect"]\nwriter = {kind = "gguf", path = "w.gguf"}')
    return write(folder / "negatives" / "trees.jsonl", TREES)


def test_the_card_follows_the_stages_back(tmp_path: Path) -> None:
    trees = chain_by_hand(tmp_path)
    steps = card.chain([trees])
    assert [step.stage for step in steps] == ["negatives", "collect", "logs", "train-ask"]
    assert steps[1].speakers == {"asker": "local, train-ask", "answerer": "server, gpt-x"}
    assert steps[1].counts["seeds of u: in a benchmark"] == 2
    assert steps[1].benchmarks == {"bundled": 128}
    known = card.licences(["collect:s", "collect:u", "elsewhere"], steps)
    assert known["what sessions of `collect:s` start from"] == card.LICENCES["sharegpt"]
    assert known["what sessions of `collect:u` start from"] == card.LICENCES["ultrachat"]
    assert known["`elsewhere`"] == card.UNKNOWN
    assert known["what the asker was trained on"] == card.LICENCES["sharegpt"]
    assert known["writer: gguf, w.gguf"] == card.WRITTEN
    export.run([trees], tmp_path / "out" / "pairs.jsonl", "trl-preference")
    text = (tmp_path / "out" / "README.md").read_text()
    assert "| rejected: not English | 1,234 |" in text
    assert "| seeds of u: in a benchmark | 2 |" in text
    assert "- seeds compared with 128 queries of the benchmark bundled" in text
    assert "pairs of kind hallucination | 1 |" in text


def test_a_file_of_unknown_origin_says_so(tmp_path: Path) -> None:
    text = (exported(tmp_path, "messages").parent / "README.md").read_text()
    assert "no manifest beside it, so how it was collected is not recorded here" in text
    assert front_matter(tmp_path / "messages" / "README.md")["license"] == "other"


@pytest.mark.parametrize(
    ("form", "records", "message"),
    [
        ("alpaca", SESSIONS, "no format 'alpaca'.*Use messages, sharegpt, trl-preference, dialogues"),
        ("trl-preference", SESSIONS, "the format trl-preference needs session trees"),
        ("messages", [SESSIONS[0], SESSIONS[0]], "session id 'a' occurs twice"),
        ("messages", [], "no row for the format messages and nothing left out"),
        ("messages", [Turn(role="user", content="x")], "in.jsonl:1: has no .id.: a dialogue needs id, source"),
    ],
)
def test_refusals(tmp_path: Path, form: str, records: list[Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        exported(tmp_path, form, records)
    assert not list((tmp_path / form).glob("*"))


def test_nothing_of_anybody_is_overwritten(tmp_path: Path) -> None:
    out = exported(tmp_path, "messages")
    before = out.read_bytes()
    exported(tmp_path, "messages")  # its own result may be replaced
    assert out.read_bytes() == before
    with pytest.raises(UserError, match="would overwrite what it reads"):
        export.run([tmp_path / "in.jsonl"], tmp_path / "in.jsonl", "dialogues")
    with pytest.raises(UserError, match="is not the card of this file"):
        export.run([tmp_path / "in.jsonl"], out.with_name("other.jsonl"), "messages")
    out.with_name("README.md").write_text("# My own\n")
    with pytest.raises(UserError, match="Give the export a folder of its own"):
        exported(tmp_path, "messages")
    assert out.with_name("README.md").read_text() == "# My own\n"
