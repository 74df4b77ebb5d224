"""Damage of every file of a workspace in turn: it is named, or the file is none that counts."""

import random
import re
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

import store
from allcnn.compare import compare
from allcnn.drawing import figure_files
from allcnn.errors import AllcnnError
from allcnn.maintenance import verify_runs
from allcnn.maintenance.verify_runs import examine_runs, taps_of
from allcnn.workspace import checkpoints, run_record
from allcnn.workspace.paths import Workspace
from flows.reporting import write_report
from store import StoreError
from store.maintenance.verify import verify
from tests.faults import damaging, swap
from tests.networks import A, B, job, make_taps, write_network
from tests.reports import write_probe

RUN = "small-d1-v2-s0"
STORES = {f"{kind}.zarr": kind for kind in ("activations", "grams", "similarity", "probes")}

NO_MATTER = {
    r"figures/.*": "pictures, which nothing reads",
    r"report/.*": "written again by every report, see below",
    r".*/checkpoints/[^/]+/(.*/)?(_sharding|array_metadatas/.*)": (
        "notes of Orbax on devices and shapes, which are checked against the settings"
    ),
    r".*/checkpoints/[^/]+/_CHECKPOINT_METADATA": "times and names of handlers beside our digests",
}
"""Files that may change without a word, and why."""


@pytest.fixture(scope="module")
def place(trained, tmp_path_factory):
    """Return a workspace with everything in it, each file of which is put back after a test."""
    root = tmp_path_factory.mktemp("damage") / "workspace"
    workspace = Workspace.at(shutil.copytree(trained.root, root))
    for seed, side in enumerate((A, B)):
        taps = make_taps(seed, n=16)
        write_network(workspace.activations, side, taps, batch_rows=8, n_taps=2)
    (result,) = compare(workspace, job())
    compare(workspace, job(A, A))
    figure_files.draw_comparison(workspace, result)
    for name, side in (("first", A), ("second", B)):
        of = [tap.key for tap in store.open(workspace.activations).find(run=side.run)]
        write_probe(workspace, name, of)
    write_report(workspace)
    return workspace


def files_of(place):
    root = place.root
    return sorted(str(p.relative_to(root)) for p in root.rglob("*") if p.is_file())


def is_named(place, file):
    """Return whether a look at what a file belongs to, and no more, names damage."""
    top, _, rest = file.partition("/")
    try:
        if top == "runs":
            found = [*examine_runs(place, rest.partition("/")[0])]
            return not found or any(each.damage or each.unsealed for each in found)
        parts = [*rest.split("/"), *[""] * 4]
        names = dict(zip(("sample_set", "run", "checkpoint"), parts, strict=False))
        how = {} if top in ("similarity.zarr", "probes.zarr") else names
        how = {name: value for name, value in how.items() if value and value != "zarr.json"}
        found = verify(
            place.root / top, STORES[top], taps_of=lambda run: taps_of(place, run), **how
        )
        return any(each.damage for each in found)
    except (StoreError, AllcnnError):
        return True


def flip(rng, path):
    content = bytearray(path.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def truncate(rng, path):
    content = path.read_bytes()
    path.write_bytes(content[: rng.randrange(len(content))])


def lose(_, path):
    path.unlink()


INJURIES = (flip, truncate, lose)


def matters(file):
    return not any(re.fullmatch(pattern, file) for pattern in NO_MATTER)


def kind_of(file):
    """Return what files have in common of which the tests that always run injure one."""
    file = re.sub(r"-[0-9a-f]{8}\b|[0-9a-f]{32}", "*", file)
    file = re.sub(r"/(one|two)/|/(a|b)/final", "/tap/", file)
    file = re.sub(r"small-d\d-v2-s0|(init|final|epoch-\d+)(?=/)|(first|second)(?=/)", "*", file)
    return re.sub(r"(similarity|probes)\.zarr/[^/]+/", r"\1/*/", re.sub(r"\d+", "*", file))


def unnoticed(place, files, rng, look=None):
    """Return the injuries of files that are not named, with what a look at them finds.

    Each is healed before the next.
    """
    found = []
    for file in files:
        path = place.root / file
        content = path.read_bytes()
        for injure in INJURIES if content else (lose,):
            injure(rng, path)
            if not is_named(place, file):
                found.append((injure.__name__, file, *([look()] if look else [])))
            path.write_bytes(content)
    return found


def test_nothing_is_named_where_nothing_is_injured(place):
    for file in ("runs/*", *STORES):
        assert not is_named(place, f"{file}/zarr.json")


@damaging
def test_an_injury_of_each_kind_of_file_is_named(place):
    kinds = {kind_of(file): file for file in filter(matters, files_of(place))}
    files = [file for kind, file in kinds.items() if "/checkpoints/" not in kind]
    assert len(files) > 40
    assert unnoticed(place, files, random.Random(0)) == []


def state_of(place, run, name):
    """Return all numbers of a checkpoint; None where it is not there."""
    if name not in place.checkpoints(run):
        return None
    like = verify_runs._like(run_record.read_record(place, run))
    state = checkpoints.load(place.checkpoints_folder(run) / name, like)
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(state)]


