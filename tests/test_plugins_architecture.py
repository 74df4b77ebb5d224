"""Architectures as objects: what all have in common, and one of another package by every way in."""

import json
import shutil
import sys
from dataclasses import replace

import jax
import jsonschema
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

import store
from allcnn.definitions.fields import settings_of
from allcnn.errors import ConfigError
from allcnn.networks.architectures import ARCHITECTURES, AllCnnC, Plain, Tiny10, WidthN
from allcnn.networks.variables import abstract, n_outputs, parameter_bytes
from allcnn.settings.run import RunConfig
from allcnn.training import loop
from allcnn.workspace import checkpoints, run_record, sealed_json
from allcnn.workspace.paths import Workspace, kept_digests
from allcnn.workspace.run_record import RunRecord
from flows.cli.local_pipeline import run_pipeline
from flows.settings.parameters import PipelineParameters, TrainParameters
from tests.commands import contents, run, succeed
from tests.plugins.perceptron import Perceptron
from tests.plugins.powers import Powers
from tests.sweeps import every

MLP, POWERS = "tests.plugins.perceptron:Perceptron", "tests.plugins.powers:Powers"
RUN = "allcnn-mlp24-s0"
DATA = ["--image-size", "12", "--batch-size", "64", "--checkpoint-every", "1"]
TRAIN = ["train", "--architecture", MLP, "--hidden", "24", "--epochs", "3", *DATA]
EPOCHS = ["init", "epoch-0001", "epoch-0002", "final"]
MOST = {"depth": 3, "width": 0.2, "channels": 100, "hidden": 64}


# All architectures


def some(kind):
    """Draw an architecture with small settings."""
    drawn = {}
    for name, each in settings_of(kind).items():
        if each.choices:
            drawn[name] = st.sampled_from(each.choices)
        elif each.kind is int:
            drawn[name] = st.integers(each.bounds.least, MOST[name])
        else:
            drawn[name] = st.floats(0.02, MOST[name])
    return st.builds(kind, **drawn)


KINDS = [*map(ARCHITECTURES.find, ARCHITECTURES.names), *map(ARCHITECTURES.find, (MLP, POWERS))]
ANY = st.sampled_from(KINDS).flatmap(some)
SMALL = [AllCnnC(2, "v1", 0.02), Plain(2, 0.02), Tiny10(0.1), WidthN(8, 0.5), Perceptron(9)]


@settings(derandomize=True, max_examples=200, deadline=None)
@given(ANY, ANY)
def test_labels_differ_where_settings_do(one, other):
    # Published names say nothing of the width, which the check of a run's settings tells apart.
    first, second = (
        replace(each, width=1.0) if hasattr(each, "width") else each for each in (one, other)
    )
    assert (first.label == second.label) == (first == second)
    assert len({first, second}) == 1 + (first != second)


@settings(derandomize=True, max_examples=100, deadline=None)
@given(ANY)
def test_settings_come_back_from_json(architecture):
    config = RunConfig(architecture=architecture)
    values = json.loads(json.dumps(config.to_json()))
    assert RunConfig.from_json(values) == config == RunConfig.of(**values)
    assert values["architecture"] == architecture.reference
    assert config.but(seed=3).architecture == architecture


@settings(derandomize=True, max_examples=15, deadline=None)
@given(ANY, st.sampled_from([(10, 3, 32), (3, 1, 12)]))
def test_a_network_has_the_taps_and_the_size_that_it_says(architecture, data):
    n_classes, input_channels, image_size = data
    network = architecture.network(n_classes, input_channels, image_size)
    assert network == architecture.network(n_classes, input_channels, image_size)
    assert len(set(network.taps)) == len(network.taps)
    assert network.taps[-1] == "logits"
    shape = (5, image_size, image_size, input_channels)
    images = jax.ShapeDtypeStruct(shape, np.uint8)
    taps = jax.eval_shape(network.apply, abstract(network), images)
    assert set(taps) == set(network.taps)
    assert taps["logits"].shape == (5, n_classes)
    assert {tap.shape[0] for tap in taps.values()} == {5}
    n_bytes = sum(4 * leaf.size for leaf in jax.tree.leaves(abstract(network)))
    assert n_bytes / 2 <= parameter_bytes(network) <= 2 * n_bytes
    counted = sum(tap.size for tap in taps.values()) / 5
    assert counted / 2 <= n_outputs(network) <= 2 * counted


