"""What a comparison is about: which representations, and whether their Grams are kept already."""

import re
import shutil
import threading
from dataclasses import replace

import numpy as np
import pytest
import zarr

import store
from allcnn import extract
from allcnn.compare import compare, tasks
from allcnn.compare.tasks import gram_writer
from allcnn.errors import ComparisonError
from allcnn.settings.extraction import Extraction
from allcnn.settings.selection import Selection
from allcnn.similarity import gram as kernels
from allcnn.training import loop
from allcnn.workspace import run_record
from allcnn.workspace.paths import Workspace
from store import SchemaError, Writer
from store.arrays.reader import Representation
from tests.faults import relabel
from tests.networks import (
    ALL,
    RANGES,
    A,
    B,
    C,
    N,
    assert_same_bits,
    compare_one,
    job,
    make_taps,
    write_network,
)
from tests.oracles import cka64
from tests.strategies import coordinates, make_meta
from tests.sweeps import slow

SET = "digits-test-66-01234567"
FINAL, INIT = (Selection("small-d1-v2-s0", checkpoint) for checkpoint in ("final", "init"))
RETRAINED = "sha256:" + "5" * 64
TAPS = [*(f"conv{i}" for i in range(1, 10)), "logits"]


@pytest.fixture
def small(tmp_path):
    """Return a workspace of two networks of two small taps."""
    workspace = Workspace.at(tmp_path / "small")
    workspace.root.mkdir()
    for seed, side in enumerate((A, B)):
        write_network(workspace.activations, side, make_taps(seed))
    return workspace


def named(keys):
    return [str(key) for key in keys]


# Patterns


@pytest.fixture
def many(tmp_path):
    """Return a workspace of runs a and b, with three checkpoints of two taps each."""
    workspace = Workspace.at(tmp_path / "many")
    workspace.root.mkdir()
    # Neither taps nor checkpoints are in the order of the alphabet.
    names = ("zero", "conv1")
    for seed, run in enumerate("ba"):
        for checkpoint in ("final", "epoch-0005", "init", "epoch-0010"):
            side = Selection(run, checkpoint)
            write_network(workspace.activations, side, make_taps(seed, names=names))
    return workspace


def test_all_are_sorted_by_run_then_training_then_network(many):
    stages = ("init", "epoch-0005", "epoch-0010", "final")
    wanted = [f"{r}@{c}:{tap}" for r in "ab" for c in stages for tap in ("zero", "conv1")]
    result = compare_one(many, Selection("*", "*"), Selection("*", "*"))
    assert named(result.rows) == wanted
    assert named(result.columns) == wanted


def test_a_checkpoint_of_another_name_comes_last(tmp_path):
    workspace = Workspace.at(tmp_path)
    for name in ("pruned", "final", "init"):
        write_network(workspace.activations, Selection("a", name), make_taps(names=("one",)))
    result = compare_one(workspace, Selection("a", "*"), A)
    assert named(result.rows) == ["a@init:one", "a@final:one", "a@pruned:one"]


@pytest.mark.parametrize(
    ("pattern", "wanted"),
    [
        ("a@final", ["a@final:zero", "a@final:conv1"]),
        ("a@final:conv1", ["a@final:conv1"]),
        ("*@final:conv[0-9]", ["a@final:conv1", "b@final:conv1"]),
        ("b@epoch-*:z*", ["b@epoch-0005:zero", "b@epoch-0010:zero"]),
        ("[!a]@init", ["b@init:zero", "b@init:conv1"]),
        ("?@init:zero", ["a@init:zero", "b@init:zero"]),
    ],
)
def test_a_pattern_selects(many, pattern, wanted):
    result = compare_one(many, Selection.parse(pattern), A)
    assert named(result.rows) == wanted
    assert named(result.columns) == ["a@final:zero", "a@final:conv1"]
    whole = compare_one(many, Selection("*", "*"), A)
    chosen = [named(whole.rows).index(name) for name in wanted]
    # XLA's float32 product of another number of matrices rounds otherwise.
    np.testing.assert_allclose(result.cka, whole.cka[chosen], rtol=0, atol=1e-6)


