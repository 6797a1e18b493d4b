from __future__ import annotations

import json
import shutil
from array import array
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import Trainer, set_seed

from parrot_lite.errors import UserError
from parrot_lite.lm.model import load_renderer, load_trainable
from parrot_lite.lm.tokens import IGNORE, Example
from parrot_lite.lm.tree import Answer, Limb
from parrot_lite.recipe import Recipe
from parrot_lite.store import RunFolder
from parrot_lite.train import capo_trainer, pair_trainer, sft, speaker_trainer, trainer
from parrot_lite.train.sft import SPEAKERS, SftStage
from parrot_lite.train.trainer import WHOLE, last_checkpoint
from tests.tiny import first_turns, killed_at, log, manifest, recipe, recipe_file, tiny_model, write


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with tiny_model(tmp_path_factory.mktemp("base") / "tiny") as folder:
        yield folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("data") / "data.jsonl", first_turns(16))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = load_file(folder / "adapter" / "adapter_model.safetensors")
    return found


def labelled(made: Recipe, data: Path, stage: SftStage) -> tuple[int, int]:
    """Tokens and labels of what the stage trains on, counted from the masks."""
    renderer = load_renderer(made.model)
    tokens = labels = 0
    for line in data.read_text(encoding="utf-8").splitlines():
        dialogue = type(first_turns(1)[0]).model_validate_json(line)
        mask = renderer.render(dialogue).mask(SPEAKERS[stage], first=False)
        tokens += max(i for i, on in enumerate(mask) if on) + 1
        labels += sum(mask)
    return tokens, labels


@pytest.mark.parametrize("stage", ["train-ask", "train-sft"])
def test_trains_either_speaker(tmp_path: Path, base: Path, data: Path, stage: SftStage) -> None:
    section = "ask" if stage == "train-ask" else "sft"
    made = recipe(tmp_path, base, f"{section}.epochs=3", f"{section}.sessions=4", data=data)
    sft.run(made, stage)
    folder = made.folder(stage)
    found = manifest(folder)
    few = write(tmp_path / "few.jsonl", first_turns(4))
    assert (found["tokens"], found["supervised_tokens"]) == labelled(made, few, stage)
    assert found["counts"] == {"sessions read": 4, "turns left off behind max_tokens": 0}
    assert found["steps"] == 6  # 4 sessions, 2 a step, 3 epochs
    steps = log(folder)
    assert [line["step"] for line in steps] == [1, 2, 3, 4, 5, 6]
    assert found["first_loss"] == round(steps[0]["loss"], 4)
    assert found["last_loss"] == round(steps[-1]["loss"], 4)
    assert found["last_loss"] < found["first_loss"]
    trained = [tensor for name, tensor in weights(folder).items() if "lora_B" in name]
    assert trained
    assert all(tensor.abs().max() > 0 for tensor in trained)  # they start at zero
    assert sorted(path.name for path in folder.iterdir() if not path.name.startswith(".")) == [
        "adapter",
        "attempts",
        "log.jsonl",
        "manifest.json",
        "recipe.toml",
    ]


def test_the_first_loss_is_the_models_mean_over_the_speakers_tokens(tmp_path: Path, base: Path, data: Path) -> None:
    """Against cross-entropy taken apart by hand: an untrained adapter changes nothing."""
    from torch.nn import functional as F
    from transformers import AutoModelForCausalLM

    losses = {}
    for stage, section in (("train-ask", "ask"), ("train-sft", "sft")):
        made = recipe(tmp_path, base, f"{section}.sessions=3", f"{section}.accumulation=3", "run.seed=3", data=data)
        sft.run(made, stage)  # type: ignore[arg-type]
        losses[stage] = log(made.folder(stage))[0]["loss"]  # type: ignore[arg-type]
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
    renderer = load_renderer(made.model)
    for stage, loss in losses.items():
        total, count = 0.0, 0
        for dialogue in first_turns(3):
            rendered = renderer.render(dialogue)
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([rendered.ids])).logits[0]
            for place, on in enumerate(rendered.mask(SPEAKERS[stage], first=False)):  # type: ignore[index]
                if on:
                    total += F.cross_entropy(logits[place - 1], torch.tensor(rendered.ids[place])).item()
                    count += 1
        assert loss == pytest.approx(total / count, abs=1e-4)
    assert abs(losses["train-ask"] - losses["train-sft"]) > 1e-3


