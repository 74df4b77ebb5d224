"""Probes of stored networks: right sets, right numbers, refusals, and no work done twice."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

import store
from allcnn import machine_memory
from allcnn.definitions.fields import json_of
from allcnn.errors import ConfigError, ProbeError
from allcnn.extract import extract
from allcnn.probing import classifier, fit
from allcnn.probing.fit import probe
from allcnn.settings.extraction import Extraction
from allcnn.settings.probing import Probing
from allcnn.settings.selection import Selection
from allcnn.workspace.paths import Workspace
from store import RepresentationKey, SampleSet, Writer
from tests.faults import Killed, chunk_files, flip_bit
from tests.strategies import batches, make_meta

CLASSES = 3
NET = Selection("net", "final")
JOB = Probing(NET, penalties=(1e-2, 1e-3))
SHAPES = {"wide": (4, 4, 8), "narrow": (5,)}
FINISHED = {
    "accuracy": 0.5,
    "train_accuracy": 0.5,
    "class_accuracy": [0.5] * CLASSES,
    "penalties": 1e-2,
    "n_features": 128,
}
"""A tap in the draft of a probe."""


def write(
    workspace,
    split,
    n,
    run="net",
    *,
    dataset="digits",
    shapes=SHAPES,
    seed=0,
    labels=None,
    n_committed=None,
    digest="feedc0de",
    edit=lambda tap, values: None,
    **changes,
):
    """Store a network of taps that tell the classes apart; return its values and its labels.

    ``edit`` may change the values of a tap before they are stored.
    """
    rng = np.random.default_rng([seed, len(split), n])
    classes = rng.integers(CLASSES, size=n) if labels is None else np.asarray(labels)
    sample_set = SampleSet(dataset, split, n, (8, 8, 1), f"{seed}123456789abcdef")
    taps = {}
    for index, (tap, shape) in enumerate(shapes.items()):
        centres = np.random.default_rng(index).standard_normal((100, *shape))
        taps[tap] = (centres[classes] + rng.standard_normal((n, *shape))).astype(np.float32)
        edit(tap, taps[tap])
        meta = make_meta(
            tap,
            n_samples=n,
            batch_rows=16,
            shape=shape,
            run=run,
            tap_index=index,
            checkpoint_digest=digest,
            **{
                "key": RepresentationKey(sample_set.name, run, "final", tap),
                "sample_set": sample_set,
            }
            | changes,
        )
        writer = Writer.open(
            workspace.activations, meta, np.arange(n, dtype=np.int64), classes.astype(np.int32)
        )
        for rows in batches(meta, taps[tap])[:n_committed]:
            writer.append(rows)
    return taps, classes


@pytest.fixture
def place(tmp_path):
    return Workspace.at(tmp_path)


@pytest.fixture
def counted(monkeypatch):
    """Count the taps that classifiers are trained on."""
    trained = []
    train = classifier.train

    def counting(source, *args):
        trained.append(source.n)
        return train(source, *args)

    monkeypatch.setattr(fit.classifier, "train", counting)
    return trained


def test_every_tap_is_trained_on_one_set_and_tested_on_the_other(place):
    training, classes = write(place, "train", 160)
    test, wanted = write(place, "test", 90)
    (found,) = probe(place, JOB)
    assert [key.tap for key in found.taps] == ["wide", "narrow"]
    assert {key.sample_set for key in found.taps} == {"digits-test-90-01234567"}
    assert (found.train_set, found.n_train, found.n_test) == ("digits-train-160-01234567", 160, 90)
    assert found.classes == (0, 1, 2)
    assert found.n_features.tolist() == [128, 5]
    for i, tap in enumerate(SHAPES):
        X, Z = training[tap], test[tap]
        source = classifier.FeatureSource(lambda a, b, X=X: X[a:b], 160, 16)
        trained = classifier.train(source, classes, CLASSES, JOB.penalties)
        hits = trained.predict(Z.reshape(90, -1)) == wanted
        assert found.accuracy[i] == hits.mean()
        assert found.train_accuracy[i] == trained.train_accuracy
        assert found.penalties[i] == trained.penalty
        shares = [hits[wanted == label].mean() for label in range(CLASSES)]
        np.testing.assert_allclose(found.class_accuracy[i], shares)
    assert found.accuracy.min() > 1 / CLASSES + 4 * np.sqrt(2 / 9 / 90)


def test_its_provenance_names_its_inputs(place):
    write(place, "train", 160)
    write(place, "test", 90)
    (found,) = probe(place, JOB)
    stored = store.open(place.activations)
    provenance = found.provenance
    assert provenance["job"] == json_of(JOB) | {
        "train_set": "digits-train-160-01234567",
        "test_set": "digits-test-90-01234567",
    }
    assert provenance["checkpoint_digest"] == "feedc0de"
    assert provenance["rows_digests"] == {tap.key.path: tap.rows_digest for tap in stored.find()}
    assert provenance["sample_sets"]["train"]["n_samples"] == 160
    assert {"jax", "numpy"} <= set(provenance["versions"])
    kept = store.read_probe(place.probes, found.name)
    np.testing.assert_array_equal(kept.accuracy, found.accuracy)


def test_classes_may_have_any_labels_and_none_in_the_test(place):
    names = np.array([2, 40, 7])
    write(place, "train", 160, labels=names[np.arange(160) % 3])
    write(place, "test", 60, labels=names[np.arange(60) % 2])
    (found,) = probe(place, JOB)
    assert found.classes == (2, 7, 40)
    assert np.isnan(found.class_accuracy[:, 1]).all()
    assert (found.accuracy > 0.6).all()


def test_the_largest_sets_are_taken_unless_others_are_named(place):
    for n in (60, 100):
        write(place, "train", n)
        write(place, "test", n)
    (found,) = probe(place, JOB)
    assert (found.n_train, found.n_test) == (100, 100)
    names = {"train_set": "digits-train-60-01234567", "test_set": "digits-test-60-01234567"}
    (named,) = probe(place, Probing(NET, penalties=JOB.penalties, **names))
    assert (named.n_train, named.n_test) == (60, 60)
    assert named.name != found.name


def test_sets_of_two_data_sets_are_taken_only_where_they_are_named(place):
    write(place, "train", 60)
    write(place, "test", 90, dataset="others")
    refuse(place, "no activations of net@final of examples of the split test of digits are in")
    write(place, "test", 40)
    (found,) = probe(place, JOB)
    assert found.taps[0].sample_set == "digits-test-40-01234567"
    others = replace(JOB, train_set="digits-train-60-01234567", test_set="others-test-90-01234567")
    assert probe(place, others)[0].n_test == 90
    write(place, "train", 70, dataset="others")
    (found,) = probe(place, replace(JOB, test_set="digits-test-40-01234567"))
    assert found.train_set == "digits-train-60-01234567"


def test_an_unfinished_larger_set_is_passed_over(place):
    write(place, "train", 60)
    write(place, "train", 100, n_committed=2)
    write(place, "test", 60)
    (found,) = probe(place, JOB)
    assert found.n_train == 60


def test_nothing_is_computed_twice(place, counted):
    write(place, "train", 60)
    write(place, "test", 40)
    (first,) = probe(place, JOB)
    assert counted == [60, 60]
    (again,) = probe(place, JOB)
    assert counted == [60, 60]
    assert again.provenance == first.provenance
    np.testing.assert_array_equal(again.accuracy, first.accuracy)


@pytest.mark.parametrize("how", [{"pool": "mean"}, {"penalties": (1e-2,)}])
def test_other_settings_are_another_probe(place, counted, how):
    write(place, "train", 60)
    write(place, "test", 40)
    (first,) = probe(place, JOB)
    (other,) = probe(place, Probing(NET, **{"penalties": JOB.penalties} | how))
    assert other.name != first.name
    assert len(counted) == 4
    assert store.list_probes(place.probes) == sorted([first.name, other.name])


def test_other_activations_are_another_probe(place, counted):
    """Of the same names and digest of a checkpoint, as another program may write them."""

    def edit(tap, values):
        values[0] += tap == "narrow"

    write(place, "train", 60)
    write(place, "test", 40)
    (first,) = probe(place, JOB)
    (folder,) = place.activations.glob("digits-train-60-*")
    shutil.rmtree(folder)
    write(place, "train", 60, edit=edit)
    (other,) = probe(place, JOB)
    assert other.name != first.name
    assert len(counted) == 4


def test_a_damaged_probe_is_computed_again(place, counted):
    write(place, "train", 60)
    write(place, "test", 40)
    (first,) = probe(place, JOB)
    flip_bit(chunk_files(place.probes / first.name / "accuracy")[0])
    (again,) = probe(place, JOB)
    assert len(counted) == 4
    np.testing.assert_array_equal(again.accuracy, first.accuracy)


def test_a_killed_probe_resumes_after_the_last_tap(place, counted, monkeypatch):
    write(place, "train", 60)
    write(place, "test", 40)
    score = fit._score

    def dies(tap, *args):
        if tap.test.key.tap == "narrow":
            raise Killed
        return score(tap, *args)

    monkeypatch.setattr(fit, "_score", dies)
    with pytest.raises(Killed):
        probe(place, JOB)
    assert store.list_probes(place.probes) == []
    monkeypatch.setattr(fit, "_score", score)
    (found,) = probe(place, JOB)
    assert counted == [60, 60]
    assert sorted(p.name for p in place.probes.iterdir()) == [found.name, "zarr.json"]
    (fresh,) = _elsewhere(place)
    np.testing.assert_array_equal(found.accuracy, fresh.accuracy)


def _elsewhere(place):
    """Probe the same in a new workspace."""
    other = Workspace.at(place.root / "other")
    (place.root / "other").mkdir()
    (place.root / "other" / "activations.zarr").symlink_to(place.activations)
    return probe(other, JOB)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        '{"wide": 1}',
        '{"wide": {"accuracy": 0.5}}',
        json.dumps({"wide": FINISHED | {"accuracy": "x"}}),
        json.dumps({"wide": FINISHED | {"train_accuracy": 1.5}}),
        json.dumps({"wide": FINISHED | {"class_accuracy": [0.5] * (CLASSES + 1)}}),
    ],
)
def test_a_damaged_draft_is_ignored(place, counted, content):
    write(place, "train", 60)
    write(place, "test", 40)
    (first,) = probe(place, JOB)
    (place.probes / f".{first.name}.partial").write_text(content)
    flip_bit(chunk_files(place.probes / first.name / "accuracy")[0])
    probe(place, JOB)
    assert len(counted) == 4


def test_a_draft_is_resumed_from(place, counted):
    write(place, "train", 60)
    write(place, "test", 40)
    (first,) = probe(place, JOB)
    shutil.rmtree(place.probes / first.name)
    (place.probes / f".{first.name}.partial").write_text(json.dumps({"wide": FINISHED}))
    (again,) = probe(place, JOB)
    assert len(counted) == 3
    assert again.accuracy.tolist() == [0.5, first.accuracy[1]]


def test_progress_counts_taps(place):
    for run in ("a", "b"):
        write(place, "train", 60, run)
        write(place, "test", 40, run)
    job, reports = Probing(Selection("*", "final"), penalties=(1e-2,)), []
    results = probe(place, job, lambda *each: reports.append(each))
    assert [result.taps[0].run for result in results] == ["a", "b"]
    assert reports == [
        (0, 4, "a@final: wide"),
        (1, 4, "a@final: narrow"),
        (2, 4, "a@final: done"),
        (2, 4, "b@final: wide"),
        (3, 4, "b@final: narrow"),
        (4, 4, "b@final: done"),
    ]


def test_single_taps_can_be_named(place, counted):
    write(place, "train", 60)
    write(place, "test", 40)
    (found,) = probe(place, Probing(Selection("net", "final", "nar*"), penalties=(1e-2,)))
    assert [key.tap for key in found.taps] == ["narrow"]
    assert len(counted) == 1


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_tap_that_is_not_finite_has_no_accuracy(place, split):
    def edit(tap, values):
        values[3, 1] = np.inf if tap == "narrow" else 0

    for each, n in (("train", 60), ("test", 40)):
        write(place, each, n, **({"edit": edit} if each == split else {}))
    (found,) = probe(place, JOB)
    assert np.isfinite(found.accuracy).tolist() == [True, False]
    assert np.isnan(found.penalties[1])
    assert np.isnan(found.class_accuracy[1]).all()
    assert found.n_features.tolist() == [128, 5]


def test_means_over_space_that_are_not_finite_are_counted_as_such(place):
    def edit(tap, values):
        values[3, 1] = np.inf

    write(place, "train", 60, edit=edit)
    write(place, "test", 40)
    (found,) = probe(place, replace(JOB, pool="mean"))
    assert np.isnan(found.accuracy).all()
    assert found.n_features.tolist() == [8, 5]


def refuse(place, text, job=JOB):
    with pytest.raises(ProbeError, match=text):
        probe(place, job)
    assert not place.probes.exists()


def test_nothing_stored_names_the_command(place):
    refuse(
        place,
        r"holds no activations of net@final; train a network first with `allcnn train .*`.*, and"
        r" again for the split test",
    )


@pytest.mark.parametrize(("there", "missing"), [("train", "test"), ("test", "train")])
def test_a_missing_split_of_an_import_is_to_be_imported(place, there, missing):
    write(place, there, 60)
    refuse(
        place,
        f"no activations of net@final of examples of the split {missing} .*; import its"
        f" activations on examples of the split {missing} ",
    )


def test_a_set_that_is_not_stored_is_named(place):
    write(place, "train", 60)
    write(place, "test", 40)
    refuse(place, "no activations of net@final on odd .*store ls", Probing(NET, train_set="odd"))


def test_unfinished_activations_name_the_command(place):
    write(place, "train", 60, n_committed=2)
    write(place, "test", 40)
    refuse(
        place,
        r"the activations of net@final on digits-train-60-01234567 are not all there; store it"
        r" again by the program that made it, or import its files again",
    )


def test_a_missing_tap_is_noticed(place):
    write(place, "train", 60, n_taps=3)
    write(place, "test", 40, n_taps=3)
    refuse(place, "the activations of net@final on digits-train-60-01234567 are not all there")


def test_grams_alone_do_not_do(workspace):
    run = "small-d1-v2-s0"
    for split, keep in (("train", "grams"), ("test", "activations")):
        job = Extraction(run, "final", split, n_samples=64, batch_size=32, keep=(keep,))
        extract(workspace, job)
    with pytest.raises(
        ProbeError,
        match=rf"activations of {run}@final on digits-train-64-.* are not stored, only their Grams;"
        rf" run `allcnn extract {run} --checkpoint final --split train --samples 64",
    ):
        probe(workspace, Probing(Selection(run, "final")))


def test_sets_that_share_examples_are_refused(place):
    for n in (60, 40):
        write(place, "test", n)
    names = {"train_set": "digits-test-60-01234567", "test_set": "digits-test-40-01234567"}
    refuse(
        place,
        "digits-test-40-01234567, for net@final, are both of the split test of digits, and share",
        Probing(NET, **names),
    )


def test_other_checkpoints_are_refused(place):
    write(place, "train", 60, digest="d0")
    write(place, "test", 40, digest="d1")
    refuse(place, "several checkpoints: d0 on digits-train.* and d1 on digits-test.*; store")


def import_both(place, **digests):
    """Import a network's taps on training and test examples, each with a digest, or with none."""
    for split, n in (("train", 60), ("test", 40)):
        labels = np.arange(n) % CLASSES
        taps = {"one": np.eye(CLASSES)[labels], "two": labels[:, None] + np.ones((n, 4))}
        examples = store.Examples.of("d", split, n, labels=labels)
        how = {"run": "net", "checkpoint": "final", "digest": digests.get(split)}
        store.write_network(place.activations, taps, examples=examples, **how)


