"""``allcnn figure``: every figure from what is stored, and one sentence for whatever goes wrong."""

import itertools
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import store
from allcnn.compare import compare
from allcnn.compare.catalogue import Catalogue
from allcnn.compare.current import checkpoint_digest
from allcnn.drawing import film as films
from allcnn.errors import ComparisonError, ConfigError, RunError
from allcnn.extract import each_checkpoint, extract
from allcnn.settings.extraction import Extraction
from allcnn.settings.run import RunConfig
from allcnn.settings.selection import Selection
from allcnn.similarity.layer_identification import identify
from allcnn.workspace import run_record
from allcnn.workspace.paths import Workspace
from flows.figures import networks as many
from flows.figures import pairs, training
from flows.figures import results as sources
from flows.figures.results import Sources
from flows.figures.style import Drawn, Look, parse_files, speaking_name, write
from flows.settings.pipeline_plan import stages
from tests.commands import run, succeed
from tests.faults import relabel
from tests.networks import comparison, make_taps, methods, write_network
from tests.reports import keys, probe_of, write_probe, write_result, write_run
from tests.sweeps import sweep

D1, D2 = "small-d1-v2-s0", "small-d2-v2-s0"
FINAL, DEEP, INIT = (Selection(D1, "final"), Selection(D2, "final"), Selection(D1, "init"))
ALL = Selection(D1, "*")
BATCH = 16


def of(place, sample_set=None, **flat) -> Sources:
    """Return the sources of figures in a workspace, by default in minibatches of ours."""
    return Sources(place, methods(**{"batch_size": BATCH} | flat), sample_set)


BY = ["--batch-size", BATCH]
DEAD = ["--cluster", "tcp://127.0.0.1:9"]
LOOK = Look()
TAPS = [*(f"conv{k}" for k in range(1, 10)), "logits"]


@pytest.fixture(scope="module")
def stored(trained, tmp_path_factory):
    """Return a workspace of two runs with activations, and one result: all checkpoints of one."""
    workspace = Workspace.at(tmp_path_factory.mktemp("stored") / "workspace")
    shutil.copytree(trained.root, workspace.root)
    jobs = each_checkpoint(workspace, Extraction(D1, "all", n_samples=64, batch_size=BATCH))
    for job in [*jobs, Extraction(D2, "final", n_samples=64, batch_size=BATCH)]:
        extract(workspace, job)
    compare(workspace, comparison(ALL, ALL, batch_size=BATCH))
    return workspace


@pytest.fixture
def place(stored, tmp_path):
    """Return a copy of it, to write into."""
    shutil.copytree(stored.root, tmp_path / "workspace")
    return Workspace.at(tmp_path / "workspace")


@pytest.fixture(scope="module")
def undrawn(stored, tmp_path_factory):
    """Return a copy of it in which no figure is ever drawn."""
    root = tmp_path_factory.mktemp("undrawn") / "workspace"
    return Workspace.at(shutil.copytree(stored.root, root))


@pytest.fixture
def bare(place):
    """Return it without activations, Grams and runs: results are all that is left."""
    for name in ("activations.zarr", "grams.zarr", "runs"):
        shutil.rmtree(place.root / name, ignore_errors=True)
    return place


@pytest.fixture
def no_work(monkeypatch):
    """Let nothing be computed."""
    monkeypatch.setattr(sources, "compare", None)


def whole(workspace):
    """Return the result that is stored of all checkpoints."""
    (name,) = [n for n in store.list_results(workspace.similarity) if n.startswith(f"{D1}_x-lin")]
    return store.read_result(workspace.similarity, name)


def block(result, rows, columns):
    """Return CKA between two networks of a result, found key by key."""
    return np.array(
        [
            [
                result.cka[i, j]
                for j, b in enumerate(result.columns)
                if (b.run, b.checkpoint) == (columns.run, columns.checkpoint)
            ]
            for i, a in enumerate(result.rows)
            if (a.run, a.checkpoint) == (rows.run, rows.checkpoint)
        ]
    )


def maps(drawn):
    return [axes for axes in drawn.picture.axes if axes.images]


def values(axes):
    return np.ma.filled(axes.images[0].get_array().astype(float), np.nan)


def words(drawn):
    return [text.get_text().replace("\n", " ") for text in drawn.picture.texts]


# what is drawn