def test_names_are_told_apart_by_case(many):
    with pytest.raises(ComparisonError, match="holds no activations or Grams of A@final"):
        compare(many, job(Selection("A", "final"), A))


@pytest.mark.parametrize("pattern", ["x*@final", "*@epoch-0007", "*@*:conv9", "a@final:nothing"])
def test_a_pattern_that_fits_nothing_says_so(many, pattern):
    side = Selection.parse(pattern)
    message = re.escape(f"{many.root} holds no activations or Grams of {pattern}; ")
    for sides in ((side, A), (A, side)):
        with pytest.raises(ComparisonError, match=f"^{message}"):
            compare(many, job(*sides))
    assert not many.grams.exists()


def test_advice_for_patterns_is_a_listing(many):
    with pytest.raises(ComparisonError, match=r"; `allcnn store ls --workspace .*` lists what is"):
        compare(many, job(Selection.parse("x*@final"), A))


def test_a_run_may_be_named_like_a_pattern_of_files(tmp_path):
    workspace = Workspace.at(tmp_path)
    odd = Selection("a..b", "final")
    write_network(workspace.activations, A, make_taps())
    with pytest.raises(ComparisonError, match=r"holds no activations or Grams of a\.\.b@final"):
        compare(workspace, job(A, odd))


@pytest.mark.parametrize("run", ["../a", "/etc", ".", "a/final/../../b"])
def test_names_that_leave_the_store_find_nothing(small, run):
    message = re.escape(f"holds no activations or Grams of {run}@final")
    with pytest.raises(ComparisonError, match=message):
        compare(small, job(A, Selection(run, "final")))


# Sample sets


def narrowed(taps, n):
    return {name: X[:n] for name, X in taps.items()}


def test_the_largest_common_sample_set_is_compared(small):
    for n in (20, 40):
        write_network(small.activations, A, narrowed(make_taps(0), n))
        write_network(small.activations, B, narrowed(make_taps(1), n))
    write_network(small.activations, A, make_taps(0, n=80))
    assert compare_one(small, A, B).n_examples == 66
    assert compare_one(small, A, A).n_examples == 80
    assert compare_one(small, ALL, ALL).n_examples == 66
    for sides in ((A, B), (ALL, ALL)):
        chosen = compare_one(small, *sides, sample_set="digits-test-20-01234567")
        assert chosen.n_examples == 20


def test_training_examples_are_compared_only_where_there_are_no_others(small):
    for seed, side in enumerate((A, B)):
        write_network(small.activations, side, make_taps(seed, n=80), split="train")
    assert compare_one(small, A, B).n_examples == 66
    assert compare_one(small, A, B, sample_set="digits-train-80-01234567").n_examples == 80
    shutil.rmtree(small.activations / "digits-test-66-01234567")
    shutil.rmtree(small.grams)
    assert compare_one(small, A, B).n_examples == 80


def test_a_sample_set_counts_only_where_it_is_whole(small):
    write_network(small.activations, A, make_taps(0, n=80))
    write_network(small.activations, B, make_taps(1, n=80), n_committed=64)
    for sides in ((A, B), (ALL, ALL), (A, ALL)):
        assert compare_one(small, *sides).n_examples == 66
        with pytest.raises(ComparisonError, match="of b@final on digits-test-80-01234567 are unfi"):
            compare(small, job(*sides, sample_set="digits-test-80-01234567"))


def test_different_sample_sets_are_refused_naming_both(tmp_path):
    workspace = Workspace.at(tmp_path)
    write_network(workspace.activations, A, make_taps(n=66))
    write_network(workspace.activations, B, make_taps(n=80))
    message = (
        r"a@final is stored on digits-test-66-01234567, b@final on digits-test-80-01234567{};"
        r" only representations of the same sample set compare: import one of them"
    )
    with pytest.raises(ComparisonError, match=message.format("")):
        compare(workspace, job(A, B))
    asked = ", and digits-test-66-01234567 was asked for"
    with pytest.raises(ComparisonError, match=message.format(asked)):
        compare(workspace, job(A, B, sample_set=SET))