def test_killed_and_resumed_gives_the_losses_of_an_undisturbed_run(tmp_path: Path, base: Path, data: Path) -> None:
    # 8 sessions, 2 a step, 3 epochs = 12 steps; killed at 7, behind the checkpoint of step 5, inside the second epoch.
    overrides = ["sft.sessions=8", "sft.epochs=3", "sft.save_every=5", "sft.lora.dropout=0.1"]
    whole = recipe(tmp_path, base, *overrides, f"run.folder={tmp_path / 'whole'}", data=data)
    sft.run(whole, "train-sft")
    killed = recipe(tmp_path, base, *overrides, data=data)
    file = recipe_file(tmp_path, base, data)
    assert killed_at(7, ["train-sft", str(file), *overrides]) == -9
    folder = killed.folder("train-sft")
    assert not (folder / "manifest.json").exists()
    assert last_checkpoint(folder) == folder / "checkpoint-5"
    half = folder / "checkpoint-10"  # as a process killed while saving leaves it
    half.mkdir()
    (half / "adapter_model.safetensors").write_bytes(b"half")
    sft.run(killed, "train-sft")
    expected, got = log(whole.folder("train-sft")), log(folder)
    assert [line["step"] for line in got] == list(range(1, 13))
    for key in ("loss", "grad_norm", "learning_rate"):
        assert [line[key] for line in got] == pytest.approx([line[key] for line in expected], abs=1e-6)
    for name, tensor in weights(whole.folder("train-sft")).items():
        torch.testing.assert_close(weights(folder)[name], tensor, atol=1e-6, rtol=0)
    assert manifest(folder)["attempts"] == 2
    assert not list(folder.glob("checkpoint-*"))


def test_the_newest_whole_checkpoint(tmp_path: Path) -> None:
    assert last_checkpoint(tmp_path) is None
    for step in (9, 10, 100, *range(200, 200 + len(WHOLE))):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        for name in WHOLE:
            (folder / name).write_bytes(b"")
        state = json.dumps({"global_step": step})
        (folder / "trainer_state.json").write_text(state if step != 100 else state[:-4])
    for step, name in enumerate(WHOLE, 200):  # half deleted, whichever file went first
        (tmp_path / f"checkpoint-{step}" / name).unlink()
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-10"  # 10 > 9 as numbers, not as names


@pytest.mark.parametrize("saved", [False, True])
def test_killed_behind_the_last_step_trains_no_further(
    tmp_path: Path, base: Path, data: Path, monkeypatch: pytest.MonkeyPatch, saved: bool
) -> None:
    """Killed before or behind the adapter is written: only the manifest is missing."""
    made = recipe(tmp_path, base, "sft.sessions=6", "sft.save_every=2", data=data)
    folder = made.folder("train-sft")
    with monkeypatch.context() as patched:
        killed_in_conclude(patched)
        with pytest.raises(Killed):
            sft.run(made, "train-sft")
    assert last_checkpoint(folder) == folder / "checkpoint-3"
    adapter = folder / "adapter" / "adapter_model.safetensors"
    expected, logged = adapter.read_bytes(), (folder / "log.jsonl").read_bytes()
    if not saved:
        shutil.rmtree(folder / "adapter")
    monkeypatch.setattr(Trainer, "train", None)  # no step
    sft.run(made, "train-sft")
    assert adapter.read_bytes() == expected
    assert (folder / "log.jsonl").read_bytes() == logged
    assert (manifest(folder)["steps"], manifest(folder)["attempts"]) == (3, 2)
    assert not list(folder.glob("checkpoint-*"))


class Killed(BaseException):
    pass