@pytest.mark.parametrize("architecture", every(2, SMALL))
def test_a_network_is_the_same_in_one_program_as_eagerly(architecture):
    network = architecture.network(4, 3, 12)
    variables = network.init(jax.random.key(0), np.full(3, 120.0), np.full(3, 60.0))
    images = np.random.default_rng(0).integers(0, 256, (6, 12, 12, 3), np.uint8)
    eager, jitted = network.apply(variables, images), jax.jit(network.apply)(variables, images)
    assert tuple(eager) == network.taps
    for name, tap in eager.items():
        largest = np.abs(tap).max()
        np.testing.assert_allclose(jitted[name], tap, rtol=0, atol=2e-5 * largest, err_msg=name)
    logits, _ = jax.jit(network.apply_train)(variables, images, jax.random.key(0))
    assert (logits.shape, logits.dtype) == ((6, 4), np.float32)


# What earlier versions wrote

OLD = {
    "dataset": "digits",
    "image_size": 16,
    "architecture": "all-cnn-c",
    "depth": 1,
    "variant": "v2",
    "width": 0.25,
    "channels": 0,
    "seed": 0,
    "epochs": 20,
    "checkpoint_every": 5,
    "batch_size": 128,
    "learning_rate": 0.1,
    "weight_decay": 0.001,
    "precision": "float32",
    "prefix": "allcnn",
}
"""Of version 0.2: every architecture had the settings of all."""


@pytest.mark.parametrize(
    ("values", "architecture"),
    [
        ({"depth": 2, "variant": "v1"}, AllCnnC(2, "v1")),
        ({"architecture": "plain", "depth": 4, "width": 1.0}, Plain(4, 1.0)),
        ({"architecture": "tiny"}, Tiny10()),
        ({"architecture": "width", "channels": 40}, WidthN(40)),
    ],
)
def test_runs_of_earlier_versions_are_read(tmp_path, values, architecture):
    workspace, config = Workspace.at(tmp_path), RunConfig(architecture=architecture)
    folder = workspace.run_folder(config.name)
    folder.mkdir(parents=True)
    written = {"config": OLD | values, "class_names": ["a", "b"], "input_channels": 1}
    sealed_json.write_sealed(folder / "config.json", written | {"schema_version": 2})
    record = run_record.read_record(workspace, config.name)
    assert record == RunRecord(config, ("a", "b"), 1)
    assert run_record.check_same(record.config, config) is None


def test_runs_of_the_first_version_are_all_cnn_c():
    first = {
        name: value
        for name, value in (OLD | {"depth": 2}).items()
        if name not in ("architecture", "channels", "precision")
    }
    assert RunConfig.from_json(first) == RunConfig.of(depth=2)


@pytest.mark.parametrize(
    ("values", "odd"),
    [
        ({"architecture": "tiny", "depth": 2}, "depth differ"),
        ({"architecture": "plain", "variant": "v1"}, "variant differ"),
        ({"channels": 3}, "channels differ"),
        ({"hidden": 3}, "hidden differ"),
        ({"architecture": MLP}, "hidden, width differ"),
    ],
)
def test_settings_that_no_version_wrote_are_refused(values, odd):
    with pytest.raises(ConfigError, match=f"^the run's settings do not fit this version: {odd}$"):
        RunConfig.from_json(OLD | values)