def test_a_pattern_over_different_sample_sets_is_refused_naming_both(tmp_path):
    workspace = Workspace.at(tmp_path)
    write_network(workspace.activations, A, make_taps(n=66))
    write_network(workspace.activations, B, make_taps(n=80))
    message = (
        r"no sample set holds all networks of \*@final whole: a@final on digits-test-66-01234567,"
        r" b@final on digits-test-80-01234567; compare those on one of them with --sample-set, or"
    )
    with pytest.raises(ComparisonError, match=message):
        compare(workspace, job(ALL, ALL))
    # Named, it is compared with the networks that it has.
    result = compare_one(workspace, ALL, ALL, sample_set=SET)
    assert named(result.rows) == ["a@final:one", "a@final:two"]


def test_examples_of_another_digest_are_another_sample_set(small):
    shutil.rmtree(small.activations / SET / "b")
    meta = make_meta(n_samples=N)
    other = replace(meta.sample_set, digest="ffffffffffffffff")
    key = replace(meta.key, sample_set=other.name, run="b", tap="one")
    values = make_taps()["one"]
    meta = replace(meta, sample_set=other, key=key, shape=(3, 2), batch_rows=N)
    Writer.open(small.activations, meta, *coordinates(meta)).append(values)
    with pytest.raises(ComparisonError, match=r"on digits-test-66-01234567, b@final on .*-ffff"):
        compare(small, job(A, B))


# Refusals


def test_an_absent_network_says_what_to_run(small):
    message = (
        r"holds no activations or Grams of c@init; `allcnn store ls --workspace .*` lists what is"
    )
    for sides in ((A, Selection("c", "init")), (Selection("c", "init"), A)):
        with pytest.raises(ComparisonError, match=message):
            compare(small, job(*sides))


def test_an_unfinished_extraction_says_what_to_run(tmp_path):
    workspace = Workspace.at(tmp_path)
    write_network(workspace.activations, A, make_taps(dtype=np.float16), n_committed=32)
    message = (
        r"the activations of a@final on digits-test-66-01234567 are unfinished in .*;"
        r" store it again by the program that made it, or import its files again"
    )
    for side in (A, ALL):
        with pytest.raises(ComparisonError, match=message):
            compare(workspace, job(side, side))
    assert not workspace.similarity.exists()
    assert not workspace.grams.exists()


def test_one_unfinished_tap_is_enough(small):
    taps = make_taps()
    write_network(small.activations, C, {"one": taps["one"]})
    meta = make_meta("two", n_samples=N, batch_rows=16, shape=(3, 2), run="c", tap_index=1)
    Writer.open(small.activations, meta, *coordinates(meta))
    for side in (C, ALL):
        with pytest.raises(ComparisonError, match=r"activations of c@final on .* are unfinished"):
            compare(small, job(A, side))
    # A tap that is whole can be compared alone.
    result = compare_one(small, A, Selection("c", "final", "one"))
    assert named(result.columns) == ["c@final:one"]


def test_no_store_is_said(tmp_path):
    message = rf"nothing is extracted yet in {tmp_path}; train a network first with `allcnn train "
    with pytest.raises(ComparisonError, match=message):
        compare(Workspace.at(tmp_path), job(FINAL, FINAL))


def test_a_newer_store_is_said(small):
    mark = {"kind": "activations", "schema_version": 99}
    zarr.open_group(small.activations, mode="r+").attrs["allcnn_store"] = mark
    with pytest.raises(SchemaError, match="has schema version 99, and this package reads up to 4"):
        compare(small, job(A, B))


# Kept Grams


@pytest.fixture
def n_grams(monkeypatch):
    """Return a list that grows with every Gram matrix that is computed."""
    calls, gram = [], kernels.gram

    def counted(X, *kernel):
        calls.append(len(X))
        return gram(X, *kernel)

    monkeypatch.setattr(kernels, "gram", counted)
    return calls


def test_each_gram_is_computed_once(small, n_grams):
    assert compare_one(small, A, B).sources == (4, 0)
    assert len(n_grams) == 4 * len(RANGES)
    n_grams.clear()
    for how in ({}, {"estimator": "biased"}, {"permutations": 1}, {"label": 1, "batch_size": 8}):
        assert compare_one(small, ALL, ALL, **how).sources == (0, 4)
    assert n_grams == []


def test_a_network_with_itself_counts_once(small, n_grams):
    assert compare_one(small, A, A).sources == (2, 0)
    assert len(n_grams) == 2 * len(RANGES)


