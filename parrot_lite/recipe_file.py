"""Recipes as files: TOML with ``extends`` and ``key=value`` overrides, and mistakes in them said in one line.

``extends = "other.toml"`` starts from another file, or from several of a list, where the later one overrides the
earlier, e.g. a judge of ``recipes/judges/``; ``key=value`` on the command line overrides all. An unknown key, a wrong
type or an out-of-range value stops the run before anything heavy is imported.
"""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

from pydantic import ValidationError

from parrot_lite.errors import UserError
from parrot_lite.recipe import SPEAKERS, Recipe, Section

Location = tuple[int | str, ...]
Parts = tuple[tuple[str, ...], ...]  # of several keys


def load(
    path: str | Path, overrides: Sequence[str] = (), changes: Mapping[str, Mapping[str, Any]] | None = None
) -> Recipe:
    """Read a recipe with its ``extends`` chain and ``key=value`` overrides; ``changes`` are tables of TOML over both.

    ``changes`` go by the place that an error is to name. Raises UserError with the file, the override or that place,
    the key and a suggestion where the recipe does not hold.
    """
    path = Path(path)
    data, places = _read(path, ()), dict[str, Parts]()
    for override in overrides:
        parts, value = _override(override)
        places[f"override {override}"] = (parts,)
        for part in reversed(parts):
            value = {part: value}
        data = _merge(data, value)
    if "name" in data:
        raise UserError("'name' is taken from the file's name", f"{path}", "Remove the key and rename the file")
    for place, change in (changes or {}).items():
        places[place] = tuple(_set(change))
        data = _merge(data, dict(change))
    return validated(Recipe, {**data, "name": path.stem}, str(path), places)


S = TypeVar("S", bound=Section)


def validated(kind: type[S], data: Mapping[str, Any], file: str, places: Mapping[str, Parts] | None = None) -> S:
    """A section of data as TOML gives it; ``places`` has the keys that were set elsewhere than in ``file``.

    Raises UserError with the file or the place, the key and a suggestion where it does not hold.
    """
    try:
        # JSON mode: strict types, yet a TOML array may fill a tuple and 1 may fill a float.
        return kind.model_validate_json(json.dumps(data))
    except ValidationError as error:
        raise _explain(error, kind, file, places or {}) from None
    except TypeError:
        raise UserError("a date or time stands where none can be", file, "Quote it") from None


def _set(change: Mapping[str, Any], above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The parts of every key that a table sets."""
    for key, value in change.items():
        if isinstance(value, dict) and value:
            yield from _set(value, (*above, key))
        else:
            yield (*above, key)


def toml(path: Path, what: str, where: str) -> dict[str, Any]:
    """A TOML file. Raises UserError where it cannot be read; ``what`` it is, and ``where`` the shipped ones lie."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        near = difflib.get_close_matches(path.stem, [p.stem for p in path.parent.glob("*.toml")], n=1)
        hint = f"Did you mean {path.parent / near[0]}.toml?" if near else f"Shipped {what}s are in {where}"
        raise UserError(f"no such {what}", str(path), hint) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"not valid TOML: {error}", str(path), "Mend that line") from None
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}", str(path)) from None


