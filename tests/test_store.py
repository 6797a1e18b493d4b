"""The store: records survive a kill, results are kept apart by recipe and inputs, a manifest means done."""

import fcntl
import hashlib
import importlib.metadata
import json
import subprocess
import sys
import threading
import time
import tomllib
from pathlib import Path

import pytest

from parrot_lite import store
from parrot_lite.errors import StageChanged, UserError
from parrot_lite.recipe import Model
from parrot_lite.recipe_file import load
from parrot_lite.store import Journal, dialogue_files, fingerprint, locate, read, repair, stage_folder
from parrot_lite.types import Dialogue, Rejected

ROOT = Path(__file__).parents[1]
DEMO = ROOT / "recipes" / "demo.toml"


def record(name, reason="Too short: é 🦜\nsecond line"):
    return Rejected(id=name, source="test", reason=reason)


def journal(path):
    return Journal(path, Rejected, lambda one: one.id)


def write(path, *names):
    with journal(path) as file:
        for name in names:
            file.append(record(name))
    return path


def ids(path):
    return [one.id for one in read(path, Rejected)]


def recipe_in(folder, *overrides):
    return load(DEMO, [f"run.folder={folder / 'runs'}", *overrides])


class TestJournal:
    def test_what_is_appended_is_read_in_order(self, tmp_path):
        path = tmp_path / "new" / "folder" / "x.jsonl"
        write(path, "b", "a", "c")
        assert list(read(path, Rejected)) == [record("b"), record("a"), record("c")]

    def test_an_appended_record_is_on_disk_before_the_file_is_closed(self, tmp_path):
        with journal(tmp_path / "x.jsonl") as file:
            for count, name in enumerate("abc", 1):
                file.append(record(name))
                assert ids(tmp_path / "x.jsonl") == list("abc"[:count])

    def test_keys_are_those_of_all_attempts(self, tmp_path):
        path = write(tmp_path / "x.jsonl", "a", "b")
        with journal(path) as file:
            assert ("a" in file, "c" in file, len(file)) == (True, False, 2)
            file.append(record("c"))
            assert ("c" in file, len(file)) == (True, 3)
        assert ids(path) == ["a", "b", "c"]

    def test_a_key_occurs_once(self, tmp_path):
        path = write(tmp_path / "x.jsonl", "a")
        with journal(path) as file:
            file.append(record("b"))
            for name in ("a", "b"):
                with pytest.raises(ValueError, match=f"a second record for {name}"):
                    file.append(record(name, "another reason"))
        assert list(read(path, Rejected)) == [record("a"), record("b")]

    def test_a_cut_at_any_byte_loses_only_the_last_record(self, tmp_path, capsys):
        whole = write(tmp_path / "whole.jsonl", "a", "b", "c").read_bytes()
        last = whole[:-1].rindex(b"\n") + 1  # where the last record starts
        path = tmp_path / "x.jsonl"
        for cut in range(last, len(whole) + 1):
            path.write_bytes(whole[:cut])
            with journal(path) as file:
                assert file.keys == ({"a", "b", "c"} if cut == len(whole) else {"a", "b"})
                if "c" not in file:
                    file.append(record("c"))
            assert path.read_bytes() == whole
            notice = capsys.readouterr().err
            if last < cut < len(whole):
                assert notice == (
                    f"{path}: dropped a half-written last line ({cut - last} bytes) that an interrupted run left\n"
                )
            else:
                assert notice == ""

    def test_a_cut_in_the_only_record_leaves_an_empty_file(self, tmp_path):
        whole = write(tmp_path / "x.jsonl", "a").read_bytes()
        for cut in range(len(whole)):
            (tmp_path / "x.jsonl").write_bytes(whole[:cut])
            with journal(tmp_path / "x.jsonl") as file:
                assert len(file) == 0
            assert (tmp_path / "x.jsonl").read_bytes() == b""

    @pytest.mark.parametrize("size", [(1 << 16) - 1, 1 << 16, (1 << 16) + 1, 1 << 17])
    def test_a_torn_record_longer_than_a_block_goes_as_well(self, tmp_path, size):
        path = write(tmp_path / "x.jsonl", "a")
        kept = path.read_bytes()
        path.write_bytes(kept + b"x" * size)
        assert repair(path) == size
        assert path.read_bytes() == kept
        assert repair(path) == 0
        assert repair(tmp_path / "not there") == 0

    def test_a_broken_line_in_the_middle_is_for_a_person(self, tmp_path):
        path = write(tmp_path / "x.jsonl", "a", "b", "c")
        lines = path.read_text().splitlines(keepends=True)
        path.write_text(lines[0] + lines[1][:20] + "\n" + lines[2])
        before = path.read_bytes()
        with pytest.raises(UserError) as caught:
            journal(path)
        assert caught.value.where == f"{path}:2"
        assert caught.value.what.startswith("not JSON: control character")
        assert path.read_bytes() == before  # never mended behind a person's back