@pytest.mark.parametrize(
    "change", [{"kernel": "cosine"}, {"pool": "mean"}, {"batch_size": 16}], ids=str
)
def test_grams_of_another_kind_are_computed_beside(small, n_grams, change):
    first = compare_one(small, A, A)
    n_grams.clear()
    assert compare_one(small, A, A, **change).sources == (2, 0)
    assert n_grams
    n_grams.clear()
    assert compare_one(small, A, A, estimator="biased", **change).sources == (0, 2)
    assert compare_one(small, A, A, estimator="biased").sources == (0, 2)
    assert n_grams == []
    assert_same_bits(first, compare_one(small, A, A))


def test_an_added_checkpoint_costs_its_own_grams_alone(small, n_grams, monkeypatch):
    compare_one(small, ALL, ALL)
    n_grams.clear()
    write_network(small.activations, C, make_taps(2))
    reads, read = [], Representation.read
    monkeypatch.setattr(
        Representation, "read", lambda self, *span: reads.append(self.key.run) or read(self, *span)
    )
    result = compare_one(small, ALL, ALL)
    assert result.sources == (2, 4)
    assert len(n_grams) == 2 * len(RANGES)
    assert set(reads) == {"c"}
    assert result.cka.shape == (6, 6)


def test_linear_grams_serve_rbf_also_where_a_kill_came_before_their_median(
    small, n_grams, monkeypatch
):
    wanted = compare_one(small, A, B, kernel="rbf")
    shutil.rmtree(small.grams)
    shutil.rmtree(small.similarity)
    with monkeypatch.context() as patched:
        patched.setattr(tasks, "keep_median_distance", lambda writer: None)
        compare_one(small, A, B)
    assert {each.median_distance for each in store.open_grams(small.grams).find()} == {None}
    n_grams.clear()
    found = compare_one(small, A, B, kernel="rbf")
    assert found.sources == (0, 4)
    assert_same_bits(found, wanted)
    assert n_grams == []
    assert compare_one(small, A, B, kernel="rbf", sigma=(0.8,)).sources == (0, 4)


def test_a_stopped_comparison_goes_on_with_its_grams(small, n_grams, monkeypatch):
    append, n_done = store.GramWriter.append, [0]

    def dying(self, *K):
        n_done[0] += 1
        if n_done[0] > 20:
            raise RuntimeError("the disk is full")
        append(self, *K)

    monkeypatch.setattr(store.GramWriter, "append", dying)
    with pytest.raises(RuntimeError, match="the disk is full"):
        compare(small, job(A, B))
    monkeypatch.setattr(store.GramWriter, "append", append)
    kept = sum(grams.n_committed for grams in store.open_grams(small.grams).find())
    n_grams.clear()
    result = compare_one(small, A, B)
    assert len(n_grams) == 4 * len(RANGES) - kept < 4 * len(RANGES)
    shutil.rmtree(small.grams)
    shutil.rmtree(small.similarity)
    assert_same_bits(result, compare_one(small, A, B))


def place(trained, root):
    workspace = Workspace.at(root)
    workspace.root.mkdir()
    (workspace.root / "runs").symlink_to(trained.root / "runs")
    return workspace


@pytest.mark.parametrize(
    ("kernel", "pool", "dtype", "batch_size"),
    [
        ("rbf", "whole", "float16", 16),
        slow(("cosine", "mean", "float32", 8)),
        slow(("linear", "whole", "float32", 8)),
        slow(("rbf", "mean", "float32", 16)),
    ],
)
def test_kept_grams_and_activations_give_the_same_bits(
    trained, tmp_path, n_grams, kernel, pool, dtype, batch_size
):
    """Both come from forward passes of as many images; the last minibatch is a joined one."""
    how = {"n_samples": N, "batch_size": batch_size, "dtype": dtype}
    stored, kept = place(trained, tmp_path / "stored"), place(trained, tmp_path / "kept")
    for side in (FINAL, INIT):
        extract.extract(stored, Extraction(side.run, side.checkpoint, **how))
        grams = {"keep": ("grams",), "kernel": kernel, "pool": pool}
        extract.extract(kept, Extraction(side.run, side.checkpoint, **how, **grams))
    assert not kept.activations.exists()
    compared = {"kernel": kernel, "pool": pool, "batch_size": batch_size}
    for sides in ((FINAL, INIT), (FINAL, FINAL), (Selection("*", "*"), Selection("*", "*"))):
        results = [compare_one(workspace, *sides, **compared) for workspace in (stored, kept)]
        assert results[0].name == results[1].name
        assert_same_bits(*results)
        assert results[1].sources == (0, 10 if sides[0] == sides[1] == FINAL else 20)
    assert results[0].rows[0].checkpoint == "init"
    n_grams.clear()
    classes = [
        compare(workspace, job(FINAL, INIT, label="each", estimator="biased", **compared))
        for workspace in (stored, kept)
    ]
    assert len(classes[0]) == 10
    for one, other in zip(*classes, strict=True):
        assert_same_bits(one, other)
    assert n_grams == []


