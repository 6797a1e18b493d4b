"""The collection loop against a real, slow, faulty endpoint, and kill -9: the load bench at a small size."""

import importlib.util
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SESSIONS, TURNS, CONCURRENCY = 60, 3, 4


@pytest.fixture(scope="module")
def bench():
    path = ROOT / "recipes" / "bench" / "collection_load.py"
    spec = importlib.util.spec_from_file_location("collection_load", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["collection_load"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["collection_load"]


@pytest.fixture(scope="module")
def run(bench, tmp_path_factory):
    def run(name, faults, kills=0):
        folder = tmp_path_factory.mktemp(name)
        return bench.measure(folder, SESSIONS, TURNS, 0.02, faults, CONCURRENCY, kills)

    return run


@pytest.fixture(scope="module")
def faultless(run):
    return run("faultless", 0.0)


@pytest.fixture(scope="module")
def faulty(run):
    return run("faulty", 0.1)


def test_without_faults_every_call_is_made_once(faultless):
    assert (faultless["sessions"], faultless["exchanges"]) == (SESSIONS, SESSIONS * TURNS)
    assert faultless["calls"] == faultless["server calls"] == SESSIONS * (2 * TURNS - 1)
    assert faultless["failures"] == {}


def test_every_failure_is_counted_and_changes_no_record(bench, faultless, faulty):
    assert faulty["records"] == faultless["records"]
    assert set(faulty["failures"]) == set(bench.KINDS.values())  # each kind came
    assert faulty["failures"] == faulty["server"]
    assert faulty["calls"] == faulty["server calls"] == faultless["calls"] + sum(faulty["failures"].values())


def test_three_kills_change_no_record_and_lose_only_calls_in_flight(run, faultless, faulty):
    killed = run("killed", 0.1, kills=3)
    assert killed["records"] == faultless["records"]
    # Beside what was in flight, a reply may have come and not been written when the kill struck.
    assert faulty["server calls"] <= killed["server calls"] <= faulty["server calls"] + 3 * 2 * CONCURRENCY