@pytest.mark.parametrize(
    ("digests", "known_by"),
    [({}, "name"), ({"train": "w"}, "name"), ({"train": "w", "test": "w"}, "digest")],
    ids=str,
)
def test_imports_are_probed_and_say_by_what_they_are_known_as_one_network(place, digests, known_by):
    import_both(place, **digests)
    for pattern in ("net@final", "net@final:two"):
        (found,) = probe(place, Probing(Selection.parse(pattern), penalties=(1e-2,)))
        assert found.provenance["network_known_by"] == known_by


def test_imports_of_two_networks_are_refused(place):
    import_both(place, train="v", test="w")
    refuse(place, "several checkpoints: v on d-train.* and w on d-test.*; store those of different")


def test_other_shapes_are_refused(place):
    write(place, "train", 60)
    write(place, "test", 40, shapes=SHAPES | {"narrow": (6,)})
    refuse(place, r"tap narrow of net@final has the shape \(5,\) on .* and \(6,\) on")


@pytest.mark.parametrize("split", ["train", "test"])
def test_examples_without_labels_are_refused(place, split):
    for each in ("train", "test"):
        write(place, each, 60, labels=np.full(60, -1) if each == split else np.arange(60) % 2)
    refuse(place, f"examples of digits-{split}-60-01234567 have no labels")