@pytest.fixture(scope="module")
def grams_alone(trained, tmp_path_factory):
    """Return a workspace with linear Grams in minibatches of 8."""
    workspace = place(trained, tmp_path_factory.mktemp("grams") / "alone")
    keep = {"keep": ("grams",), "n_samples": N, "batch_size": 8}
    extract.extract(workspace, Extraction(FINAL.run, "final", **keep))
    return workspace


KEEP = "--keep grams --batch-size {} --dtype float32 --kernel {} --pool {} "


@pytest.mark.parametrize(
    ("how", "said", "options"),
    [
        (
            {"estimator": "exact"},
            "exact HSIC needs activations, and of small-d1-v2-s0@final on {} Grams alone are kept",
            "",
        ),
        (
            {"kernel": "cosine"},
            "are linear whole ones in minibatches of 8, and cosine whole ones in minibatches of 8"
            " are needed",
            KEEP.format(8, "cosine", "whole"),
        ),
        ({"pool": "mean"}, "and linear mean ones in", KEEP.format(8, "linear", "mean")),
        ({"batch_size": 16}, "in minibatches of 16 are", KEEP.format(16, "linear", "whole")),
    ],
    ids=["exact", "cosine", "mean", "16"],
)
def test_what_kept_grams_cannot_give_is_refused_with_what_to_do(grams_alone, how, said, options):
    (grams, *_) = store.open_grams(grams_alone.grams).find()
    with pytest.raises(ComparisonError) as caught:
        compare(grams_alone, job(FINAL, FINAL, **how))
    message = str(caught.value)
    assert said.format(grams.key.of.sample_set) in message
    assert message.endswith(
        "; run `allcnn extract small-d1-v2-s0 --checkpoint final --split test --samples 66"
        f" {options}--workspace {grams_alone.root}`"
    )


def test_an_unfinished_gram_says_what_to_run(small, monkeypatch):
    append, n_done = store.GramWriter.append, [0]

    def dying(self, *K):
        n_done[0] += 1
        if n_done[0] > 20:
            raise RuntimeError("the disk is full")
        append(self, *K)

    monkeypatch.setattr(store.GramWriter, "append", dying)
    with pytest.raises(RuntimeError, match="the disk is full"):
        compare(small, job(A, A, batch_size=4))
    shutil.rmtree(small.activations)
    message = (
        r"ones in minibatches of 4.*, unfinished, and linear whole ones in minibatches of 4 are"
        r" needed; store it again by the program that made it"
    )
    with pytest.raises(ComparisonError, match=message):
        compare(small, job(A, A, batch_size=4))


def test_one_side_may_be_kept_and_the_other_stored(small):
    wanted = compare_one(small, A, B)
    shutil.rmtree(small.similarity)
    shutil.rmtree(small.activations / SET / "a")
    shutil.rmtree(small.grams / SET / "b")
    found = compare_one(small, A, B)
    assert found.sources == (2, 2)
    assert found.name == wanted.name
    assert_same_bits(found, wanted)


