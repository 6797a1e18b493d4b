"""Files of typed records: appended as work goes on, repaired after a kill, complete once a manifest lies beside."""

from __future__ import annotations

import difflib
import fcntl
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import shutil
import sys
import time
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Generic, TypeVar

from pydantic import ValidationError

from parrot_lite.errors import StageChanged, UserError
from parrot_lite.progress import say
from parrot_lite.recipe import SECTION, Model, Recipe, Stage, dump
from parrot_lite.types import Record

R = TypeVar("R", bound=Record)

PACKAGES = (
    "parrot-lite",
    "torch",
    "transformers",
    "peft",
    "bitsandbytes",
    "trl",
    "accelerate",
    "llama-cpp-python",
    "openai",
)
SAMPLED_BYTES = 1 << 30  # files above this are fingerprinted by size and samples: hashing 26 GB takes minutes


def read(path: Path, kind: type[R]) -> Iterator[R]:
    """The records of a finished file, one by one. Raises UserError with the line that does not hold."""
    try:
        lines = path.open("rb")  # bytes: a line that is not UTF-8 is then a line that does not hold, like any other
    except FileNotFoundError:
        raise UserError("no such file", str(path), "Mend the path, or run the stage that writes it") from None
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}", str(path), "Name a JSONL file") from None
    with lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                yield kind.model_validate_json(line)
            except ValidationError as error:
                raise UserError(_mismatch(error, kind), f"{path}:{number}", "Mend or delete that line") from None


def _mismatch(error: ValidationError, kind: type[Record]) -> str:
    """What is wrong with a line, in words for whoever wrote it."""
    detail = error.errors(include_url=False)[0]
    name = re.sub(r"(?<!^)(?=[A-Z])", " ", kind.__name__).lower()
    at = ".".join(map(str, detail["loc"]))
    message = detail["msg"].removeprefix("Value error, ").removeprefix("Input ")
    match detail["type"]:
        case "missing":
            needed = [name for name, field in kind.model_fields.items() if field.is_required()]
            return f"has no '{at}': a {name} needs {', '.join(needed)}"
        case "extra_forbidden":
            return f"has '{at}', which a {name} does not"
        case "json_invalid":
            reason = message.removeprefix("Invalid JSON: ")
            return f"not JSON: {re.sub(r' at line .*', '', reason)}"  # its line is one of this line
    where = f"'{at}' " if at else ""
    return f"not a {name}: {where}{message}"


def count(path: Path) -> int:
    """How many records a file holds, by its lines."""
    with path.open("rb") as lines:
        return sum(not line.isspace() for line in lines)


class Journal(Generic[R]):
    """An append-only JSONL file of one record type, each record under a key that occurs once.

    Opening repairs a last line that a killed process left half-written, with a notice. Raises UserError where an
    earlier line is broken, ValueError where a key is appended twice.
    """

    def __init__(self, path: Path, kind: type[R], key: Callable[[R], object]) -> None:
        self.path, self._key = path, key
        path.parent.mkdir(parents=True, exist_ok=True)
        dropped = repair(path)
        if dropped:
            say(f"{path}: dropped a half-written last line ({dropped} bytes) that an interrupted run left")
        self.keys = {key(record) for record in read(path, kind)} if path.exists() else set()
        self._file = path.open("a", encoding="utf-8")

    def append(self, record: R) -> None:
        """Write one record and flush it: a kill behind this line loses nothing."""
        key = self._key(record)
        if key in self.keys:
            raise ValueError(f"{self.path}: a second record for {key}")
        self._file.write(record.model_dump_json(exclude_none=True) + "\n")
        self._file.flush()
        self.keys.add(key)

    def __contains__(self, key: object) -> bool:
        return key in self.keys

    def __len__(self) -> int:
        return len(self.keys)

    def __enter__(self) -> Journal[R]:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def repair(path: Path) -> int:
    """Cut a last line without a line end, and say how many bytes went. Every record is written with its line end."""
    if not path.exists():
        return 0
    with path.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        end, block = size, 1 << 16
        while end:
            start = max(0, end - block)
            file.seek(start)
            newline = file.read(end - start).rfind(b"\n")
            if newline >= 0:
                end = start + newline + 1
                break
            end = start
        if end < size:
            file.truncate(end)
        return size - end


def locate(path: str) -> Path:
    """A path, or ``package:NAME/FILE``: a file inside an installed package, found without importing it.

    Raises UserError where the package or the file is missing.
    """
    if not path.startswith("package:"):
        return Path(path)
    package, _, file = path.removeprefix("package:").partition("/")
    try:
        spec = importlib.util.find_spec(package)
    except ModuleNotFoundError:  # of a.b where there is no a
        spec = None
    if spec is None or not spec.submodule_search_locations:
        raise UserError(f"the package {package} is not installed", path, "Run make setup, or name a local file")
    found = Path(next(iter(spec.submodule_search_locations))) / file
    if not found.exists():
        raise UserError(f"the package {package} holds no {file}", path, "Name a file that it holds")
    return found