def _read(path: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    if path.resolve() in seen:
        raise UserError("the chain of 'extends' comes back to this file", str(path), "Break the circle")
    data = toml(path, "recipe", "recipes/")
    parents = data.pop("extends", [])
    parents = [parents] if isinstance(parents, str) else parents
    if not isinstance(parents, list) or not all(isinstance(parent, str) for parent in parents):
        raise UserError("'extends' must be a file name in quotes, or a list of such", str(path))
    below: dict[str, Any] = {}
    for parent in parents:
        below = _merge(below, _read(path.parent / parent, (*seen, path.resolve())))
    return _merge(below, data)


def _merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    # "none" where another file has a table takes it out, as key=none does; null is what TOML cannot say.
    # A speaker of another kind shares no keys with the one it replaces.
    if "kind" in above and above["kind"] != below.get("kind"):
        return above
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        if isinstance(old, dict) and value == "none":
            merged[key] = None
        else:
            merged[key] = _merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def _override(override: str) -> tuple[tuple[str, ...], Any]:
    """The key's parts and the value. As in TOML, a part with other signs than a word's stands in quotes."""
    key, equals, text = override.partition("=")
    parts: list[str] = []
    try:
        within: Any = tomllib.loads(f"{key} = 0") if equals else {}
    except tomllib.TOMLDecodeError:
        within = {}
    while isinstance(within, dict) and within:
        part, within = next(iter(within.items()))
        parts.append(part)
    if not parts or not all(parts):
        plain = re.fullmatch(r"[\w.\s-]*", key)
        fix = "Write e.g. capo.beta=0.2" if plain else "Quote what is no word, twice: 'prices.\"a/b\".input=1'"
        raise UserError(f"'{override}' is not key=value", "override", fix)
    try:
        return tuple(parts), tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        # A bare word is a string, so that nobody has to quote for two parsers; none unsets, which TOML cannot say.
        text = text.lstrip()
        if text.startswith(("[", "{")):
            fix = "Words inside need quotes, and the whole single ones for the shell; or put it into a recipe file"
            raise UserError("not a list or table of TOML", f"override {override}", fix) from None
        return tuple(parts), None if text.strip() == "none" else text


ORDINALS = ("first", "second", "third", "fourth", "fifth")


def _explain(error: ValidationError, root: type[Section], file: str, places: Mapping[str, Parts]) -> UserError:
    """The first mistake, where it was made: ``places`` has the keys that were set elsewhere than in ``file``."""
    errors = error.errors(include_url=False)
    # Not mistakes of their own: a default that had to wait, and a list that is empty without its wrong entries.
    errors = [one for one in errors if one["type"] != "default_factory_not_called"]
    wrong = {one["loc"][:depth] for one in errors for depth in range(len(one["loc"]))}
    errors = [one for one in errors if one["type"] != "too_short" or one["loc"] not in wrong]
    # A misspelt key before the missing one that it was meant to be.
    first = min(errors, key=lambda one: one["type"] != "extra_forbidden")
    location, more = _location(first["loc"]), len({_location(one["loc"]) for one in errors}) - 1
    what, fix = _mistake(dict(first), location, root)
    what += f" (and {more} more)" if more else ""
    found = file
    for place, keys in places.items():
        for parts in keys:
            below, above = location[: len(parts)] == parts, location == parts[: len(location)]
            if below or (above and (first["type"] == "extra_forbidden" or f"{parts[-1]} " in what)):
                found = place
    return UserError(what, found, fix)


def _location(parts: Location) -> Location:
    """Without the parts that pydantic adds for what a value may be one of."""
    name_at = 2 if parts[:2] == ("eval", "models") else None  # a model may be called 'local'
    choices = {"server", "gguf", "local", "scripted", "str", "tuple[str, ...]"}
    return tuple(part for at, part in enumerate(parts) if at == name_at or part not in choices)


def _named(location: Location) -> str:
    at = next((at for at, part in enumerate(location) if isinstance(part, int)), None)
    if at is None:
        return f"'{'.'.join(map(str, location))}'"
    number, rest = int(location[at]), location[at + 1 :]
    item = f"{ORDINALS[number] if number < len(ORDINALS) else f'entry {number + 1}'} of {_named(location[:at])}"
    return f"{_named(rest)} of the {item}" if rest else f"the {item}"


def _mistake(first: dict[str, Any], location: Location, root: type[Section]) -> tuple[str, str]:
    """What is wrong, and what to do about it."""
    key, given, context = _named(location), first["input"], first.get("ctx", {})
    match first["type"]:
        case "extra_forbidden":
            return f"unknown key {key}", _meant(first["loc"], location, root)
        case "missing":
            return f"{key} is missing", f"Add {location[-1]} = ... to it"
        case "value_error":  # what a validator of ours says, with its way out
            what, _, fix = str(context["error"]).partition(". ")
            return f"[{location[0]}] {what}" if len(location) == 1 else f"{key}: {what}", fix
        case "union_tag_invalid":
            near = difflib.get_close_matches(context["tag"], tuple(SPEAKERS), n=1)
            fix = f"Did you mean '{near[0]}'?" if near else f"Write {_either(tuple(SPEAKERS))}"
            return f"{key}: no speaker of kind '{context['tag']}'", fix
        case "too_short" if given == {}:
            return f"{key} is empty", "Name at least one"
        case "union_tag_not_found":
            return f"{key} has no kind", f"Add kind = {_either(tuple(SPEAKERS))}"
    what, fix = first["msg"][0].lower() + first["msg"][1:], "Change its value"
    if first["type"] == "tuple_type":
        what = "a list is wanted"
        fix = f"Write {json.dumps([given], ensure_ascii=False)}" if isinstance(given, str) else fix
    elif first["type"] == "bool_type":
        fix = "Write true or false"
    elif first["type"] == "int_type" and isinstance(given, float) and given.is_integer():
        fix = f"Write {given:.0f}"
    return f"{key} = {json.dumps(given, ensure_ascii=False)[:80]}: {what}", fix


def _meant(parts: Location, location: Location, root: type[Section]) -> str:
    """Which key an unknown one was meant to be: of this name in another section, else of a name like it here."""
    name, here = str(location[-1]), _known_keys(parts[:-1], root)
    above = [str(part) for part in location[:-1]] if all(isinstance(part, str) for part in location) else []
    pool = {key: [".".join([*above, key])] for key in here}
    if len(location) <= 2:  # deeper ones belong to a speaker
        elsewhere: dict[str, list[str]] = {}
        for key in _leaves(root):
            elsewhere.setdefault(key.rpartition(".")[2], []).append(key)
        if name in elsewhere:
            mine = [key for key in elsewhere[name] if key.startswith(f"{location[0]}.")]
            return f"Write {_either(mine or elsewhere[name])}"
        if len(location) == 1:
            pool = {**elsewhere, **pool}
    near = difflib.get_close_matches(name, pool, n=1, cutoff=0.5)
    return f"Did you mean {_either(pool[near[0]])}?" if near else f"Known here: {', '.join(sorted(here))}"


def _either(names: Sequence[str]) -> str:
    quoted = [f"'{name}'" for name in names]
    return " or ".join([", ".join(quoted[:-1]), quoted[-1]] if quoted[1:] else quoted)


def _known_keys(location: Location, root: type[Section]) -> list[str]:
    section: type[Section] | None = root
    for part in location:
        field = section.model_fields.get(str(part)) if section else None
        if isinstance(part, str) and part in SPEAKERS:
            section = SPEAKERS[part]
        elif field is not None:
            section = _section_in(field.annotation)
    if section is None:
        return []
    return [name for name in section.model_fields if section is not Recipe or name != "name"]


def _leaves(section: type[Section], above: str = "") -> Iterator[str]:
    """Every key of a section and of the sections in it, not those of lists' and tables' entries."""
    for name, field in section.model_fields.items():
        within = None if get_origin(field.annotation) in (dict, tuple) else _section_in(field.annotation)
        if within is not None:
            yield from _leaves(within, f"{above}{name}.")
        elif above:
            yield f"{above}{name}"


def _section_in(annotation: Any) -> type[Section] | None:
    """The section that a key holds, if only in a list or as one of several types; None where it is no single one."""
    found = [one for one in (annotation, *get_args(annotation)) if isinstance(one, type) and issubclass(one, Section)]
    return found[0] if len(found) == 1 else None