def test_a_matrix_is_a_block_of_what_is_stored(bare, no_work):
    drawn = pairs.draw_matrix(of(bare), LOOK, rows=FINAL, columns=INIT)
    (axes,) = maps(drawn)
    np.testing.assert_array_equal(values(axes), block(whole(bare), FINAL, INIT))
    assert axes.get_title().replace("\n", " ") == (
        "linear CKA, unbiased, 64 examples in minibatches of 16"
    )
    assert (axes.get_ylabel(), axes.get_xlabel()) == (f"{D1}@final", f"{D1}@init")


def test_what_is_not_stored_is_computed_and_kept(place):
    first = pairs.draw_matrix(of(place), LOOK, rows=FINAL, columns=DEEP)
    assert values(maps(first)[0]).shape == (10, 17)
    (name,) = set(store.list_results(place.similarity)) - {whole(place).name}
    for other in ("activations", "grams"):
        shutil.rmtree(place.root / f"{other}.zarr")
    again = pairs.draw_matrix(of(place), LOOK, rows=FINAL, columns=DEEP)
    np.testing.assert_array_equal(values(maps(again)[0]), values(maps(first)[0]))
    result = store.read_result(place.similarity, name)
    np.testing.assert_array_equal(values(maps(again)[0]), result.cka)


def test_results_of_another_checkpoint_of_that_name_are_not_drawn(place):
    result, job = whole(place), of(place).job(FINAL, INIT)
    digests = {side: dict(each) for side, each in result.provenance["checkpoint_digests"].items()}
    for each in digests.values():
        each[f"{D1}@init"] = "5eed"
    changed = result.provenance | {"checkpoint_digests": digests}
    store.write_result(place.similarity, replace(result, provenance=changed))
    assert Catalogue(place).results(job) is None
    assert Catalogue(place).results(of(place).job(FINAL, FINAL)) is not None
    # Gone, the checkpoint tells nothing; but what is stored of it does, and then when it was begun.
    shutil.rmtree(place.find_checkpoint(D1, "init"))
    assert Catalogue(place).results(job) is None
    for name in ("activations.zarr", "grams.zarr"):
        shutil.rmtree(place.root / name, ignore_errors=True)
    assert Catalogue(place).results(job) is not None
    begin_again(place)
    assert Catalogue(place).results(job) is None


def test_layers_are_numbered_and_titled_as_asked(place, no_work):
    look = Look("column", "numbers", "my title")
    drawn = pairs.draw_matrix(of(place), look, rows=FINAL)
    (axes,) = maps(drawn)
    assert [label.get_text() for label in axes.get_yticklabels()][-1] == "L10"
    assert axes.get_title() == "my title"
    assert drawn.picture.get_figwidth() == pytest.approx(3.3)
    untitled = pairs.draw_matrix(of(place), Look(title=""), rows=FINAL)
    assert maps(untitled)[0].get_title() == ""


def test_standard_errors_are_those_of_the_block(bare, no_work):
    drawn = pairs.draw_errors(of(bare), LOOK, rows=FINAL, columns=INIT)
    result = whole(bare)
    rows = [k for k, key in enumerate(result.rows) if key.checkpoint == "final"]
    columns = [k for k, key in enumerate(result.columns) if key.checkpoint == "init"]
    wanted = result.errors[np.ix_(rows, columns)]
    np.testing.assert_array_equal(values(maps(drawn)[0]), wanted)


def test_a_convergence_ends_at_the_stored_values(bare, no_work):
    drawn = pairs.draw_convergence(of(bare), LOOK, rows=FINAL, columns=INIT)
    matrix = block(whole(bare), FINAL, INIT)
    lines = [line for line in drawn.picture.axes[0].lines if len(line.get_xdata()) == 4]
    ends = [line.get_ydata()[-1] for line in lines]
    np.testing.assert_allclose(ends, np.diag(matrix), rtol=1e-12)


def test_stages_are_the_final_network_against_each(bare, no_work):
    drawn = training.draw_stages(of(bare), LOOK, D1, ())
    names = ["init", "epoch-0001", "final"]
    assert [axes.get_title() for axes in maps(drawn)] == ["epoch 0", "epoch 1", "final"]
    for axes, name in zip(maps(drawn), names, strict=True):
        wanted = block(whole(bare), FINAL, Selection(D1, name))
        np.testing.assert_array_equal(values(axes), wanted)