class TestRead:
    def test_no_file(self, tmp_path):
        with pytest.raises(UserError, match="no such file") as caught:
            list(read(tmp_path / "x.jsonl", Rejected))
        assert caught.value.where == str(tmp_path / "x.jsonl")

    def test_another_type(self, tmp_path):
        path = tmp_path / "x.jsonl"
        path.write_text(Dialogue(id="d", source="s").model_dump_json() + "\n")
        with pytest.raises(UserError, match="has no 'reason': a rejected needs id, source, reason") as caught:
            list(read(path, Rejected))
        assert caught.value.where == f"{path}:1"

    def test_a_record_that_breaks_its_promise(self, tmp_path):
        path = tmp_path / "x.jsonl"
        good = '{"id":"d","source":"s","turns":[{"role":"user","content":"x"}]}\n'
        path.write_text(good + "\n" + good.replace("user", "assistant"))  # an empty line counts as a line
        with pytest.raises(UserError, match="message 1 is the assistant's, expected the user's") as caught:
            list(read(path, Dialogue))
        assert caught.value.where == f"{path}:3"

    @pytest.mark.parametrize(
        ("line", "what"),
        [
            ('{"id":1,"source":"s"}', "not a dialogue: 'id' should be a valid string"),
            ('{"source":"s"}', "has no 'id': a dialogue needs id, source"),
            ('{"id":"d","source":"s","turns":[{"role":"user"}]}', "has no 'turns.0.content'"),
            ('{"id":"d","source":"s","text":"x"}', "has 'text', which a dialogue does not"),
            ('{"id":"d","source":"s","turns":[{"role":"assistant","content":"x"}]}', "not a dialogue: message 1 is"),
            ("[]", "not a dialogue: should be an object"),
            ("Hello", "not JSON: expected value"),
        ],
    )
    def test_what_is_wrong_is_said_in_words(self, tmp_path, line, what):
        (tmp_path / "x.jsonl").write_text(line + "\n")
        with pytest.raises(UserError) as caught:
            list(read(tmp_path / "x.jsonl", Dialogue))
        assert caught.value.what.startswith(what)
        assert caught.value.fix == "Mend or delete that line"

    def test_records_before_a_broken_line_come_one_by_one(self, tmp_path):
        path = write(tmp_path / "x.jsonl", "a")
        path.write_text(path.read_text() + "{}\n")
        records = read(path, Rejected)
        assert next(records).id == "a"
        with pytest.raises(UserError, match="has no 'id': a rejected needs id, source, reason"):
            next(records)

    def test_line_separators_inside_a_record_are_no_line_ends(self, tmp_path):
        path = tmp_path / "x.jsonl"
        odd = record("a", "one\r\ntwo\rthree\u2028four\u0085five\x0bsix")
        with journal(path) as file:
            file.append(odd)
        assert list(read(path, Rejected)) == [odd]

    def test_a_line_that_is_not_utf_8(self, tmp_path):
        path = write(tmp_path / "x.jsonl", "a", "b")
        path.write_bytes(path.read_bytes() + b'{"id":"\xff"}\n')
        with pytest.raises(UserError, match="not JSON: invalid unicode") as caught:
            list(read(path, Rejected))
        assert caught.value.where == f"{path}:3"

    def test_a_folder_in_a_files_place(self, tmp_path):
        with pytest.raises(UserError) as caught:
            list(read(tmp_path, Rejected))
        assert caught.value.where == str(tmp_path)