def test_grams_of_an_older_checkpoint_do_not_stand_for_a_newer_one(small, n_grams):
    compare_one(small, A, A)
    old = list((small.grams / SET / "a" / "final").glob("*/linear-*"))
    shutil.rmtree(small.activations / SET / "a")
    write_network(small.activations, A, make_taps(5), checkpoint_digest="retrained")
    n_grams.clear()
    retrained = compare_one(small, A, A)
    assert retrained.sources == (2, 0)
    assert len(n_grams) == 2 * len(RANGES)
    # Without the activations, nobody knows which of the Grams are the run's.
    shutil.rmtree(small.activations)
    shutil.rmtree(small.similarity)
    message = (
        rf"what is kept of a@final on {SET} is of several checkpoints: .* and retrained; store"
        r" it again by the program that made it"
    )
    with pytest.raises(ComparisonError, match=message):
        compare_one(small, A, A)
    for place in old:
        shutil.rmtree(place)
    assert_same_bits(retrained, compare_one(small, A, A))


def test_taps_of_one_network_come_from_one_checkpoint(small):
    wanted = compare_one(small, A, A)
    shutil.rmtree(small.activations / SET / "a")
    write_network(small.activations, A, make_taps(5), checkpoint_digest=RETRAINED)
    compare_one(small, A, A)
    shutil.rmtree(small.activations)
    shutil.rmtree(small.similarity)
    # As a kill leaves it: of the retrained checkpoint, one tap is whole and the other is not.
    first, second = (small.grams / key.path for key in wanted.rows)
    for place in second.glob(f"*-{RETRAINED[7:19]}"):
        shutil.rmtree(place)
    message = (
        rf"what is kept of a@final on {SET} is of several checkpoints: feedc0de and {RETRAINED};"
        r" store it again by the program that made it"
    )
    with pytest.raises(ComparisonError, match=message):
        compare_one(small, A, A)
    for place in first.iterdir():
        if place.is_dir() and RETRAINED[7:19] not in place.name:
            shutil.rmtree(place)
    with pytest.raises(ComparisonError, match=message):
        compare_one(small, A, A)


def test_grams_of_another_kind_tell_of_another_checkpoint(small):
    compare_one(small, A, A, kernel="cosine")
    shutil.rmtree(small.activations / SET / "a")
    write_network(small.activations, A, make_taps(5), checkpoint_digest=RETRAINED)
    compare_one(small, A, A)
    shutil.rmtree(small.activations)
    for kernel in ("linear", "cosine"):
        with pytest.raises(ComparisonError, match="is of several checkpoints"):
            compare_one(small, A, A, kernel=kernel)


def test_grams_of_float32_are_taken_before_those_of_float16(small):
    wanted = compare_one(small, A, A)
    shutil.rmtree(small.activations / SET / "a")
    write_network(small.activations, A, make_taps(0, dtype=np.float16))
    narrow = compare_one(small, A, A)
    assert narrow.name != wanted.name
    shutil.rmtree(small.activations)
    assert compare_one(small, A, A).name == wanted.name


@pytest.mark.parametrize("kept", [False, True], ids=["activations", "Grams"])
def test_a_tap_that_is_gone_is_missed(tmp_path, kept):
    workspace = Workspace.at(tmp_path)
    write_network(workspace.activations, A, make_taps(names=("one", "two", "three")))
    compare_one(workspace, A, A)
    for path in (workspace.activations, workspace.grams):
        shutil.rmtree(path / SET / "a" / "final" / "two")
    if kept:
        shutil.rmtree(workspace.activations)
    message = (
        rf"tap 1 of a@final on {SET}, counted from 0, is not stored;"
        r" store it again .*, or name the taps, as in"
    )
    with pytest.raises(ComparisonError, match=message):
        compare_one(workspace, A, A)
    chosen = replace(A, tap="t*")
    assert [key.tap for key in compare_one(workspace, chosen, chosen).rows] == ["three"]


def test_a_store_that_a_kill_left_half_made_is_none_yet(small):
    wanted = compare_one(small, A, B)
    for path in (small.grams, small.similarity):
        shutil.rmtree(path)
        path.mkdir()
        (path / "zarr.json.0a1b.partial").touch()
    assert_same_bits(compare_one(small, A, B), wanted)