def test_stages_tell_epoch_and_accuracy_where_the_run_is_there(place, no_work):
    drawn = training.draw_stages(of(place), LOOK, D1, ("epoch-0001", "final"))
    history = run_record.read_history(place, D1)
    assert [axes.get_title() for axes in maps(drawn)] == [
        f"epoch {k} ({row.test_accuracy:.1%})" for k, row in enumerate(history, start=1)
    ]


def test_the_stages_drawn_are_those_of_a_pipeline(tmp_path, monkeypatch):
    config, chosen = RunConfig.of(epochs=350), []
    names = ["init", *(f"epoch-{epoch:04d}" for epoch in range(5, 350, 5)), "final"]
    monkeypatch.setattr(training, "_checkpoints", lambda *_: names)

    def against(sources, run, names):
        chosen.extend(names)
        raise ComparisonError("no more is asked")

    monkeypatch.setattr(training, "_against", against)
    with pytest.raises(ComparisonError, match="no more is asked"):
        training.draw_stages(of(Workspace.at(tmp_path)), LOOK, config.name, ())
    assert chosen == stages(config)


def test_a_film_has_all_checkpoints(place, no_work, tmp_path):
    drawn = training.draw_animation(of(place), LOOK, D1)
    history = run_record.read_history(place, D1)
    titles = [
        f"epoch {k} · test accuracy {row.test_accuracy:.1%}" for k, row in enumerate(history, 1)
    ]
    assert [panel.title for panel in drawn.picture.panels] == ["epoch 0", *titles]
    for panel, name in zip(drawn.picture.panels, ("init", "epoch-0001", "final"), strict=True):
        wanted = block(whole(place), FINAL, Selection(D1, name))
        np.testing.assert_array_equal(panel.matrix, wanted)


def test_checkpoints_of_other_taps_make_no_film(tmp_path):
    workspace = Workspace.at(tmp_path / "workspace")
    for seed, (checkpoint, names) in enumerate((("init", ("one", "three")), ("final", ("one",)))):
        taps = make_taps(seed, names=names)
        write_network(workspace.activations, Selection("a", checkpoint), taps)
    result = run("figure", "animation", "a", *BY, workspace=workspace)
    assert result.exit_code == 1
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert "a@init has the taps one, three and a@final one" in line


def test_checkpoints_that_are_not_stored_are_told(place):
    shutil.rmtree(place.activations / whole(place).rows[0].sample_set / D2)
    result = run("figure", "stages", D2, *BY, workspace=place)
    assert result.exit_code == 1
    assert result.stderr == (
        f"Error: nothing is stored of {D2}@final in {place.root}; run `allcnn extract {D2}"
        f" --checkpoint final --workspace {place.root}`\n"
    )
    sample_set = whole(place).rows[0].sample_set
    shutil.rmtree(place.activations / sample_set / D1 / "init")
    shutil.rmtree(place.grams)
    for name in store.list_results(place.similarity):
        shutil.rmtree(place.similarity / name)
    result = run("figure", "animation", D1, *BY, workspace=place)
    assert result.exit_code == 0, result.output
    assert f"not stored, and left out: init; `allcnn extract {D1} --checkpoint all" in result.stderr
    with Image.open(result.stdout.strip()) as picture:
        assert picture.n_frames == 2


def test_seeds_are_averaged_over_all_pairs(bare, no_work):
    drawn = many.draw_seeds(of(bare), LOOK, ALL)
    result = whole(bare)
    networks = [Selection(D1, name) for name in ("init", "epoch-0001", "final")]
    blocks = [
        (block(result, a, b) + block(result, b, a)) / 2
        for a, b in itertools.combinations(networks, 2)
    ]
    mean, deviation = maps(drawn)
    for i, j in itertools.product(range(10), range(10)):
        entries = [each[i, j] for each in blocks]
        middle = sum(entries) / 3
        spread = (sum((x - middle) ** 2 for x in entries) / 2) ** 0.5
        assert values(mean)[i, j] == pytest.approx(middle, rel=1e-12)
        assert values(deviation)[i, j] == pytest.approx(spread, rel=1e-9, abs=1e-12)
    assert mean.get_title() == "mean of 3 pairs"
    assert words(drawn)[0].startswith(f"3 networks {D1}@*: linear CKA")