class TestLocate:
    def test_a_path_is_itself(self):
        assert locate("some/where.gguf") == Path("some/where.gguf")

    def test_a_file_inside_a_package_is_found_without_importing_it(self, tmp_path, monkeypatch):
        package = tmp_path / "parrot_test_package"
        package.mkdir()
        (package / "__init__.py").write_text("raise RuntimeError('imported')")
        (package / "inner").mkdir()
        (package / "inner" / "x.bin").write_text("x")
        monkeypatch.syspath_prepend(tmp_path)
        assert locate("package:parrot_test_package/inner/x.bin") == package / "inner" / "x.bin"
        with pytest.raises(UserError, match=r"holds no y\.bin"):
            locate("package:parrot_test_package/y.bin")

    def test_our_own_data(self):
        assert locate("package:parrot_lite/data/seeds.txt") == ROOT / "parrot_lite" / "data" / "seeds.txt"

    @pytest.mark.parametrize("package", ["no_such_package_of_ours", "this"])  # "this" is a module, it holds no files
    def test_no_package(self, package):
        with pytest.raises(UserError, match=f"the package {package} is not installed"):
            locate(f"package:{package}/x.gguf")

    def test_existing(self, tmp_path):
        assert store.existing(tmp_path) == tmp_path
        with pytest.raises(UserError, match=r"no such file or folder\. Mend the path$"):
            store.existing(tmp_path / "x")

    def test_a_file_is_wanted(self, tmp_path):
        path = write(tmp_path / "x.jsonl", "a")
        assert store.existing_file(path) == path
        with pytest.raises(UserError, match=r"is a folder\. Name a file in it"):
            store.existing_file(tmp_path)
        with pytest.raises(UserError, match="no such file or folder"):
            store.existing_file(tmp_path / "y")

    def test_a_place_to_write(self, tmp_path):
        assert store.writable_folder(tmp_path / "a" / "b").is_dir()
        assert store.writable_file(tmp_path / "c" / "x.jsonl").parent.is_dir()
        assert list((tmp_path / "c").iterdir()) == []
        file = write(tmp_path / "x.jsonl", "a")
        for refused, path, line in (
            (store.writable_folder, file, "is a file. Name a folder"),
            (store.writable_folder, file / "a", "cannot be made: Not a directory"),
            (store.writable_file, file / "a", "is a file"),
            (store.writable_file, tmp_path, "is a folder. Name a file in it"),
            (store.writable_file, Path("/proc/x/y.jsonl"), "/proc/x: cannot be made"),
        ):
            with pytest.raises(UserError, match=line):
                refused(path)

    def test_a_base_model_on_the_hub_has_no_files_here(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        assert store.model_inputs(Model(base="owner/name")) == {}
        (tmp_path / "owner" / "name").mkdir(parents=True)
        assert store.model_inputs(Model(base="owner/name")) == {"base": Path("owner/name")}


class TestFingerprint:
    def test_of_a_file_by_hand(self, tmp_path):
        (tmp_path / "x").write_bytes(b"abc")
        inner = bytes.fromhex("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")  # FIPS 180-2
        assert fingerprint(tmp_path / "x") == hashlib.sha256(inner).hexdigest()[:32]

    def test_of_a_file_is_of_its_bytes_wherever_it_lies(self, tmp_path):
        (tmp_path / "x").write_bytes(b"abc")
        (tmp_path / "y").write_bytes(b"abc")
        (tmp_path / "z").write_bytes(b"abd")
        assert fingerprint(tmp_path / "x") == fingerprint(tmp_path / "y") != fingerprint(tmp_path / "z")

    def test_of_a_folder_is_of_names_and_bytes(self, tmp_path):
        def folder(name, **files):
            (tmp_path / name / "sub").mkdir(parents=True)
            for file, text in files.items():
                (tmp_path / name / file.replace("__", "/")).write_text(text)
            return fingerprint(tmp_path / name)

        first = folder("first", a="1", b="2", sub__c="3")
        assert folder("same", sub__c="3", b="2", a="1") == first
        assert folder("other name", a="1", d="2", sub__c="3") != first
        assert folder("names swapped", a="2", b="1", sub__c="3") != first
        assert folder("other bytes", a="1", b="2", sub__c="4") != first
        assert folder("one more", a="1", b="2", sub__c="3", sub__d="") != first
        assert folder("one less", a="1", b="2") != first
        assert folder("moved up", a="1", b="2", c="3") != first

    def test_of_a_large_file_is_of_its_size_and_samples(self, tmp_path, monkeypatch):
        mib = 1 << 20
        path = tmp_path / "large"

        def marked(*places, size=32 * mib):
            with path.open("wb") as file:  # a file of holes: it takes no room
                file.truncate(size)
                for place in places:
                    file.seek(place)
                    file.write(b"x")
            return fingerprint(path)

        gap = mib + mib // 2  # samples start every 31/15 MiB, so nobody looks between 1 and 2.06 MiB
        assert marked() != marked(gap)
        monkeypatch.setattr(store, "SAMPLED_BYTES", mib)
        plain = marked()
        assert marked() == plain
        assert marked(gap) == plain
        for seen in (0, mib - 1, 31 * mib * 7 // 15 + 5, 32 * mib - 1):
            assert marked(seen) != plain
        assert marked(size=32 * mib + 1) != plain


class TestStageFolder:
    @pytest.fixture
    def source(self, tmp_path):
        (tmp_path / "source").write_text("one")
        return {"source": tmp_path / "source"}

    def finish(self, recipe, inputs, stage="logs", rerun=False):
        with stage_folder(recipe, stage, inputs, rerun) as folder:
            if folder is None:
                return False
            folder.counts["sessions"] += 1
            (folder.path / "result").write_text("x")
            return True

    def test_a_finished_stage_is_left_alone_and_says_so(self, tmp_path, source, capsys):
        recipe = recipe_in(tmp_path)
        assert not store.finished(recipe, "logs")
        assert self.finish(recipe, source)
        assert store.finished(recipe, "logs")
        capsys.readouterr()
        before = {path.name: path.read_bytes() for path in recipe.folder("logs").iterdir()}
        assert not self.finish(recipe, source)
        said = capsys.readouterr().err
        assert said.startswith("logs: finished 20")
        assert "nothing to do" in said
        assert {path.name: path.read_bytes() for path in recipe.folder("logs").iterdir()} == before

    def test_it_keeps_the_resolved_recipe_and_its_inputs(self, tmp_path, source):
        recipe = recipe_in(tmp_path)
        self.finish(recipe, source)
        kept = tomllib.loads((recipe.folder("logs") / "recipe.toml").read_text())
        assert kept.pop("inputs") == {"source": fingerprint(source["source"])}
        assert kept == recipe.resolved("logs")

    def test_the_recipe_is_there_from_the_start_and_the_manifest_only_at_the_end(self, tmp_path, source):
        recipe = recipe_in(tmp_path)
        with stage_folder(recipe, "logs", source) as folder:
            assert (folder.path / "recipe.toml").exists()
            assert not store.finished(recipe, "logs")
        assert store.finished(recipe, "logs")

    @pytest.mark.parametrize(("finished", "state"), [(True, "finished"), (False, "begun")])
    def test_another_recipe_stops_and_shows_the_difference(self, tmp_path, source, finished, state):
        recipe = recipe_in(tmp_path)
        self.finish(recipe, source)
        manifest = recipe.folder("logs") / "manifest.json"
        if not finished:
            manifest.unlink()
        before = {path.name: path.read_bytes() for path in recipe.folder("logs").iterdir()}
        with pytest.raises(StageChanged, match=f"logs was {state} with another recipe") as caught:
            self.finish(recipe_in(tmp_path, "logs.heldout=17"), source)
        difference = caught.value.difference.splitlines()
        assert "-heldout = 16" in difference
        assert "+heldout = 17" in difference
        assert sum(line.startswith(("+", "-")) for line in difference) == 4  # with the two lines of the head
        assert "with --rerun to discard it (make: RERUN=logs)" in str(caught.value)
        assert str(recipe.folder("logs")) in str(caught.value)
        assert {path.name: path.read_bytes() for path in recipe.folder("logs").iterdir()} == before

    def test_what_failed_before_its_first_result_takes_another_recipe_without_asking(self, tmp_path, source):
        def fail(recipe, *names):
            with stage_folder(recipe, "logs", source) as folder:
                write(folder.path / "x.jsonl", *names)
                raise RuntimeError(f"failed behind {len(names)}")

        recipe, changed = recipe_in(tmp_path), recipe_in(tmp_path, "logs.heldout=17")
        with pytest.raises(RuntimeError, match="behind 0"):
            fail(recipe)
        with pytest.raises(RuntimeError, match="behind 1"):
            fail(changed, "a")
        kept = tomllib.loads((recipe.folder("logs") / "recipe.toml").read_text())
        assert kept["logs"]["heldout"] == 17
        with pytest.raises(StageChanged, match="logs was begun with another recipe"):
            self.finish(recipe, source)
        assert self.finish(changed, source)

    def test_an_override_of_another_stage_does_not_matter(self, tmp_path, source):
        self.finish(recipe_in(tmp_path), source)
        assert not self.finish(recipe_in(tmp_path, "capo.beta=0.2"), source)

    def test_other_input_bytes_stop_as_well(self, tmp_path, source):
        recipe = recipe_in(tmp_path)
        self.finish(recipe, source)
        old = fingerprint(source["source"])
        source["source"].write_text("two")
        with pytest.raises(StageChanged) as caught:
            self.finish(recipe, source)
        assert f'-source = "{old}"' in caught.value.difference
        assert f'+source = "{fingerprint(source["source"])}"' in caught.value.difference
        source["source"].write_text("one")
        assert not self.finish(recipe, source)

    def test_the_order_of_inputs_does_not_matter(self, tmp_path, source):
        recipe = recipe_in(tmp_path)
        other = {"another": source["source"]}
        self.finish(recipe, {**source, **other})
        assert not self.finish(recipe, {**other, **source})

    def test_rerun_discards_everything(self, tmp_path, source):
        recipe = recipe_in(tmp_path)
        self.finish(recipe, source)
        (recipe.folder("logs") / "checkpoint").mkdir()
        (recipe.folder("logs") / "checkpoint" / "x").write_text("x")
        changed = recipe_in(tmp_path, "logs.heldout=17")
        with stage_folder(changed, "logs", source, rerun=True) as folder:
            there = {path.name for path in folder.path.iterdir()}
            assert there == {".lock", "attempts", "recipe.toml"}
        assert json.loads((recipe.folder("logs") / "manifest.json").read_text())["attempts"] == 1
        assert not self.finish(changed, source)

    def test_an_exception_leaves_no_manifest_and_the_same_recipe_goes_on(self, tmp_path, source):
        recipe = recipe_in(tmp_path)

        def attempt(break_after=None):
            with (
                stage_folder(recipe, "logs", source) as folder,
                folder.journal("x.jsonl", Rejected, lambda one: one.id) as file,
            ):
                there = len(file)
                for number in range(there, 3):
                    if number == break_after:
                        raise RuntimeError("killed")
                    file.append(record(str(number)))
                return there

        with pytest.raises(RuntimeError, match="killed"):
            attempt(break_after=2)
        assert not store.finished(recipe, "logs")
        with pytest.raises(UserError, match="stage logs has no finished result"):
            store.require(recipe, "logs")
        assert attempt() == 2
        assert ids(recipe.folder("logs") / "x.jsonl") == ["0", "1", "2"]
        assert json.loads((recipe.folder("logs") / "manifest.json").read_text())["attempts"] == 2
        assert store.require(recipe, "logs") == recipe.folder("logs")

    def test_the_manifest_says_what_was_done(self, tmp_path, source):
        recipe = recipe_in(tmp_path, "run.seed=3")
        with stage_folder(recipe, "logs", source) as folder:
            folder.counts.update({"b": 2, "a": 1})
            folder.counts["b"] += 1
            folder.facts["calls"] = {"writer": 7}
            time.sleep(0.2)
        manifest = json.loads((recipe.folder("logs") / "manifest.json").read_text())
        assert (manifest["stage"], manifest["recipe"], manifest["seed"]) == ("logs", "demo", 3)
        assert manifest["counts"] == {"a": 1, "b": 3}
        assert manifest["calls"] == {"writer": 7}
        assert 0.2 <= manifest["seconds"] < 60
        assert manifest["attempts"] == 1
        assert 10 < manifest["peak_memory_mb"] < 1_000_000  # of any Python, and of no machine
        kept = (recipe.folder("logs") / "recipe.toml").read_bytes()
        assert manifest["resolved_sha256"] == hashlib.sha256(kept).hexdigest()
        assert manifest["python"] == ".".join(map(str, sys.version_info[:3]))
        installed = {each.name.replace("_", "-"): each.version for each in importlib.metadata.distributions()}
        there = {name: installed[name] for name in store.PACKAGES if name in installed}
        assert manifest["packages"] == there
        assert "openai" in there
        assert abs(time.mktime(time.strptime(manifest["finished"][:19], "%Y-%m-%dT%H:%M:%S")) - time.time()) < 60

    def test_another_process_in_the_folder_is_told_from_a_free_one(self, tmp_path, source):
        recipe = recipe_in(tmp_path)
        hold = (
            "import sys\n"
            "from parrot_lite.recipe_file import load\n"
            "from parrot_lite.store import stage_folder\n"
            f"recipe = load({str(DEMO)!r}, ['run.folder={tmp_path / 'runs'}'])\n"
            f"with stage_folder(recipe, 'logs', {{'source': __import__('pathlib').Path({str(source['source'])!r})}}):\n"
            "    print('held', flush=True)\n"
            "    sys.stdin.read()\n"
            "    raise SystemExit('stopped')\n"
        )
        with subprocess.Popen(
            [sys.executable, "-c", hold],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as other:
            try:
                assert other.stdout.readline() == b"held\n"
                (recipe.folder("logs") / "its result").write_text("x")
                for rerun in (False, True):
                    with pytest.raises(UserError, match="another process is running logs"):
                        self.finish(recipe, source, rerun=rerun)
                assert (recipe.folder("logs") / "its result").exists()
                assert self.finish(recipe, source, "collect")  # another stage is free
            finally:
                other.communicate()
        assert not store.finished(recipe, "logs")
        assert self.finish(recipe, source)  # the lock went with its process

    def test_a_process_that_only_looks_is_waited_for(self, tmp_path, source):
        recipe = recipe_in(tmp_path)
        assert self.finish(recipe, source)
        with (recipe.folder("logs") / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            threading.Timer(0.15, fcntl.flock, (lock, fcntl.LOCK_UN)).start()
            assert not self.finish(recipe, source)  # finished: nothing to do

    def test_a_killed_process_holds_no_lock(self, tmp_path, source):
        recipe = recipe_in(tmp_path)
        die = (
            "import os, pathlib, signal\n"
            "from parrot_lite.recipe_file import load\n"
            "from parrot_lite.store import stage_folder\n"
            f"recipe = load({str(DEMO)!r}, ['run.folder={tmp_path / 'runs'}'])\n"
            f"with stage_folder(recipe, 'logs', {{'source': pathlib.Path({str(source['source'])!r})}}):\n"
            "    os.kill(os.getpid(), signal.SIGKILL)\n"
        )
        assert subprocess.run([sys.executable, "-c", die], cwd=ROOT).returncode == -9
        assert not store.finished(recipe, "logs")
        assert self.finish(recipe, source)
        assert json.loads((recipe.folder("logs") / "manifest.json").read_text())["attempts"] == 2


class TestDialogueFiles:
    def test_stages_and_files_by_name(self, tmp_path):
        recipe = recipe_in(tmp_path)
        (tmp_path / "x.jsonl").write_text("")
        for stage in ("logs", "collect"):
            with pytest.raises(UserError, match=f"Run: parrot {stage} first"):
                dialogue_files(recipe, [stage])
            with stage_folder(recipe, stage, {}):
                pass
        names = ["collect", str(tmp_path / "x.jsonl"), "logs"]
        files = dialogue_files(recipe, names)
        assert list(files) == names
        assert files["collect"] == recipe.folder("collect") / "dialogues.jsonl"
        assert files["logs"] == recipe.folder("logs") / "train.jsonl"
        assert files[names[1]] == tmp_path / "x.jsonl"

    def test_a_missing_file(self, tmp_path):
        with pytest.raises(UserError, match="no such file of dialogues"):
            dialogue_files(recipe_in(tmp_path), [str(tmp_path / "x.jsonl")])


def test_a_small_file_is_replaced_whole(tmp_path, monkeypatch):
    path = tmp_path / "manifest.json"
    store.write_atomically(path, "old")

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(store.os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            store.write_atomically(path, "new and longer")
    assert path.read_text() == "old"
    store.write_atomically(path, "new")
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]