def test_labels_are_known_from_grams_alone(small):
    wanted = compare(small, job(A, A, label="each", batch_size=N))
    shutil.rmtree(small.activations)
    shutil.rmtree(small.similarity)
    found = compare(small, job(A, A, label="each", batch_size=N))
    assert [result.label for result in found] == list(range(10))
    for one, other in zip(wanted, found, strict=True):
        assert_same_bits(one, other)
    with pytest.raises(ComparisonError, match=f"no example of {SET} has label 10; its labels are"):
        compare(small, job(A, A, label=10, batch_size=N))


def test_examples_without_labels_have_no_classes(tmp_path):
    workspace = Workspace.at(tmp_path)
    for side in (A, B):
        write_network(workspace.activations, side, make_taps(), labels=[-1] * N)
    for label in ("each", 0):
        with pytest.raises(ComparisonError, match="have no labels; store them with labels, or"):
            compare(workspace, job(label=label))


def test_fewer_examples_than_hsic_needs_are_refused(tmp_path):
    workspace = Workspace.at(tmp_path)
    for side in (A, B):
        write_network(workspace.activations, side, make_taps(n=3))
    with pytest.raises(ComparisonError, match="has 3 examples, and HSIC needs 4; store more"):
        compare(workspace, job())


def test_other_activations_under_the_same_digest_are_compared_afresh(small):
    """The digest of a checkpoint need not tell all that another program's activations depend on."""
    before = compare_one(small, A, B)
    other = make_taps(seed=7)
    shutil.rmtree(small.activations / SET / "b")
    write_network(small.activations, B, other)
    found = compare_one(small, A, B)
    assert found.name == before.name  # the older one is replaced
    assert not np.array_equal(found.cka, before.cka)
    assert_same_bits(store.read_result(small.similarity, found.name), found)
    shutil.rmtree(small.grams)
    shutil.rmtree(small.similarity)
    assert_same_bits(compare_one(small, A, B), found)


def test_a_comparison_waits_for_grams_that_another_one_computes(small, monkeypatch):
    wanted = compare_one(small, A, B)
    shutil.rmtree(small.grams)
    shutil.rmtree(small.similarity)
    monkeypatch.setattr("allcnn.compare.tasks._POLL_S", 0.01)
    tap = store.open(small.activations).find(run="a", tap="one")[0]
    key = store.GramKey(tap.key, "linear", "whole", 8, "float32", tap.meta.checkpoint_digest)
    busy = gram_writer(str(small.grams), tap, key)
    timer = threading.Timer(0.5, busy.close)
    timer.start()
    assert_same_bits(compare_one(small, A, B), wanted)
    timer.join()


def test_grams_of_an_earlier_network_do_not_stand_for_unfinished_activations(small):
    compare_one(small, A, B)
    shutil.rmtree(small.activations / SET / "a")
    shutil.rmtree(small.similarity)
    other = {"checkpoint_digest": "an0ther"}
    write_network(small.activations, A, make_taps(seed=7), n_committed=16, **other)
    with pytest.raises(ComparisonError, match=f"^the activations of a@final on {SET} are unfin"):
        compare_one(small, A, B)


def test_grams_of_the_same_network_stand_for_unfinished_activations(small):
    wanted = compare_one(small, A, B)
    shutil.rmtree(small.activations / SET / "a")
    shutil.rmtree(small.similarity)
    write_network(small.activations, A, make_taps(seed=0), n_committed=16)
    assert_same_bits(compare_one(small, A, B), wanted)


def test_digests_of_examples_are_compared_to_their_end(small, monkeypatch):
    """What an older version let in: writing refuses it by now."""
    shutil.rmtree(small.activations / SET / "b")
    monkeypatch.setattr("store.arrays.writer.check_like_others", lambda *_: None)
    sample_set = make_meta(n_samples=N).sample_set
    other = replace(sample_set, digest=sample_set.digest[:8] + "ffffffff")
    write_network(small.activations, B, make_taps(seed=1), sample_set=other)
    with pytest.raises(ComparisonError, match="only representations of the same sample set comp"):
        compare_one(small, A, B)


@pytest.fixture
def one_run(trained, tmp_path):
    """Return a workspace with a trained run, of which two checkpoints are extracted."""
    place = Workspace.at(tmp_path / "workspace")
    shutil.copytree(trained.root, place.root)
    for side in (INIT, FINAL):
        extract.extract(place, Extraction(side.run, side.checkpoint, n_samples=16, batch_size=8))
    return place