def killed_in_conclude(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next training stage dies where its steps are done and its manifest is not there yet."""
    conclude = trainer.conclude

    def die(folder: RunFolder, steps: int) -> None:
        conclude(folder, steps)
        raise Killed

    for module in (speaker_trainer, capo_trainer, pair_trainer):
        monkeypatch.setattr(module, "conclude", die)


def test_batches_change_nothing(tmp_path: Path, base: Path, data: Path) -> None:
    logs = {}
    for batch, accumulation in ((2, 1), (1, 2), (1, 1)):
        made = recipe(
            tmp_path,
            base,
            f"run.folder={tmp_path / f'{batch}x{accumulation}'}",
            f"sft.batch={batch}",
            f"sft.accumulation={accumulation}",
            "sft.sessions=6",
            "sft.max_steps=3",
            data=data,
        )
        sft.run(made, "train-sft")
        logs[batch, accumulation] = log(made.folder("train-sft"))
    for key in ("loss", "grad_norm"):
        two = [line[key] for line in logs[2, 1]]
        assert two == pytest.approx([line[key] for line in logs[1, 2]], abs=1e-5, rel=1e-4 if key == "grad_norm" else 0)
        assert two != pytest.approx([line[key] for line in logs[1, 1]], abs=1e-3)  # the test can tell batches apart


def test_an_example_as_a_tree_by_hand() -> None:
    labels = [IGNORE, IGNORE, 7, 8, IGNORE, IGNORE, 11]
    example = Example(array("i", range(5, 12)), array("i", labels), 0)
    assert example.tree.limbs == (Limb(0, 0, 0, 7),)
    assert example.tree.answers == (Answer(2, 4, 1), Answer(6, 7, 5))
    batch = speaker_trainer.collated([example, example])
    assert len(batch["tree"]) == 14  # no padding
    assert batch["items"] == 6


def test_losses_are_those_of_trl(tmp_path: Path, base: Path, data: Path) -> None:
    """Against ``SFTTrainer`` on the same labels, which pads: three steps of two sessions."""
    import trl
    from datasets import Dataset

    made = recipe(
        tmp_path, base, "sft.sessions=6", "sft.batch=2", "sft.accumulation=1", "sft.learning_rate=1e-3", data=data
    )
    sft.run(made, "train-sft")
    ours = log(made.folder("train-sft"))
    renderer = load_renderer(made.model)
    examples = [renderer.example(one, "assistant", 2048) for one in first_turns(6)]
    rows = [{"input_ids": list(e.ids), "labels": list(e.labels)} for e in examples if e]
    set_seed(made.run.seed)
    model = load_trainable(made.model, None, made.sft.lora, checkpointing=False)
    arguments = trainer.arguments_of(made.sft, made.model, made.run.seed, tmp_path / "trl", len(rows))
    theirs = trl.SFTTrainer(
        model=model,
        args=trl.SFTConfig(
            **{**arguments, "save_strategy": "no"}, max_length=None, dataset_kwargs={"skip_prepare_dataset": True}
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=renderer.tokenizer,
    )
    theirs.train()
    found = [line for line in theirs.state.log_history if "loss" in line]
    assert len(found) == len(ours) == 3
    for key in ("loss", "grad_norm"):
        assert [line[key] for line in ours] == pytest.approx([line[key] for line in found], abs=1e-4)


def test_first_turns_alone_and_a_seed_of_its_own(tmp_path: Path, base: Path, data: Path) -> None:
    short = write(tmp_path / "short.jsonl", first_turns(16, 1))

    def trained(name: str, data: Path, *overrides: str) -> list[float]:
        made = recipe(tmp_path, base, f"run.folder={tmp_path / name}", "sft.sessions=4", *overrides, data=data)
        sft.run(made, "train-sft")
        return [line["loss"] for line in log(made.folder("train-sft"))]

    assert trained("cut", data, "sft.turns=1") == trained("short", short)
    assert trained("uncut", data, "sft.turns=2") == trained("whole", data) != trained("cut", data, "sft.turns=1")
    assert trained("seed", data, "sft.seed=3") == trained("run", data, "run.seed=3") != trained("whole", data)


def test_what_does_not_fit_is_counted(tmp_path: Path, base: Path, data: Path) -> None:
    renderer = load_renderer(recipe(tmp_path, base, data=data).model)
    lengths = []  # tokens up to the end of each session's first and second answer
    for dialogue in first_turns(6):
        messages = renderer.render(dialogue).messages
        lengths.append(tuple(max(i for i, m in enumerate(messages) if m == which) + 1 for which in (1, 3)))
    limit = sorted(first for first, _ in lengths)[3]  # four first answers fit, two sessions have none
    made = recipe(tmp_path, base, f"sft.max_tokens={limit}", "sft.sessions=6", data=data)
    sft.run(made, "train-sft")
    fitting = [ends for ends in lengths if ends[0] <= limit]
    assert manifest(made.folder("train-sft"))["counts"] == {
        "sessions read": 6,
        "sessions left out: no turn fits max_tokens": 6 - len(fitting),
        "turns left off behind max_tokens": sum(second > limit for _, second in fitting),
    }
    assert len(fitting) == 4
    nothing = recipe(tmp_path, base, "sft.max_tokens=1", f"run.folder={tmp_path / 'none'}", data=data)
    with pytest.raises(UserError, match="no session is left to train on"):
        sft.run(nothing, "train-sft")