def test_two_networks_are_drawn_without_a_spread(bare, no_work):
    drawn = many.draw_seeds(of(bare), LOOK, Selection(D1, "[!e]*"))
    (mean,) = maps(drawn)
    one = block(whole(bare), FINAL, INIT)
    np.testing.assert_allclose(values(mean), (one + one.T) / 2, rtol=1e-12)
    assert mean.get_title() == "one pair, which has no spread"


def test_one_network_has_no_pairs(bare, no_work):
    with pytest.raises(ComparisonError, match="there are 1 networks"):
        many.draw_seeds(of(bare), LOOK, FINAL)


def test_depths_stand_side_by_side_with_the_probes_there_are(place, monkeypatch):
    probe = probe_on(FINAL, whole(place).rows[0].sample_set)
    monkeypatch.setattr(many, "stored_probes", lambda workspace: [probe])
    drawn = many.draw_depths(of(place), LOOK, [FINAL, DEEP])
    first, second = maps(drawn)
    np.testing.assert_array_equal(values(first), block(whole(place), FINAL, FINAL))
    assert values(second).shape == (17, 17)
    assert [axes.get_title().replace("\n", " ") for axes in (first, second)] == [
        f"{D1}@final",
        f"{D2}@final",
    ]
    below = [a for a in drawn.picture.axes if not a.images and not hasattr(a, "_colorbar")]
    line = below[0].containers[0].lines[0]
    np.testing.assert_allclose(line.get_ydata(), 100 * probe.accuracy)
    assert [text.get_text() for text in below[1].texts] == ["no probes"]


def probe_on(network: Selection, sample_set: str, created_at: str = "2026-01-01"):
    taps = keys(network.run, (network.checkpoint,), sample_set=sample_set)
    accuracy = np.linspace(0.3, 0.9, 10) + 0.01 * len(created_at) / 10
    return probe_of(
        "probe", taps, accuracy=accuracy, provenance={"created_at": f"{created_at}T00:00:00+00:00"}
    )


def test_probes_that_are_read_are_of_networks_as_they_are_now(place):
    taps = keys(D1)
    now = checkpoint_digest(place, FINAL)
    write_probe(
        place, "old", taps, digest=now, provenance={"created_at": "2026-01-01T00:00:00+00:00"}
    )
    write_probe(place, "new", taps, digest=now)
    write_probe(place, "before", taps, digest="sha256:another")
    shutil.copytree(place.probes / "new", place.probes / "damaged")
    assert [probe.name for probe in many.stored_probes(place)] == ["new", "old"]
    (path,) = succeed("figure", "probes", f"{D1}@final", workspace=place).splitlines()
    assert Path(path).is_file()


def test_probes_are_drawn_of_each_network(place, monkeypatch):
    probes = [probe_on(FINAL, "one"), probe_on(INIT, "one")]
    monkeypatch.setattr(many, "stored_probes", lambda workspace: probes)
    drawn = many.draw_probes(of(place), LOOK, [FINAL, INIT])
    (axes,) = drawn.picture.axes
    assert len(axes.containers) == 2
    legend = [text.get_text() for text in drawn.picture.legends[0].get_texts()]
    assert legend == [f"{D1}@final", f"{D1}@init"]
    with pytest.raises(RunError, match=f"no probes of {D2}@final are stored"):
        many.draw_probes(of(place), LOOK, [DEEP])


def test_probes_of_all_layers_come_before_those_of_some():
    every = probe_on(FINAL, "one")
    some = probe_of("some", every.taps[2:3], provenance={"created_at": "2027-01-01T00:00:00+00:00"})
    assert many.accuracies([some, every], FINAL).names == TAPS
    assert many.accuracies([some], FINAL).names == TAPS[2:3]


@pytest.mark.parametrize("draw", [pairs.draw_errors, pairs.draw_convergence, pairs.draw_matrix])
def test_layers_of_a_part_of_a_network_have_no_numbers(tmp_path, draw):
    some = replace(FINAL, tap="conv[3-5]")
    with pytest.raises(
        ConfigError, match=r"names is numbers, and .*:conv\[3-5\] leaves out layers"
    ):
        draw(of(Workspace.at(tmp_path)), Look(names="numbers"), rows=FINAL, columns=some)
    with pytest.raises(ConfigError, match="leaves out layers"):
        many.draw_seeds(of(Workspace.at(tmp_path)), Look(names="numbers"), some)