def existing(path: Path, key: str = "the path") -> Path:
    """The path itself, which a recipe names as ``key``. Raises UserError where nothing lies there."""
    if not path.exists():
        raise UserError("no such file or folder", str(path), f"Mend {key}")
    return path


def existing_file(path: Path, key: str = "the path") -> Path:
    """The path itself, which a recipe names as ``key``. Raises UserError where nothing or a folder lies there."""
    if existing(path, key).is_dir():
        raise UserError("is a folder", str(path), "Name a file in it")
    return path


def writable_folder(path: Path) -> Path:
    """The path itself, the folder made where it is missing. Raises UserError where nothing can be written there.

    For verbs that write where the user says: called before the work, so that none is done in vain.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise UserError("is a file", str(path), "Name a folder") from None
    except OSError as error:
        raise UserError(f"cannot be made: {error.strerror}", str(path), "Name another folder") from None
    if not os.access(path, os.W_OK):
        raise UserError("is not writable", str(path), "Name another folder")
    return path


def writable_file(path: Path) -> Path:
    """Like ``writable_folder``, for a file and the folder that it lies in."""
    if path.is_dir():
        raise UserError("is a folder", str(path), "Name a file in it")
    writable_folder(path.parent)
    return path


def model_inputs(model: Model) -> dict[str, Path]:
    """The base model's local files; empty for a hub id, which names its bytes by itself with its revision."""
    path = locate(model.base)
    return {"base": path} if path.exists() else {}


def fingerprint(path: Path) -> str:
    """SHA-256 of a file's bytes, or of a folder's names and files. Files over 1 GiB: size and sixteen 1 MiB samples."""
    digest = hashlib.sha256()
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    for file in files:
        if path.is_dir():
            digest.update(str(file.relative_to(path)).encode())
        size = file.stat().st_size
        with file.open("rb") as stream:
            if size <= SAMPLED_BYTES:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
            else:
                digest.update(size.to_bytes(8, "big"))
                for step in range(16):
                    stream.seek((size - (1 << 20)) * step // 15)
                    digest.update(stream.read(1 << 20))
    return digest.hexdigest()[:32]


class RunFolder:
    """One stage's folder while it is worked in: resolved recipe, inputs, counts, and the manifest at the end."""

    def __init__(self, path: Path, stage: Stage) -> None:
        self.path, self.stage = path, stage
        self.counts: Counter[str] = Counter()
        self.facts: dict[str, Any] = {}
        self.leftovers: list[Path] = []  # folders that nobody needs once the manifest is written

    def journal(self, name: str, kind: type[R], key: Callable[[R], object]) -> Journal[R]:
        """Open ``name`` in this folder for appending."""
        return Journal(self.path / name, kind, key)


def write_atomically(path: Path, text: str) -> None:
    """Write a small file so that a kill leaves the old one or the new one, never half of it."""
    beside = path.with_name(path.name + ".part")
    beside.write_text(text, encoding="utf-8")
    os.replace(beside, path)


def finished(recipe: Recipe, stage: Stage) -> bool:
    """Whether a stage has its manifest."""
    return (recipe.folder(stage) / "manifest.json").exists()


def require(recipe: Recipe, stage: Stage) -> Path:
    """The folder of a stage that must be finished. Raises UserError where it is not."""
    if not finished(recipe, stage):
        raise UserError(
            f"stage {stage} has no finished result", str(recipe.folder(stage)), f"Run: parrot {stage} first"
        )
    return recipe.folder(stage)


def require_unchanged(recipe: Recipe, stage: Stage) -> Path:
    """The folder of a stage that this recipe, as it is now, finished. Raises UserError where it is not."""
    folder = require(recipe, stage)
    kept = tomllib.loads((folder / "recipe.toml").read_text(encoding="utf-8"))
    kept.pop("inputs", None)
    if kept != recipe.resolved(stage):
        fix = f"Give the recipe and every key=value that it was made with, or run: parrot {stage} --rerun"
        what, now = f"{stage} was made with another recipe", recipe.resolved(stage)
        raise StageChanged(what, str(folder), fix, _difference(dump(kept), dump(now)))
    return folder


def dialogue_files(recipe: Recipe, names: Sequence[str]) -> dict[str, Path]:
    """The files of dialogues that a ``data`` key names: a finished stage of this recipe, or a JSONL file.

    Raises UserError where the stage is not finished or the file is missing.
    """
    files: dict[str, Path] = {}
    for name in names:
        if name == "logs":
            files[name] = require(recipe, "logs") / "train.jsonl"
        elif name == "collect":
            files[name] = require(recipe, "collect") / "dialogues.jsonl"
        else:
            files[name] = Path(name)
            if not files[name].is_file():
                raise UserError("no such file of dialogues", name, "Name 'logs', 'collect' or a JSONL file in 'data'")
    return files


def _difference(kept: str, now: str) -> str:
    return "\n".join(difflib.unified_diff(kept.splitlines(), now.splitlines(), "kept", "now", n=1, lineterm=""))


@contextmanager
def stage_folder(
    recipe: Recipe, stage: Stage, inputs: Mapping[str, Path], rerun: bool = False
) -> Iterator[RunFolder | None]:
    """Work in a stage's folder; yields None where it is finished already, and says so.

    ``inputs`` are the files and folders whose bytes decide the result, by name. Raises StageChanged where the folder
    has results of another resolved recipe or of other inputs (``rerun`` discards them), UserError where another process
    works in it.
    """
    path = recipe.folder(stage)
    path.mkdir(parents=True, exist_ok=True)
    text = dump(
        {**recipe.resolved(stage), "inputs": {name: fingerprint(file) for name, file in sorted(inputs.items())}}
    )
    kept, manifest = path / "recipe.toml", path / "manifest.json"
    with (path / ".lock").open("w") as lock:
        if not _locked(lock):
            raise UserError(f"another process is running {stage}", str(path), "Wait for it or stop it")
        before = kept.read_text(encoding="utf-8") if kept.exists() else text
        if rerun or (before != text and _bare(path)):
            _clear(path)
        elif before != text:
            state = "finished" if manifest.exists() else "begun"
            raise StageChanged(
                f"{stage} was {state} with another recipe or other inputs",
                str(path),
                f"Run parrot {stage} with --rerun to discard it (make: RERUN={stage})",
                _difference(before, text),
            )
        if manifest.exists():
            done = json.loads(manifest.read_text(encoding="utf-8"))
            say(f"{stage}: finished {done['finished']} in {done['seconds']:.0f} s, nothing to do ({path})")
            yield None
            return
        attempts = path / "attempts"
        with attempts.open("a", encoding="utf-8") as file:
            file.write(time.strftime("%Y-%m-%dT%H:%M:%S%z") + "\n")
        write_atomically(kept, text)
        folder = RunFolder(path, stage)
        start = time.monotonic()
        yield folder
        _write_manifest(folder, recipe, text, time.monotonic() - start, len(attempts.read_text().splitlines()))
        for leftover in folder.leftovers:
            shutil.rmtree(leftover)


def _locked(file: IO[str]) -> bool:
    """Whether the lock could be had. Two tables may look at one finished stage in the same moment: that passes."""
    for _ in range(10):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.05)
        else:
            return True
    return False