def test_one_class_is_refused(place):
    write(place, "train", 60, labels=np.full(60, 4))
    write(place, "test", 60, labels=np.full(60, 4))
    refuse(place, "all 60 examples of .* have the label 4; a classifier needs two classes")


def test_labels_without_training_examples_are_refused(place):
    write(place, "train", 60, labels=np.arange(60) % 2)
    write(place, "test", 60, labels=np.arange(60) % 3)
    refuse(place, "has examples of label 2, and digits-train-60-01234567 has none to learn it from")


def test_too_few_examples_are_refused(place):
    write(place, "train", 8, labels=np.arange(8) % 2)
    write(place, "test", 8, labels=np.arange(8) % 2)
    refuse(place, "digits-train-8-01234567 has 8 examples and no class of 5; one in 5 is held out")


def test_more_examples_than_memory_are_refused(place, monkeypatch):
    write(place, "train", 60)
    write(place, "test", 40)
    monkeypatch.setattr(machine_memory, "host_bytes", lambda: 60 * 60 * 16 - 1)
    refuse(place, "training on the 60 examples of digits-train-60-01234567, for net@final, takes")


def test_features_that_are_few_need_no_room_for_a_gram_matrix(place, monkeypatch):
    write(place, "train", 200)
    write(place, "test", 40)
    monkeypatch.setattr(machine_memory, "host_bytes", lambda: 200 * 64 * 16)
    refuse(place, "training on the 200 examples of")
    (found,) = probe(place, replace(JOB, pool="mean"))
    assert found.n_features.tolist() == [8, 5]


@pytest.mark.parametrize(
    ("how", "text"),
    [
        ({"pool": "max"}, "pool is 'max'; use whole or mean"),
        ({"penalties": ()}, "penalties is []; name one value or more"),
        ({"penalties": (0.1, 0.1)}, "each once"),
        ({"penalties": (0.0,)}, "penalties is 0.0; use a number from"),
        ({"penalties": (float("nan"),)}, "penalties is nan; use a number from"),
        ({"train_set": "../x"}, "train-set '../x' is not a name"),
        ({"test_set": ""}, "test-set '' is not a name"),
    ],
)
def test_settings_have_bounds(how, text):
    with pytest.raises(ConfigError) as caught:
        Probing(NET, **how)
    assert text in str(caught.value)


def test_settings_are_json():
    assert json.loads(json.dumps(json_of(JOB)))["networks"] == "net@final"