def test_probes_of_means_over_space_are_drawn_as_such(tmp_path, monkeypatch):
    place = Workspace.at(tmp_path)
    probes = [replace(probe_on(FINAL, "one"), pool="mean"), probe_on(INIT, "one")]
    monkeypatch.setattr(many, "stored_probes", lambda workspace: probes)
    drawn = many.draw_probes(of(place), LOOK, [FINAL, INIT])
    legend = [text.get_text() for text in drawn.picture.legends[0].get_texts()]
    assert legend == [f"{D1}@final, mean over space", f"{D1}@init"]


def test_probes_of_the_same_examples_come_first():
    old, new = probe_on(FINAL, "same", "2026-01-01"), probe_on(FINAL, "other", "2026-01-02")
    newest_first = [new, old]
    assert many.accuracies(newest_first, FINAL).accuracy[0] == new.accuracy[0]
    found = many.accuracies(newest_first, FINAL, sample_set="same")
    assert found.accuracy[0] == old.accuracy[0]
    pooled = replace(new, pool="mean")
    assert many.accuracies([pooled, old], FINAL, pool="whole").accuracy[0] == old.accuracy[0]
    assert many.accuracies([old, pooled], FINAL, pool="mean").accuracy[0] == pooled.accuracy[0]
    assert many.accuracies([pooled], FINAL, pool="whole") is None
    assert many.accuracies(newest_first, FINAL, taps=TAPS[1:]) is None
    assert many.accuracies(newest_first, INIT) is None


def test_classes_are_averaged_and_spread(place):
    shutil.rmtree(place.root / "runs")
    drawn = many.draw_classes(of(place), LOOK, FINAL, FINAL)
    job = of(place).job(FINAL, FINAL, label="each")
    results = {result.label: result.cka for result in compare(place, job)}
    *singles, mean, together, spread = maps(drawn)
    assert [axes.get_title() for axes in singles] == [f"class {k}" for k in results]
    for axes, wanted in zip(singles, results.values(), strict=True):
        np.testing.assert_array_equal(values(axes), wanted)
    np.testing.assert_array_equal(values(together), block(whole(place), FINAL, FINAL))
    for i, j in itertools.product(range(10), range(10)):
        there = [x[i, j] for x in results.values() if np.isfinite(x[i, j])]
        middle = sum(there) / len(there) if there else np.nan
        np.testing.assert_allclose(values(mean)[i, j], middle, rtol=1e-12)
        if len(there) > 1:
            wanted = (sum((x - middle) ** 2 for x in there) / (len(there) - 1)) ** 0.5
            np.testing.assert_allclose(values(spread)[i, j], wanted, rtol=1e-9, atol=1e-12)
        else:
            assert np.isnan(values(spread)[i, j])
    # The same from results alone.
    for name in ("activations.zarr", "grams.zarr"):
        shutil.rmtree(place.root / name)
    again = many.draw_classes(of(place), LOOK, FINAL, FINAL)
    np.testing.assert_array_equal(values(maps(again)[-1]), values(spread))


def test_one_stored_class_does_not_stand_for_all(tmp_path):
    place, some = Workspace.at(tmp_path / "workspace"), Selection("a", "final")
    write_network(place.activations, some, make_taps(), labels=np.arange(66) % 3)
    compare(place, of(place).job(some, some, label=1))
    drawn = many.draw_classes(of(place), LOOK, some, some)
    titles = [axes.get_title() for axes in maps(drawn)[:-3]]
    assert titles == ["class 0", "class 1", "class 2"]


def test_classes_have_their_names_where_the_run_is_there(place):
    drawn = many.draw_classes(of(place), LOOK, FINAL, FINAL)
    names = run_record.read_record(place, D1).class_names
    assert [axes.get_title() for axes in maps(drawn)[:-3]] == list(names)