# An architecture of another package


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Return a workspace with a trained perceptron and all that is made of it, to be copied."""
    place = Workspace.at(tmp_path_factory.mktemp("whole") / "workspace")
    assert succeed(*TRAIN, workspace=place).splitlines() == [RUN]
    how = ["--batch-size", "16", "--checkpoint"]
    succeed("extract", RUN, "--samples", "32", *how, "all", workspace=place)
    succeed("extract", RUN, "--samples", "64", "--split", "train", *how, "final", workspace=place)
    return place


@pytest.fixture
def place(whole, tmp_path):
    shutil.copytree(whole.root, tmp_path / "workspace")
    return Workspace.at(tmp_path / "workspace")


def fail(*arguments, workspace, status=2):
    """Run a command that is refused in one sentence, which is returned; it changes nothing."""
    before = contents(workspace.root)
    result = run(*arguments, workspace=workspace)
    assert result.exit_code == status, result.output
    assert len(result.stderr.splitlines()) == 1
    assert contents(workspace.root) == before
    return result.stderr.removeprefix("Error: ").strip()


class Killed(BaseException):
    """Like a KeyboardInterrupt: nobody catches it."""


def test_a_run_killed_between_epochs_goes_on_and_ends_the_same(whole, tmp_path, monkeypatch):
    place, advance, taken = Workspace.at(tmp_path), loop.advance, []

    def deadly(plan, state, *rest):
        epoch, step = divmod(int(state.position.step), plan.steps_per_epoch)
        if epoch == 1 and (0, "killed") not in taken:
            taken.append((0, "killed"))
            raise Killed
        taken.append((epoch, step))
        return advance(plan, state, *rest)

    monkeypatch.setattr(loop, "advance", deadly)
    with pytest.raises(Killed):
        succeed(*TRAIN, workspace=place)
    assert place.checkpoints(RUN) == EPOCHS[:2]
    assert "unfinished" in succeed("run", "ls", workspace=place)
    assert succeed(*TRAIN, workspace=place).splitlines() == [RUN]
    assert taken[taken.index((0, "killed")) + 1] == (1, 0)  # none of the first epoch again
    for name in EPOCHS:
        found, wanted = (kept_digests(each.find_checkpoint(RUN, name)) for each in (place, whole))
        assert found == wanted


def test_it_learns_and_is_listed(whole):
    record = run_record.read_record(whole, RUN)
    assert record.config.architecture == Perceptron(24)
    first, *_, last = run_record.read_history(whole, RUN)
    assert last.train_loss < first.train_loss
    assert last.test_accuracy > 0.3
    (one,) = json.loads(succeed("run", "ls", "--json", workspace=whole))["runs"]
    assert (one["run"], one["finished"], one["checkpoints"]) == (RUN, True, EPOCHS)
    shown = json.loads(succeed("run", "show", RUN, "--json", workspace=whole))
    assert shown["settings"] == record.config.to_json()
    assert (shown["settings"]["architecture"], shown["settings"]["hidden"]) == (MLP, 24)
    lines = [line.split() for line in succeed("run", "show", RUN, workspace=whole).splitlines()]
    assert ["architecture", MLP] in lines
    assert ["hidden", "24"] in lines


def test_its_taps_are_stored_as_the_network_gives_them(whole):
    network = run_record.read_record(whole, RUN).network
    for checkpoint in EPOCHS:
        folder = whole.find_checkpoint(RUN, checkpoint)
        variables = checkpoints.load_variables(folder, abstract(network))[0]
        taps = store.open(whole.activations).find(run=RUN, checkpoint=checkpoint, split="test")
        assert tuple(tap.key.tap for tap in taps) == network.taps
        images = loop.splits.load("digits", "test", 12).images
        for tap in taps:
            assert (tap.meta.attributes["architecture"], tap.meta.attributes["hidden"]) == (MLP, 24)
            wanted = network.apply(variables, images[tap.samples])[tap.key.tap]
            np.testing.assert_allclose(tap.read(0, 32), wanted, rtol=0, atol=1e-4)


def test_it_is_verified_and_a_lost_tap_is_computed_again(place, whole):
    assert succeed("store", "verify", workspace=place).strip().endswith("no damage")
    (lost,) = store.open(place.activations).find(
        run=RUN, checkpoint="final", tap="logits", n_samples=32
    )
    kept = lost.read(0, 32)
    shutil.rmtree(lost.place)
    result = run("store", "verify", workspace=place)
    assert result.exit_code == 1
    assert result.stdout.startswith(f"tap logits of run {RUN}, checkpoint final, on ")
    succeed("store", "verify", "--repair", workspace=place)
    (found,) = store.open(place.activations).find(
        run=RUN, checkpoint="final", tap="logits", n_samples=32
    )
    np.testing.assert_array_equal(found.read(0, 32), kept)
    shutil.rmtree(place.find_checkpoint(RUN, "epoch-0002") / "optimiser")
    result = run("store", "verify", workspace=place)
    assert result.exit_code == 1
    assert f"checkpoints/epoch-0002 of run {RUN} is damaged" in result.stdout


def test_it_goes_to_another_workspace_and_back(whole, tmp_path):
    there, file = Workspace.at(tmp_path / "there"), tmp_path / "run.tar"
    out = succeed("run", "export", RUN, file, "--all", workspace=whole).splitlines()
    added = succeed("run", "import", file, workspace=there).splitlines()
    assert added == [out[-1], f"added {', '.join(EPOCHS)}", RUN]
    for name in EPOCHS:
        found, wanted = (kept_digests(each.find_checkpoint(RUN, name)) for each in (there, whole))
        assert found == wanted
    succeed("extract", RUN, "--samples", "32", "--batch-size", "16", workspace=there)
    for tap in store.open(there.activations).find():
        same = store.open(whole.activations)[tap.key]
        np.testing.assert_array_equal(tap.read(0, 32), same.read(0, 32))
    # A finished run is asked for again.
    assert succeed(*TRAIN, workspace=there).splitlines() == [RUN]


def test_it_is_compared_and_probed(place):
    succeed("compare", f"{RUN}@final", f"{RUN}@init", "--batch-size", "16", workspace=place)
    (name,) = store.list_results(place.similarity)
    values = store.read_result(place.similarity, name).values
    assert values.shape == (2, 2)
    assert (values < 1 - 1e-3).all()
    succeed("probe", f"{RUN}@final", workspace=place)
    (name,) = store.list_probes(place.probes)
    probed = store.read_probe(place.probes, name)
    assert [tap.tap for tap in probed.taps] == ["hidden", "logits"]
    assert probed.accuracy.min() > 0.3


def test_its_options_are_listed(tmp_path):
    out = succeed("train", "--architecture", MLP, "--help", workspace=Workspace.at(tmp_path))
    assert "--hidden N " in out
    assert "hidden units" in out
    assert "--hidden" not in succeed("train", "--help", workspace=Workspace.at(tmp_path))


NO_DEPTH = (
    f"depth has no effect: architecture is {MLP}, which has no depth; leave it out, or use the"
    " architecture all-cnn-c or plain"
)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--architecture", MLP, "--depth", "2"], NO_DEPTH),
        (["--architecture", MLP, "--hidden", "0"], "hidden is 0; use 1 or more"),
        (
            ["--architecture", "tests.plugins.nothing:Net"],
            "architecture is tests.plugins.nothing:Net, which cannot be imported (No module named"
            " 'tests.plugins.nothing'); check the module's name, and that its folder is on"
            " PYTHONPATH",
        ),
        (
            ["--architecture", "tests.plugins.perceptron:_Network"],
            "architecture is tests.plugins.perceptron:_Network, which is no Architecture; name a"
            " frozen dataclass that derives from allcnn.networks.architectures.base.Architecture",
        ),
        (
            ["--architecture", "allcnn.networks.architectures:Architecture"],
            "architecture is allcnn.networks.architectures:Architecture, which is no Architecture;"
            " name a frozen dataclass that derives from"
            " allcnn.networks.architectures.base.Architecture",
        ),
    ],
)
@pytest.mark.parametrize("command", ["train", "pipeline"])
def test_what_cannot_be_is_refused_in_one_sentence(tmp_path, command, options, sentence):
    assert fail(command, *options, workspace=Workspace.at(tmp_path)) == sentence


def test_its_options_belong_to_it_alone(tmp_path):
    result = run("train", "--hidden", "24", workspace=Workspace.at(tmp_path))
    assert result.exit_code == 2
    assert "No such option" in result.stderr


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("raise RuntimeError('no licence')", "cannot be imported (no licence)"),
        ("raise SystemExit('no licence')", "cannot be imported (no licence)"),
        ("Net = 1 +", "cannot be imported (invalid syntax (broken.py, line 1))"),
        ("def Net(): pass", "is no Architecture"),
        (f"from {MLP.partition(':')[0]} import *\nclass Net(Architecture): pass", "is no Archit"),
        (
            "from dataclasses import dataclass\nfrom tests.plugins.perceptron import *\n"
            "Net = dataclass(type('Net', (Architecture,), {}), frozen=True)",
            "is no Architecture",  # without a label or a network
        ),
        (
            "from dataclasses import dataclass\nfrom tests.plugins.perceptron import *\n"
            "Net = dataclass(type('Net', (Architecture,), {'label': '', 'network': None}))",
            "is no Architecture",  # which may change
        ),
    ],
)
def test_a_module_that_cannot_be_used_is_one_sentence(tmp_path, monkeypatch, code, reason):
    (tmp_path / "broken.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "broken", raising=False)
    sentence = fail("train", "--architecture", "broken:Net", workspace=Workspace.at(tmp_path / "w"))
    assert sentence.startswith("architecture is broken:Net, which ")
    assert reason in sentence


def test_a_run_whose_module_is_gone_is_listed_beside_the_rest(place):
    folder = place.run_folder(RUN)
    values = sealed_json.read_sealed(folder / "config.json")
    values["config"]["architecture"] = "tests.plugins.gone:Net"
    sealed_json.write_sealed(folder / "config.json", values)
    out = succeed("run", "ls", workspace=place)
    assert "tests.plugins.gone:Net, which cannot be imported" in out
    sentence = fail("extract", RUN, workspace=place, status=1)
    assert "tests.plugins.gone:Net, which cannot be imported" in sentence


def test_a_default_of_another_architecture_is_none_of_its_own(tmp_path):
    """``--depth`` is 1 by default, and the powers go to 3."""
    place, train = Workspace.at(tmp_path), ["train", "--architecture", POWERS, "--epochs", "1"]
    assert "allcnn-powers3-s0" in succeed(*train, *DATA, workspace=place)
    assert "allcnn-powers1-s0" in succeed(*train, "--depth", "1", *DATA, workspace=place)
    assert TrainParameters(architecture=POWERS).job().architecture == Powers(3)
    assert TrainParameters(architecture=POWERS, depth=2).job().architecture == Powers(2)
    # Its recipe has another optimiser, whose state is in the checkpoints.
    assert succeed("store", "verify", workspace=place).strip().endswith("no damage")
    again = succeed(*train, "--epochs", "2", "--prefix", "more", *DATA, workspace=place)
    assert "more-powers3-s0" in again


# Flow parameters


def test_flows_train_it(tmp_path):
    settings = {"architecture": MLP, "hidden": 24, "workspace": str(tmp_path)}
    how = {"image_size": 12, "batch_size": 64, "epochs": 3, "checkpoint_every": 1}
    found = TrainParameters(**settings, **how)
    wanted = RunConfig(architecture=Perceptron(24), **how)
    assert (found.job(), found.title) == (wanted, RUN)
    assert TrainParameters.model_validate(found.model_dump()).job() == wanted
    assert TrainParameters(architecture=MLP).job().architecture == Perceptron()
    schema = TrainParameters.model_json_schema()
    jsonschema.validate(settings, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(settings | {"architecture": "plain"}, schema)


@pytest.mark.parametrize("model", [TrainParameters, PipelineParameters])
@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"hidden": 0}, "hidden is 0; use 1 or more"),
        ({"hidden": "24"}, "hidden is '24'; use a whole number of 1 or more"),
        ({"hiden": 24}, "'hiden' is no setting of this flow; use "),
        ({"variant": "v1"}, "variant has no effect: architecture is tests.plugins.perceptron:Perc"),
        ({"architecture": "all-cnn-c", "hidden": 24}, "'hidden' is no setting of this flow; use "),
        ({"architecture": "tests.plugins.none:X"}, "architecture is tests.plugins.none:X, which c"),
    ],
)
def test_flows_refuse_what_commands_do(model, settings, sentence):
    with pytest.raises((ValidationError, ConfigError)) as caught:
        model(**{"architecture": MLP} | settings)
    assert sentence in str(caught.value)


def test_flows_refuse_a_depth_that_has_no_effect():
    for model, name, value in (
        (TrainParameters, "depth", 2),
        (PipelineParameters, "depths", [1, 3]),
    ):
        with pytest.raises((ValidationError, ConfigError)) as caught:
            model(**{"architecture": MLP, name: value})
        assert NO_DEPTH in str(caught.value)


def test_flows_take_what_goes_with_a_preset():
    """A preset decides the architecture, whose settings may be given beside it."""
    assert TrainParameters(preset="width-8", channels=5).job().architecture == WidthN(5, 1.0)
    with pytest.raises((ValidationError, ConfigError)) as caught:
        TrainParameters(preset="tiny-10", depth=2)
    assert "depth has no effect: architecture is tiny" in str(caught.value)


@pytest.mark.slow
def test_a_pipeline_compares_its_seeds(tmp_path):
    how = {"image_size": 12, "batch_size": 64, "epochs": 1, "n_samples": 32, "minibatch": 16}
    found = PipelineParameters(architecture=MLP, hidden=24, workspace=str(tmp_path), **how)
    # It has no depth, of which two are asked for by default.
    assert [config.name for config in found.job().runs] == [RUN, "allcnn-mlp24-s1"]
    place = Workspace.at(tmp_path)
    run_pipeline(place, found.job())
    words = ["--architecture", MLP, "--hidden", "24", "--epochs", "1", "--samples", "32"]
    words += ["--minibatch", "16", "--image-size", "12", "--batch-size", "64"]
    before = {*contents(place.root)}
    out = succeed("pipeline", *words, workspace=place)
    assert "allcnn-mlp24-s1" in out
    assert {*contents(place.root)} == before