def _bare(path: Path) -> bool:
    """Whether a stage has produced nothing yet: nothing but what is written when it begins, and empty files."""
    begun = {".lock", "attempts", "recipe.toml"}
    return not any(file.stat().st_size for file in path.rglob("*") if file.is_file() and file.name not in begun)


def _clear(path: Path) -> None:
    # The manifest first and the recipe last: a kill in between must not leave what looks finished, nor records whose
    # recipe is forgotten.
    order = {"manifest.json": 0, "recipe.toml": 2}
    for child in sorted(path.iterdir(), key=lambda child: order.get(child.name, 1)):
        if child.name == ".lock":
            continue
        if child.is_dir():
            shutil.rmtree(child)
        else:
            child.unlink()


def _write_manifest(folder: RunFolder, recipe: Recipe, resolved: str, seconds: float, attempts: int) -> None:
    import resource  # Unix only, like the lock; here so that reading records works anywhere

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    manifest = {
        "stage": folder.stage,
        "recipe": recipe.name,
        "seed": recipe.run.seed,
        "device": _device(),
        "resolved_sha256": hashlib.sha256(resolved.encode()).hexdigest(),
        "inputs": tomllib.loads(resolved)["inputs"],  # SHA-256, see fingerprint()
        "settings": getattr(recipe, SECTION[folder.stage]).model_dump(mode="json", exclude_none=True),
        "counts": dict(sorted(folder.counts.items())),
        **folder.facts,
        "seconds": round(seconds, 1),  # of the attempt that finished; earlier ones were killed and cannot say
        "attempts": attempts,
        "peak_memory_mb": round(peak / (1 << 10)) if sys.platform != "darwin" else round(peak / (1 << 20)),
        **_card_memory(),
        "packages": _versions(),
        "python": sys.version.split()[0],
        "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }
    write_atomically(folder.path / "manifest.json", json.dumps(manifest, indent=1) + "\n")
    say(f"{folder.stage}: done in {seconds:.0f} s ({folder.path})")


def _device() -> str:
    torch = sys.modules.get("torch")  # a stage that never loaded it ran on the processor
    if torch is not None and torch.cuda.is_available():
        return str(torch.cuda.get_device_name())
    cpu = Path("/proc/cpuinfo")
    lines = cpu.read_text(encoding="utf-8").splitlines() if cpu.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, {os.cpu_count()} cores"


def _card_memory() -> dict[str, int]:
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return {}
    return {"peak_card_memory_mb": round(torch.cuda.max_memory_allocated() / (1 << 20))}


def _versions() -> dict[str, str]:
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