def test_layers_found_stand_alone_unless_they_are_those_of_the_published(place, monkeypatch):
    drawing = of(place, kernel="rbf", sigma=(0.2, 0.4, 0.8))
    drawn = many.draw_layers(drawing, LOOK, ALL, ["logits"])
    (axes,) = drawn.picture.axes
    (ours,) = axes.containers
    networks = [f"{key.run}@{key.checkpoint}" for key in whole(place).rows]
    taps = [key.tap for key in whole(place).rows]
    found = identify(whole(place).cka, networks, taps)
    assert ours[0].get_height() == pytest.approx(100 * found.accuracy)
    hsic = identify(whole(place).sums(), networks, taps)
    assert ours[-1].get_height() == pytest.approx(100 * hsic.accuracy)
    assert axes.lines[0].get_ydata()[0] == pytest.approx(100 / 9)
    legend = [text.get_text() for text in drawn.picture.legends[0].get_texts()]
    assert legend == ["here", "chance"]
    monkeypatch.setattr(many, "_is_table_2", lambda *_: True)
    drawn = many.draw_layers(drawing, LOOK, ALL, ["logits"])
    _, theirs = drawn.picture.axes[0].containers
    published = [bar.get_height() for bar in theirs]
    np.testing.assert_allclose(published, [99.3, 80.6, 99.1, 99.3, 22.2])
    legend = [text.get_text() for text in drawn.picture.legends[0].get_texts()]
    assert legend[1] == "published: Kornblith et al. 2019, Table 2"
    with pytest.raises(ComparisonError, match="networks of one architecture"):
        many.draw_layers(drawing, LOOK, Selection("*", "final"), ["logits"])


TINY = {"architecture": "tiny", "dataset": "cifar10", "image_size": 32, "width": 1.0}


@pytest.mark.parametrize(
    ("changes", "case", "wanted"),
    [
        ({}, {}, True),
        ({"epochs": 10, "learning_rate": 0.2, "prefix": "mine"}, {}, True),
        ({"dataset": "digits"}, {}, False),
        ({"image_size": 16}, {}, False),
        ({"width": 0.5}, {}, False),
        ({"architecture": "plain"}, {}, False),
        ({}, {"checkpoint": "init"}, False),
        ({}, {"exclude": []}, False),
        ({}, {"exclude": ["logits", "conv2"]}, False),
        ({}, {"exclude": ["logits", "nothing"]}, True),
        ({}, {"taps": ["conv1", "conv2"]}, False),
        ({}, {"pool": "mean"}, False),
        ({}, {"imported": True}, False),
    ],
)
def test_the_published_numbers_are_of_tiny_10_alone(tmp_path, changes, case, wanted):
    place = Workspace.at(tmp_path)
    configs = [RunConfig.of(**TINY), RunConfig.of(**TINY | changes, seed=1)]
    for config in configs[: 1 if case.get("imported") else 2]:
        write_run(place, config)
    taps = case.get("taps", ["conv1", "conv2", "logits"])
    both = [
        key
        for config in configs
        for key in keys(config.name, (case.get("checkpoint", "final"),), taps=taps)
    ]
    result = write_result(place, "both", both, both)
    drawing = of(place, pool=case.get("pool", "whole"))
    found = many._is_table_2(drawing, result, case.get("exclude", ["logits"]))
    assert found is wanted


def test_invariance_is_told_with_its_deviation(place):
    drawn = many.draw_invariance(of(place), LOOK, FINAL, 48)
    plain, *others = maps(drawn)
    titles = [axes.get_title().replace("\n", " ") for axes in others]
    assert [title.split(": ")[0] for title in titles] == [
        "neurons permuted",
        "scaled by 7",
        "rotated",
        "stretched (control)",
    ]
    *same, control = [float(title.split(": ")[1]) for title in titles]
    assert max(same) < 1e-4
    assert control > 0.05
    for axes, told in zip(others, [*same, control], strict=True):
        largest = np.nanmax(np.abs(values(axes) - values(plain)))
        assert told == pytest.approx(largest, rel=0.05)
    assert "48 examples" in words(drawn)[0]


def begin_again(place):
    """Let a run be begun after all that is stored of it."""
    entry = run_record.read_record(place, D1)
    run_record.write_record(place, replace(entry, created_at="2999-01-01T00:00:00+00:00"))


def test_invariance_of_what_an_earlier_run_left_is_refused(place):
    """As a comparison and a probe of it are."""
    begin_again(place)
    many.draw_invariance(of(place), LOOK, FINAL, 8)  # it came to the same checkpoint again
    shutil.rmtree(place.find_checkpoint(D1, "final"))
    copied = shutil.copytree(
        place.find_checkpoint(D1, "init"), place.checkpoints_folder(D1) / "final"
    )
    relabel(copied)
    result = run("figure", "invariance", FINAL, "--samples", "32", workspace=place)
    assert (result.exit_code, len(result.stderr.splitlines())) == (1, 1)
    assert "its checkpoint is another one, so that this is of an earlier run" in result.stderr
    assert f"remove it with `allcnn store rm {FINAL} --sample-set " in result.stderr