def begin_at(place, when):
    """Write into a run when it was begun, and return what it was."""
    entry = run_record.read_record(place, FINAL.run)
    run_record.write_record(place, replace(entry, created_at=when))
    return entry


LATER = "2999-01-01T00:00:00+00:00"


def test_what_an_earlier_run_left_is_not_compared(one_run):
    wanted = compare_one(one_run, FINAL, FINAL)
    entry = begin_at(one_run, LATER)
    assert entry.created_at <= store.open(one_run.activations).find()[0].meta.created_at
    # Trained again with the same settings, it is the same network.
    assert compare_one(one_run, FINAL, FINAL).name == wanted.name
    folder = one_run.checkpoints_folder(FINAL.run)
    shutil.rmtree(folder / "final")
    shutil.copytree(folder / "init", folder / "final")
    relabel(folder / "final")
    told = r"so that this is of an earlier run of that .* store rm .* --sample-set"
    for lost in (None, one_run.activations):
        if lost:
            shutil.rmtree(lost)
        with pytest.raises(ComparisonError, match=told):
            compare_one(one_run, FINAL, FINAL)
    begin_at(one_run, "")  # the digest decides, whenever it was stored
    with pytest.raises(ComparisonError, match=told):
        compare_one(one_run, FINAL, FINAL)


def test_what_nothing_tells_to_be_of_the_run_is_not_advised_to_be_removed(one_run, tmp_path):
    stored = store.open(one_run.activations).find(checkpoint="init")[0].meta.created_at
    folder = one_run.checkpoints_folder(INIT.run) / "init"
    folder.rename(tmp_path / "elsewhere")
    begin_at(one_run, stored)
    compare_one(one_run, INIT, INIT)  # equal seconds are not older
    begin_at(one_run, LATER)
    told = "checkpoint 'init' is not there to be read; finish or rest"
    with pytest.raises(ComparisonError, match=told) as error:
        compare_one(one_run, INIT, INIT)
    assert " rm " not in str(error.value)
    (tmp_path / "elsewhere").rename(folder)
    compare_one(one_run, INIT, INIT)


def test_a_run_that_goes_on_keeps_when_it_was_begun(one_run):
    for known in ("2020-01-31T12:00:00+00:00", ""):
        entry = begin_at(one_run, known)
        shutil.rmtree(one_run.checkpoints_folder(FINAL.run) / "final")
        loop.train(entry.config, one_run)
        assert run_record.begun_at(one_run, FINAL.run) == known


def test_grams_of_activations_that_are_stored_are_not_refused(tmp_path, monkeypatch):
    """What earlier versions let in is compared in whatever order."""
    workspace = Workspace.at(tmp_path)
    write_network(workspace.activations, A, make_taps(0))
    monkeypatch.setattr("store.arrays.writer.check_like_others", lambda *_: None)
    write_network(workspace.activations, B, make_taps(1), labels=np.zeros(N))
    monkeypatch.undo()
    one_by_one = [compare_one(workspace, A, A), compare_one(workspace, A, B)]
    for place in (workspace.grams, workspace.similarity):
        shutil.rmtree(place)
    assert_same_bits(compare_one(workspace, A, B), one_by_one[1])
    assert not np.isnan(one_by_one[1].cka).any()


@pytest.mark.parametrize("estimator", ["unbiased", "exact"])
@pytest.mark.parametrize("kernel", ["linear", "rbf"])
def test_float64_far_from_zero_is_compared_as_it_is(tmp_path, kernel, estimator):
    """Both from activations and from the Grams that are kept of them."""
    workspace = Workspace.at(tmp_path)
    far = {name: X.astype(np.float64) + 1e9 for name, X in make_taps(0).items()}
    near = make_taps(1)
    for side, taps in ((A, far), (B, near)):
        write_network(workspace.activations, side, taps)
    wanted = cka64([*far.values()], [*near.values()], RANGES, kernel=kernel, estimator=estimator)
    for columns in (B, Selection("b", "*")):
        result = compare_one(workspace, A, columns, kernel=kernel, estimator=estimator)
        np.testing.assert_allclose(result.cka, wanted, rtol=0, atol=1e-4)