@pytest.mark.slow
@damaging
def test_every_injury_of_every_file_is_named_or_changes_no_number(place):
    # Of a checkpoint, Orbax keeps files and parts of files to which nothing points any more.
    one = f"runs/{RUN}/checkpoints/final/"
    files = [file for file in files_of(place) if matters(file)]
    assert unnoticed(place, [f for f in files if "/checkpoints/" not in f], random.Random(1)) == []
    wanted = state_of(place, RUN, "final")
    inside = [file for file in files if file.startswith(one)]
    missed = unnoticed(place, inside, random.Random(2), lambda: state_of(place, RUN, "final"))
    assert len(missed) < 3 * len(inside) - 20  # else none was read
    assert [(how, file) for how, file, state in missed if state != wanted] == []


def test_the_files_that_do_not_matter_are_there(place):
    files = files_of(place)
    for pattern in NO_MATTER:
        assert any(re.fullmatch(pattern, file) for file in files)


def test_a_report_heals_itself(place):
    files = [file for file in files_of(place) if file.startswith("report/")]
    before = {file: (place.root / file).read_bytes() for file in files}
    for file in files:
        if not file.endswith("index.html"):
            flip(random.Random(file), place.root / file)
    write_report(place)
    after = {file: (place.root / file).read_bytes() for file in files}
    for name in ("report/index.html",):
        assert before.pop(name)
        assert after.pop(name)
    assert after == before


# Exchanges


def other_of(file):
    """Return the file that another run, tap or record has in a file's place."""
    pairs = (("/a/", "/b/"), ("/one/", "/two/"), ("-d1-", "-d2-"), ("/first/", "/second/"))
    both = (*pairs, *((new, old) for old, new in pairs))
    return [file.replace(old, new, 1) for old, new in both if old in file]


@damaging
def test_an_exchange_with_another_ones_file_is_named(place):
    kinds = {kind_of(file): file for file in filter(matters, files_of(place))}
    exchanged, missed = set(), []
    for kind, file in kinds.items():
        for other in other_of(file) if "/checkpoints/" not in kind else ():
            one, two = place.root / file, place.root / other
            if one.read_bytes() == two.read_bytes():
                continue
            swap(one, two)
            if not (is_named(place, file) and is_named(place, other)):
                missed.append((file, other))
            swap(one, two)
            exchanged.add(kind)
    assert missed == []
    assert len(exchanged) >= 8


def swap_folders(first: Path, second: Path) -> None:
    first.rename(first.with_name("aside"))
    second.rename(first)
    first.with_name("aside").rename(second)


@damaging
def test_checkpoints_that_were_exchanged_are_named(place):
    """Each is whole in itself, and of a network of the same shapes."""
    names = ("init", "final")
    one, two = (place.checkpoints_folder(RUN) / name for name in names)
    swap_folders(one, two)
    try:
        damage = [str(d) for each in examine_runs(place, RUN) for d in each.damage]
    finally:
        swap_folders(one, two)
    assert len(damage) == 2
    assert all(any(f"it is {RUN}@{name})" in each for each in damage) for name in names)


# What is lost whole


@pytest.mark.parametrize("kind", ["activations", "grams"])
def test_a_tap_that_is_lost_whole_is_named(place, kind, tmp_path):
    folder = next((place.root / f"{kind}.zarr").glob("*/a/final/one"))
    shutil.move(folder, tmp_path / "one")
    found = is_named(place, str(folder.relative_to(place.root) / "zarr.json"))
    shutil.move(tmp_path / "one", folder)
    # Grams that come from activations may be wanted of some taps alone.
    assert found is (kind == "activations")