def test_several_sample_sets_are_not_mixed(place):
    other = extract(place, Extraction(D2, "final", n_samples=32, batch_size=BATCH))
    shutil.rmtree(place.activations / whole(place).rows[0].sample_set / D2)
    with pytest.raises(ComparisonError, match="of several sample sets") as error:
        many.draw_depths(of(place), LOOK, [FINAL, DEEP])
    assert other in str(error.value)


# the command line

COMMANDS = {
    "curves": [D1, D2],
    "matrix": [f"{D1}@final", f"{D1}@init", "--errors", *BY],
    "stages": [D1, *BY],
    "animation": [D1, *BY],
    "depths": [f"{D1}@final", f"{D1}@init", *BY],
    "seeds": [f"{D1}@*", *BY],
    "errors": [f"{D1}@final", *BY],
    "convergence": [f"{D1}@final", *BY],
    "invariance": [f"{D1}@final", "--samples", "32"],
}


@pytest.mark.parametrize(
    "command", sweep(COMMANDS, always=lambda name: name in ("matrix", "animation", "convergence"))
)
def test_every_command_prints_the_files_it_wrote(place, no_work, command, tmp_path):
    suffix = ".gif" if command == "animation" else ".png"
    (printed,) = succeed("figure", command, *COMMANDS[command], workspace=place).splitlines()
    assert Path(printed).parent == place.figures
    assert Path(printed).name.startswith(f"{command}-{D1}")
    assert Path(printed).suffix == suffix
    with Image.open(printed) as picture:
        assert min(picture.size) > 100
    kinds = [".gif"] if command == "animation" else [".png", ".pdf", ".svg"]
    named = [tmp_path / f"own{kind}" for kind in kinds]
    to = [word for path in named for word in ("--to", path)]
    names = [] if command in ("curves", "layers") else ["--names", "numbers"]
    look = ["--for", "column", *names, "--title", "mine", *to]
    out = succeed("figure", command, *COMMANDS[command], *look, workspace=place)
    assert out.splitlines() == list(map(str, named))
    before = [path.read_bytes() for path in named]
    assert all(before)
    if command in ("matrix", "animation"):
        succeed("figure", command, *COMMANDS[command], *look, workspace=place)
        assert [path.read_bytes() for path in named] == before


@pytest.mark.parametrize(
    ("arguments", "status", "sentence"),
    [
        (["matrix", "nobody@final"], 1, "holds no activations or Grams of nobody@final"),
        (["matrix", "nobody"], 2, "'nobody' names no network; write RUN@CHECKPOINT"),
        (["stages", "nobody"], 1, "nothing is stored of nobody@final"),
        (["stages", D1, "--checkpoints", "init,,final"], 2, "write names, as in init,epoch-0005"),
        (["stages", D1, "--checkpoints", "../x", *BY], 2, "checkpoint '../x' is not a name"),
        (["stages", D1, "--checkpoints", "epoch-0007", *BY], 1, f"of {D1}@epoch-0007"),
        (["animation", "nobody"], 1, "nothing is stored of nobody@final"),
        (["animation", "../x"], 2, "run '../x' is not a name"),
        (["depths", f"{D1}@*"], 2, f"'{D1}@*' is a pattern; name one RUN@CHECKPOINT"),
        (["curves", "nobody"], 1, "no run in"),
        (["probes", f"{D1}@final"], 1, f"no probes of {D1}@final are stored"),
        (["invariance", "nobody@final"], 1, "no activations of nobody@final are stored"),
        (["invariance", f"{D1}@final", "--samples", "3"], 2, "samples is 3; HSIC needs 4"),
        (["matrix", f"{D1}@final", "--to", "a.txt"], 2, "use a name in .png, .pdf, .svg"),
        (["matrix", f"{D1}@final", "--to", "a.gif"], 2, "use a name in .png, .pdf, .svg"),
        (["animation", D1, "--to", "a.png"], 2, "to is a.png; use a name in .gif, .mp4"),
        (["matrix", f"{D1}@final", "--to", "s3://b/a.png"], 2, "is an address; give a local file"),
        (["matrix", f"{D1}@final", "--to", "nowhere/a.png"], 2, "nowhere is no folder; make it"),
        (["matrix", f"{D1}@final", "--kernel", "rbf", "--sigma", "1,2"], 2, "a figure shows one"),
        (["matrix", f"{D1}@final", "--batch-size", "3"], 2, "batch-size is 3; use 4 or more"),
        (["errors", f"{D1}@final", "--estimator", "exact"], 1, "the jackknife needs minibatches"),
        (["matrix", f"{D1}@final", *DEAD], 1, "answers at tcp://127.0.0.1:9"),
        (["seeds", f"{D1}@*", *BY, *DEAD], 1, "answers at tcp://127.0.0.1:9"),
        (["stages", D1, *BY, "--cluster", "mine:none"], 2, "cannot be imported"),
        (["layers", f"{D1}@*", *BY, "--exclude", "x"], 2, "no network here has such a tap"),
        (["convergence", f"{D1}@final", "--estimator", "exact"], 1, "is of a single batch"),
        (["seeds", "nobody*@final"], 1, "holds no activations or Grams of nobody*@final"),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, list) else "",
)
def test_what_goes_wrong_is_one_sentence(undrawn, arguments, status, sentence):
    result = run("figure", *arguments, workspace=undrawn)
    assert result.exit_code == status, result.output
    assert len([line for line in result.stderr.splitlines() if line.startswith("Error: ")]) == 1
    assert sentence in result.stderr
    assert "Traceback" not in result.output
    assert not undrawn.figures.exists()


def test_where_nothing_can_be_written_is_one_sentence(place, tmp_path):
    folder = tmp_path / "folder.png"
    folder.mkdir()
    result = run("figure", "matrix", f"{D1}@final", *BY, "--to", folder, workspace=place)
    assert (result.exit_code, "which is a folder; name a file" in result.stderr) == (2, True)
    result = run("figure", "matrix", f"{D1}@final", *BY, "--to", "/proc/a.png", workspace=place)
    assert result.exit_code in (1, 2)
    assert "Error: " in result.stderr
    assert "/proc" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_without_ffmpeg_an_mp4_is_refused_before_any_work(place, no_work, monkeypatch):
    monkeypatch.setattr(films.shutil, "which", lambda name: None)
    result = run("figure", "animation", D1, *BY, "--to", "film.mp4", workspace=place)
    assert (result.exit_code, result.stderr) == (
        2,
        "Error: to is film.mp4, and there is no ffmpeg to write it; install ffmpeg, or name a"
        " .gif\n",
    )


def test_files_speak_of_what_they_show():
    assert speaking_name("matrix", "a@final", "a@final", "rbf0.4", "") == "matrix-a_final-rbf0.4"
    some = [speaking_name("seeds", f"tiny-[0-9]{c}@final", "ä/b") for c in "*?"]
    assert all(re.fullmatch("seeds-tiny-x0-9xx_final-xxb-[0-9a-f]{8}", name) for name in some)
    assert some[0] != some[1]
    with pytest.raises(ConfigError, match=r"use a name in \.png, \.pdf, \.svg"):
        parse_files(["a"])


def test_figures_of_other_minibatches_or_examples_have_names_of_their_own(tmp_path):
    jobs = [
        of(Workspace.at(tmp_path), **how).job(FINAL)
        for how in ({"batch_size": 256}, {}, {"batch_size": 256, "sample_set": "a"})
    ]
    names = {speaking_name("matrix", *pairs.words_of(job)) for job in jobs}
    assert names == {f"matrix-{D1}_final-linear{end}" for end in ("", "-batch16", "-a")}


def test_long_names_are_told_apart(tmp_path):
    workspace = Workspace.at(tmp_path)
    panel = many.Panel(np.zeros((1, 1)), ["a"], ["b"])
    figure = pairs.matrices.matrix(panel)
    drawn = [Drawn(figure, ("depths", f"{'x' * 300}{end}")) for end in "ab"]
    paths = [write(workspace, each, (), LOOK)[0] for each in drawn]
    assert len({path.name for path in paths}) == 2
    assert all(len(path.name) < 200 for path in paths)


def test_help_needs_no_picture_library():
    code = (
        "import sys; from click.testing import CliRunner; from flows.cli.main import main;"
        "r = CliRunner().invoke(main, ['figure', 'matrix', '--help']); assert r.exit_code == 0;"
        "assert not {'jax', 'matplotlib', 'dask', 'zarr'} & set(sys.modules), 'slow'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
