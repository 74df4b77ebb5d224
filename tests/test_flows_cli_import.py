"""``allcnn store import``: other people's activations compare like any other."""

import json
import re
import shutil
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from click.testing import Result

import store
from allcnn import extract
from allcnn.workspace.paths import Workspace
from flows.cli.imports import parse_attributes
from tests.arrayfiles import WRITERS
from tests.commands import contents, run, succeed
from tests.oracles import cka64

README = Path(__file__).parent.parent / "README.md"
D1, N, SIZE = "small-d1-v2-s0", 64, 16
RANGES = [(start, start + SIZE) for start in range(0, N, SIZE)]


def make_taps(seed: int = 0, n: int = N) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    shapes = {"zero": (3, 3, 4), "conv1": (5, 2), "logits": (7,)}
    return {name: rng.standard_normal((n, *s)).astype(np.float32) for name, s in shapes.items()}


TAPS = make_taps()
OURS = ["--dataset", "digits", "--split", "test"]
DESCRIBED = ["--run", "mine", "--dataset", "x", "--split", "test", "--minibatch", SIZE]


@pytest.fixture(scope="session")
def ours() -> extract.Samples:
    return extract.load_samples("digits", 12, "test", N)


@pytest.fixture
def place(tmp_path: Path, ours: extract.Samples) -> Workspace:
    """Return a workspace with one network on our sample set, and files to import beside it."""
    workspace = Workspace.at(tmp_path / "workspace")
    how = {"run": "ours", "checkpoint": "final", "examples": ours, "batch_rows": SIZE}
    store.write_network(workspace.activations, make_taps(1), **how)
    np.savez(tmp_path / "mine.npz", **TAPS)
    for name in ("labels", "indices", "images"):
        np.save(tmp_path / f"{name}.npy", getattr(ours, name))
    return workspace


def stored(workspace: Workspace, network: str = "mine") -> list[store.Representation]:
    return store.open(workspace.activations).find(run=network)


def test_members_become_taps_in_the_order_of_the_file(place: Workspace, tmp_path: Path) -> None:
    facts = ["--attribute", "depth=3", "--attribute", "optimiser=adam"]
    out = succeed("store", "import", tmp_path / "mine.npz", *DESCRIBED, *facts, workspace=place)
    taps = stored(place)
    assert out.splitlines() == ["mine@final: zero, conv1, logits", taps[0].key.sample_set]
    for index, (tap, (name, values)) in enumerate(zip(taps, TAPS.items(), strict=True)):
        assert (tap.key.tap, tap.meta.tap_index, tap.complete) == (name, index, True)
        assert tap.meta.attributes == {"depth": 3, "optimiser": "adam"}
        np.testing.assert_array_equal(tap.read(0, N), values)
    assert "mine@final" in succeed("store", "ls", workspace=place)


def test_the_advice_for_values_far_from_zero_works(place: Workspace, tmp_path: Path) -> None:
    far = TAPS["logits"].astype(np.float64) + 1e8
    np.save(tmp_path / "far.npy", far)
    imported = ["store", "import", tmp_path / "far.npy", *DESCRIBED]
    refused = run(*imported, workspace=place)
    assert refused.exit_code == 1
    advice = re.search(
        r"tap far .* precision of float32: .* \((--dtype float64)\)$", refused.stderr
    )
    succeed(*imported, *advice[1].split(), workspace=place)
    (tap,) = stored(place)
    np.testing.assert_array_equal(tap.read(0, N), far)
    assert "float64" in succeed("store", "show", "mine@final", workspace=place)
    assert "float64" in succeed("store", "ls", workspace=place)


@pytest.mark.parametrize("how", ["--like", "--images"])
@pytest.mark.parametrize("kernel", ["linear", "rbf"])
def test_imported_and_own_networks_compare(
    place: Workspace, tmp_path: Path, how: str, kernel: str
) -> None:
    if how == "--like":
        examples = ["--run", "mine", "--like", "ours@final"]
    else:
        examples = ["--run", "mine", "--dataset", "digits", "--split", "test"]
        examples += ["--images", tmp_path / "images.npy", "--labels", tmp_path / "labels.npy"]
    succeed("store", "import", tmp_path / "mine.npz", *examples, workspace=place)
    path = tmp_path / "matrix.json"
    options = ["--kernel", kernel, "--batch-size", SIZE, "--json", path]
    succeed("compare", "mine@final", "ours@final", *options, workspace=place)
    written = json.loads(path.read_text())
    assert (written["rows"], written["columns"]) == (list(TAPS), list(TAPS))
    wanted = cka64([*TAPS.values()], [*make_taps(1).values()], RANGES, kernel=kernel)
    np.testing.assert_allclose(np.array(written["matrix"], float), wanted, rtol=0, atol=1e-5)


def test_an_import_goes_on_with_the_indices_that_it_has(place: Workspace, tmp_path: Path) -> None:
    """Whatever was stored on its sample set since."""
    shutil.rmtree(place.activations)
    what = ["--run", "zeta", *OURS, "--images", tmp_path / "images.npy"]
    what += ["--labels", tmp_path / "labels.npy"]
    import_it = ["store", "import", tmp_path / "mine.npz", *what]
    succeed(*import_it, workspace=place)
    assert {int(i) for tap in stored(place, "zeta") for i in tap.samples} == {-1}
    how = {"run": "ours", "checkpoint": "final", "batch_rows": SIZE}
    samples = extract.load_samples("digits", 12, "test", N)
    store.write_network(place.activations, make_taps(1), examples=samples, **how)
    succeed(*import_it, "--attribute", "depth=3", workspace=place)
    assert [tap.meta.attributes for tap in stored(place, "zeta")] == [{"depth": 3}] * len(TAPS)
    # A third one gets the indices that are known, whatever comes before them.
    what[1] = "zzz"
    succeed("store", "import", tmp_path / "mine.npz", *what, workspace=place)
    for tap in stored(place, "zzz"):
        np.testing.assert_array_equal(tap.samples, samples.indices)


def test_every_way_of_comparing_takes_them(
    place: Workspace, tmp_path: Path, ours: extract.Samples
) -> None:
    succeed(
        "store", "import", tmp_path / "mine.npz", "--run", "mine", "--like", "ours@final",
        workspace=place,
    )  # fmt: skip
    batches = ["--batch-size", N]
    out = succeed("matrix", "*@final", *batches, workspace=place)
    assert "2 networks: mine@final, ours@final" in out
    assert "zero" in succeed("identify", "*@final", *batches, workspace=place)
    label = int(np.bincount(ours.labels).argmax())
    path = tmp_path / "label.json"
    options = [*batches, "--label", label, "--json", path]
    succeed("compare", "mine@final", "ours@final", *options, workspace=place)
    chosen = ours.labels == label
    sides = [[X[chosen] for X in taps.values()] for taps in (TAPS, make_taps(1))]
    wanted = cka64(*sides, [(0, int(chosen.sum()))])
    found = np.array(json.loads(path.read_text())["matrix"], float)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)
    succeed("compare", "mine@final", "ours@final", "--estimator", "exact", workspace=place)


def test_files_of_single_taps_are_named_by_option_or_by_themselves(
    place: Workspace, tmp_path: Path
) -> None:
    (tmp_path / "taps").mkdir()
    for index, values in enumerate(TAPS.values()):
        np.save(tmp_path / "taps" / f"layer{8 + index}.npy", values)
    files = sorted((tmp_path / "taps").iterdir(), reverse=True)  # layer9, layer8, layer10
    succeed("store", "import", tmp_path / "taps", *DESCRIBED, workspace=place)
    assert [tap.key.tap for tap in stored(place)] == ["layer8", "layer9", "layer10"]
    chosen = [f"--tap={name}={file.stem}" for name, file in zip("bac", files, strict=True)]
    succeed("store", "import", *files, *DESCRIBED, *chosen, "--checkpoint", "init", workspace=place)
    found = [tap for tap in stored(place) if tap.key.checkpoint == "init"]
    for tap, name, file in zip(found, "bac", files, strict=True):
        assert tap.key.tap == name
        np.testing.assert_array_equal(tap.read(0, N), np.load(file))


def test_images_of_torch_are_stored_with_channels_last(place: Workspace, tmp_path: Path) -> None:
    moved = {name: np.moveaxis(X, -1, 1) for name, X in TAPS.items()}
    np.savez_compressed(tmp_path / "mine.npz", **moved)
    options = ["--channels-first", "--dtype", "float16"]
    succeed("store", "import", tmp_path / "mine.npz", *DESCRIBED, *options, workspace=place)
    for tap in stored(place):
        np.testing.assert_array_equal(tap.read(0, N), TAPS[tap.key.tap].astype(np.float16))


def test_a_file_may_hold_its_own_labels_and_samples(place: Workspace, tmp_path: Path) -> None:
    labels, samples = np.arange(N) % 5, np.arange(N)[::-1]
    np.savez(tmp_path / "mine.npz", labels=labels, samples=samples, **TAPS)
    succeed("store", "import", tmp_path / "mine.npz", *DESCRIBED, workspace=place)
    assert [tap.key.tap for tap in stored(place)] == list(TAPS)
    for tap in stored(place):
        np.testing.assert_array_equal(tap.labels, labels)
        np.testing.assert_array_equal(tap.samples, samples)
    result = run(
        "store", "import", tmp_path / "mine.npz", "--run", "b", "--like", "ours@final",
        workspace=place,
    )  # fmt: skip
    assert result.exit_code == 1
    assert re.search(r"^Error: row \d+ has \d+ among the \w+, and \d+ in what is", result.stderr)


def test_the_same_again_changes_nothing_and_others_are_refused(
    place: Workspace, tmp_path: Path
) -> None:
    succeed("store", "import", tmp_path / "mine.npz", *DESCRIBED, workspace=place)
    before = contents(place.root)
    succeed("store", "import", tmp_path / "mine.npz", *DESCRIBED, workspace=place)
    np.savez(tmp_path / "mine.npz", **make_taps(2))
    result = run("store", "import", tmp_path / "mine.npz", *DESCRIBED, workspace=place)
    assert result.exit_code == 1
    assert "is stored with checkpoint_digest" in result.stderr.splitlines()[-1]
    assert contents(place.root) == before


def test_networks_of_which_grams_alone_are_kept_have_examples_too(
    place: Workspace, tmp_path: Path
) -> None:
    succeed("compare", "ours@final", "ours@final", "--batch-size", SIZE, workspace=place)
    place.activations.rename(tmp_path / "moved.zarr")
    options = ["--run", "mine", "--like", "ours@final"]
    succeed("store", "import", tmp_path / "mine.npz", *options, workspace=place)
    out = succeed("compare", "mine@final", "ours@final", "--batch-size", SIZE, workspace=place)
    assert re.search(r"from +activations of \d+ representations and kept Grams of \d+", out)


def test_the_sample_set_is_the_one_of_as_many_rows(place: Workspace, tmp_path: Path) -> None:
    how = {"run": "ours", "checkpoint": "final"}
    for n, seed in ((32, 0), (N, 3)):
        examples = store.Examples.of("x", "test", n, labels=np.full(n, seed))
        store.write_network(place.activations, make_taps(n=n), examples=examples, **how)
    like = ["--run", "mine", "--like", "ours@final"]
    np.savez(tmp_path / "short.npz", **make_taps(n=32))
    assert "x-test-32-" in succeed(
        "store", "import", tmp_path / "short.npz", *like, workspace=place
    )
    result = run("store", "import", tmp_path / "mine.npz", *like, workspace=place)
    assert result.exit_code == 1
    told = r"ours@final is stored on digits-\S+, x-test-32-\S+, x-test-64-\S+; choose one with --sa"
    assert re.search(told, result.stderr)
    name = examples.sample_set.name
    out = succeed(
        "store", "import", tmp_path / "mine.npz", *like, "--sample-set", name, workspace=place
    )
    assert out.splitlines()[-1] == name


def test_a_run_of_the_workspace_is_not_mistaken_for_an_imported_one(
    workspace: Workspace, tmp_path: Path
) -> None:
    np.savez(tmp_path / "mine.npz", **TAPS)
    extraction = ["--samples", N, "--batch-size", SIZE]
    succeed("extract", D1, *extraction, workspace=workspace)
    like = ["--like", f"{D1}@final", "--minibatch", SIZE]
    file = tmp_path / "mine.npz"
    refused = run("store", "import", file, "--run", D1, *like, workspace=workspace)
    assert refused.exit_code == 1
    assert f"Error: {D1} is a run of {workspace.root}, and what is stored under its name" in (
        refused.stderr
    )
    # The other way round: a network imported before the run came, where its checkpoint would go.
    runs = workspace.root / "runs"
    runs.rename(workspace.root / "elsewhere")
    succeed(
        "store", "import", file, "--run", D1, "--checkpoint", "init", *like, workspace=workspace
    )
    (workspace.root / "elsewhere").rename(runs)
    refused = run("extract", D1, "--checkpoint", "init", *extraction, workspace=workspace)
    assert refused.exit_code == 1
    assert len(refused.stderr.splitlines()) == 1
    assert f"{D1}/init" in refused.stderr
    # One that is no run here cannot be extracted.
    succeed("store", "import", file, "--run", "mine", *like, workspace=workspace)
    refused = run("extract", "mine", *extraction, workspace=workspace)
    assert refused.exit_code == 1
    assert "no run 'mine' in" in refused.stderr


BAD = {
    "no examples": (["--run", "a"], 2, "dataset is not given; say of which examples the rows are"),
    "no split": (["--run", "a", "--dataset", "x"], 2, "split is not given"),
    "both": ([*DESCRIBED, "--like", "ours@final"], 2, "dataset and like exclude each other; leave"),
    "pattern": (
        ["--run", "a", "--like", "*@final"],
        2,
        "'*@final' is a pattern; name one RUN@CHECKPOINT",
    ),
    "tap like": (["--run", "a", "--like", "ours@final:zero"], 2, "name one RUN@CHECKPOINT"),
    "unknown like": (["--run", "a", "--like", "b@final"], 1, "holds no activations or Grams of b@"),
    "mistyped like": (
        ["--run", "a", "--like", "ours@fnal"],
        1,
        "; the nearest name that is stored is",
    ),
    "sample set": (
        [*DESCRIBED, "--sample-set", "y"],
        2,
        "sample-set chooses among those of --like",
    ),
    "unknown sample set": (
        ["--run", "a", "--like", "ours@final", "--sample-set", "y"],
        1,
        "holds no activations or Grams of ours@final on y",
    ),
    "run": ([*DESCRIBED, "--run", "../a"], 2, "run '../a' is not a name"),
    "checkpoint": ([*DESCRIBED, "--checkpoint", "a/b"], 2, "checkpoint 'a/b' is not a name"),
    "data set": ([*DESCRIBED, "--dataset", "a b"], 2, "dataset 'a b' is not a name"),
    "minibatch": ([*DESCRIBED, "--minibatch", "3"], 2, "minibatch is 3; use 4 or more"),
    "tap": ([*DESCRIBED, "--tap", "a"], 1, "there is no array 'a' among zero, conv1, logits"),
    "skip": ([*DESCRIBED, "--skip", "a*"], 1, "skip is 'a*', and fits none of zero, conv1, logit"),
    "stack": ([*DESCRIBED, "--stack"], 1, "has 1 files to stack; want 4 or more, one an example"),
    "channels last": ([*DESCRIBED, "--channels-last", "a"], 2, "channels-last excepts layers from"),
    "channels last of none": (
        [*DESCRIBED, "--channels-first", "--channels-last", "a*"],
        2,
        "channels-last is 'a*', and fits none of zero, conv1, logits",
    ),
    "attribute": (
        [*DESCRIBED, "--attribute", "depth"],
        2,
        "attribute is 'depth'; write NAME=VALUE",
    ),
    "labels": (
        [*DESCRIBED, "--labels", "no.npy"],
        1,
        "no.npy does not exist; name what holds arrays",
    ),
    "labels of several": (
        [*DESCRIBED, "--labels", "{tmp_path}/mine.npz"],
        1,
        "names 3 arrays of {tmp_path}/mine.npz, which holds zero, conv1, logits; name one, as in",
    ),
    "labels that are none": (
        [*DESCRIBED, "--labels", "{tmp_path}/mine.npz:logits"],
        1,
        "mine.npz:logits of shape (64, 7) is not one-hot in row 0; want one integer",
    ),
}


@pytest.mark.parametrize(("options", "status", "sentence"), BAD.values(), ids=BAD.keys())
def test_bad_settings_are_one_sentence_and_touch_nothing(
    place: Workspace, tmp_path: Path, options: list[str], status: int, sentence: str
) -> None:
    before = contents(place.root)
    options = [str(option).format(tmp_path=tmp_path) for option in options]
    result = run("store", "import", tmp_path / "mine.npz", *options, workspace=place)
    assert result.exit_code == status, result.output
    assert sentence.format(tmp_path=tmp_path) in result.stderr
    assert result.stderr.startswith("Error: ")
    assert len(result.stderr.splitlines()) == 1
    assert contents(place.root) == before


BAD_ARRAYS = {
    "one axis": ({"a": np.zeros(N)}, "a (64,) float64: it has one axis, and a layer two or more"),
    "five axes": ({"a": np.zeros((N, 1, 1, 1, 1))}, "(64, 1, 1, 1, 1); wanted are two to"),
    "other rows": (
        {"a": np.zeros((N, 2)), "b": np.zeros((N - 1, 2))},
        "b has the shape (63, 2), and 1 of 2 arrays have 64 rows; want one row an example, or",
    ),
    "no rows": ({"a": np.zeros((0, 2))}, "the arrays have 0 rows, one an example; HSIC"),
    "three rows": ({"a": np.zeros((3, 2))}, "the arrays have 3 rows, one an example; HSIC needs 4"),
    "no columns": ({"a": np.zeros((N, 0))}, "tap a has the shape (64, 0), so no values; leave it"),
    "only labels": (
        {"labels": np.zeros(N, int), "samples": np.arange(N)},
        "there are no activations among labels, samples; give arrays of two to four axes",
    ),
    "nan": ({"a": np.full((N, 2), np.nan)}, "tap a has NaN or infinite values, first in row 0"),
    "objects": ({"a": np.full((N, 2), None)}, "holds Python objects, which are never loaded; save"),
    "texts": ({"a": np.full((N, 2), "x")}, "mine.npz:a (64, 2) <U1: it holds texts or dates"),
    "name": ({"a\tb": np.zeros((N, 2))}, "cannot be the name of a tap; use 1 to 200 characters"),
    "large": ({"a": np.full((N, 2), 1e6)}, "tap a reaches 1e+06, and float16 ends at 65504; store"),
}


@pytest.mark.parametrize(("arrays", "sentence"), BAD_ARRAYS.values(), ids=BAD_ARRAYS.keys())
def test_arrays_that_do_not_fit_are_one_sentence_and_touch_nothing(
    place: Workspace, tmp_path: Path, arrays: dict[str, np.ndarray], sentence: str
) -> None:
    np.savez(tmp_path / "mine.npz", allow_pickle=True, **arrays)
    before = contents(place.root)
    options = [*DESCRIBED, "--dtype", "float16"]
    result = run("store", "import", tmp_path / "mine.npz", *options, workspace=place)
    assert result.exit_code == 1, result.output
    assert sentence in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert contents(place.root) == before


@pytest.mark.parametrize("option", ["", "--labels", "--samples", "--images"])
def test_an_address_is_no_file_to_import(place: Workspace, tmp_path: Path, option: str) -> None:
    address = "s3://bucket/a.npy"
    files = [tmp_path / "mine.npz", option, address] if option else [address]
    result = run("store", "import", *files, *DESCRIBED, workspace=place)
    assert result.exit_code == 2
    assert result.stderr == f"Error: {address} is an address; give a local file\n"


def test_images_may_have_their_channels_first(
    place: Workspace, tmp_path: Path, ours: extract.Samples
) -> None:
    np.save(tmp_path / "images.npy", np.moveaxis(ours.images, -1, 1))
    moved = {name: np.moveaxis(X, -1, 1) if X.ndim == 4 else X for name, X in TAPS.items()}
    np.savez(tmp_path / "mine.npz", **moved)
    for examples in (OURS, ["--like", "ours@final"]):
        run_name = ["--run", f"from{len(examples)}"]
        files = ["--images", tmp_path / "images.npy", "--labels", tmp_path / "labels.npy"]
        how = [*run_name, *examples, *files, "--channels-first"]
        out = succeed("store", "import", tmp_path / "mine.npz", *how, workspace=place)
        assert out.splitlines()[-1] == ours.sample_set.name
        np.testing.assert_array_equal(stored(place, run_name[1])[0].samples, ours.indices)


IMAGES = {
    "three axes": (np.zeros((N, 8, 8), np.uint8), r"uint8 of shape \(64, 8, 8\)"),
    "floats": (np.zeros((N, 8, 8, 1), np.float32), r"float32 of shape \(64, 8, 8, 1\)"),
}


@pytest.mark.parametrize(("images", "found"), IMAGES.values(), ids=IMAGES)
@pytest.mark.parametrize("first", [False, True])
def test_images_that_do_not_fit_are_one_sentence_and_touch_nothing(
    place: Workspace, tmp_path: Path, images: np.ndarray, found: str, first: bool
) -> None:
    np.save(tmp_path / "images.npy", images)
    before = contents(place.root)
    how = [*DESCRIBED, "--images", tmp_path / "images.npy", *["--channels-first"] * first]
    result = run("store", "import", tmp_path / "mine.npz", *how, workspace=place)
    assert result.exit_code == 1
    wanted = r"\(n, c, h, w\)" if first else r"\(n, h, w, c\)"
    assert re.fullmatch(
        rf"Error: the images in .*images.npy are {found}; want uint8 {wanted}",
        result.stderr.splitlines()[-1],
    )
    assert contents(place.root) == before


@pytest.mark.parametrize("kept", ["activations", "grams"])
def test_examples_of_another_digest_are_told_of(
    place: Workspace, tmp_path: Path, ours: extract.Samples, kept: str
) -> None:
    if kept == "grams":
        succeed("compare", "ours@final", "ours@final", "--batch-size", SIZE, workspace=place)
        succeed("store", "rm", "*@*", "--what", "activations", "--yes", workspace=place)
    how = ["--run", "mine", *OURS, "--labels", tmp_path / "labels.npy"]
    result = run("store", "import", tmp_path / "mine.npz", *how, workspace=place)
    assert result.exit_code == 0
    name = result.stdout.splitlines()[-1]
    assert name != ours.sample_set.name
    note = f"note: {ours.sample_set.name} is stored too, and activations on it and on {name} cannot"
    assert f"{note} be compared: their examples have different digests\n" in result.stderr
    images = ["--run", "same", *how[2:], "--images", tmp_path / "images.npy"]
    result = run("store", "import", tmp_path / "mine.npz", *images, workspace=place)
    assert f"note: {name} is stored too" in result.stderr
    result = run("store", "import", tmp_path / "mine.npz", *DESCRIBED, workspace=place)
    assert "note: " not in result.stderr


def test_arrays_of_one_name_are_refused_and_the_advice_works(
    place: Workspace, tmp_path: Path
) -> None:
    (tmp_path / "b").mkdir()
    for folder in (tmp_path, tmp_path / "b"):
        np.save(folder / "a.npy", TAPS["zero"])
    files = [tmp_path / "a.npy", tmp_path / "b" / "a.npy"]
    result = run("store", "import", *files, *DESCRIBED, workspace=place)
    assert result.exit_code == 1
    found = re.search(r"there are two arrays 'a'; name all layers, as in (.*), or", result.stderr)
    assert found
    succeed("store", "import", *files, *DESCRIBED, *found[1].split(), workspace=place)
    assert [tap.key.tap for tap in stored(place)] == ["a-1", "a-2"]


def notes(result: Result) -> list[str]:
    return [line for line in result.stderr.splitlines() if line.startswith("note: ")]


def test_what_is_no_layer_is_said_before_anything_is_written(
    place: Workspace, tmp_path: Path
) -> None:
    """As a script saves all it has."""
    classes = np.array(["cat", "dog"])[np.arange(N) % 2]
    more = {"labels": classes[:, None], "targets": np.arange(N), "paths": np.full(N, None)}
    path = tmp_path / "mine.npz"
    np.savez(path, allow_pickle=True, epoch=3, **TAPS, **more)
    result = run("store", "import", path, *DESCRIBED, workspace=place)
    assert result.exit_code == 0
    assert result.stdout.splitlines()[0] == "mine@final: zero, conv1, logits"
    assert notes(result) == [
        f"note: left out {path}:epoch () int64: it is a single value",
        f"note: {path}:labels (64, 1) <U3 is taken as the labels ('cat' = 0, 'dog' = 1)",
        f"note: left out {path}:targets (64,) int64, which describes examples; --labels"
        f" {path}:targets takes it as classes, --samples as indices",
        f"note: left out {path}:paths (64,), which describes examples",
    ]
    np.testing.assert_array_equal(stored(place)[0].labels, np.arange(N) % 2)
    again = ["--checkpoint", "init", "--labels", f"{path}:targets", "--tap", "x=conv1"]
    succeed("store", "import", path, *DESCRIBED, *again, workspace=place)
    (tap,) = [tap for tap in stored(place) if tap.key.checkpoint == "init"]
    assert tap.key.tap == "x"
    np.testing.assert_array_equal(tap.labels, np.arange(N))


@pytest.mark.parametrize("end", [".npz", ".csv", ".parquet"])
def test_what_query_writes_is_imported_as_it_was(
    place: Workspace, tmp_path: Path, end: str
) -> None:
    files = []
    for tap in TAPS:
        files.append(tmp_path / f"{tap if end == '.csv' else 'x' + tap}{end}")
        query = ["store", "query", f"ours@final:{tap}", "--to", files[-1]]
        succeed(*query, workspace=place)
    how = ["--run", "copy", "--like", "ours@final", "--minibatch", SIZE]
    succeed("store", "import", *files, *how, workspace=place)
    ours, copies = stored(place, "ours"), stored(place, "copy")
    assert [copy.key.tap for copy in copies] == list(TAPS)
    for one, other in zip(ours, copies, strict=True):
        assert one.commits == other.commits
        assert one.meta.sample_set == other.meta.sample_set


@pytest.mark.parametrize("end", WRITERS)
def test_every_format_stores_the_same(place: Workspace, tmp_path: Path, end: str) -> None:
    labels = np.arange(N, dtype=np.int64) % 5
    for run_name, suffix in (("a", ".npz"), ("b", end)):
        WRITERS[suffix](tmp_path / f"x{suffix}", {"labels": labels} | TAPS)
        taps = [f"--tap={name}" for name in TAPS]
        how = [*DESCRIBED, "--run", run_name, *taps]
        succeed("store", "import", tmp_path / f"x{suffix}", *how, workspace=place)
    for one, other in zip(stored(place, "a"), stored(place, "b"), strict=True):
        assert one.commits == other.commits
        assert one.key.tap == other.key.tap
        np.testing.assert_array_equal(other.labels, labels)


def test_a_folder_of_one_file_an_example_is_one_layer(place: Workspace, tmp_path: Path) -> None:
    (tmp_path / "fc").mkdir()
    for index, row in enumerate(TAPS["logits"]):
        np.save(tmp_path / "fc" / f"image{index}.npy", row)
    result = run("store", "import", tmp_path / "fc", *DESCRIBED, workspace=place)
    assert result.exit_code == 0
    assert notes(result)[0].startswith(f"note: the 64 files of {tmp_path}/fc are taken as one exam")
    (tap,) = stored(place)
    assert tap.key.tap == "fc"
    np.testing.assert_array_equal(tap.read(0, N), TAPS["logits"])


def test_sequences_of_torch_are_stored_with_channels_last(place: Workspace, tmp_path: Path) -> None:
    """A network of one dimension that has tokens too."""
    np.savez(
        tmp_path / "mine.npz",
        zero=np.moveaxis(TAPS["zero"], -1, 1),
        conv1=np.moveaxis(TAPS["conv1"], -1, 1),
        block=TAPS["conv1"],
        logits=TAPS["logits"],
    )
    first = ["--channels-first", "--channels-last", "bl*"]
    result = run("store", "import", tmp_path / "mine.npz", *DESCRIBED, *first, workspace=place)
    assert result.exit_code == 0
    assert notes(result) == [
        "note: conv1 (64, 2, 5) is read as (n, c, position), of 2 channels; with --channels-last"
        " conv1 as (n, position, c)"
    ]
    for tap in stored(place):
        wanted = TAPS.get(tap.key.tap, TAPS["conv1"])
        np.testing.assert_array_equal(tap.read(0, N), wanted)


def test_images_that_look_like_those_of_torch_are_said(place: Workspace, tmp_path: Path) -> None:
    np.savez(tmp_path / "mine.npz", conv=np.moveaxis(TAPS["zero"], -1, 1), same=TAPS["zero"])
    result = run("store", "import", tmp_path / "mine.npz", *DESCRIBED, workspace=place)
    assert notes(result) == [
        "note: conv (64, 4, 3, 3) is read as (n, h, w, c), of 3 channels; --channels-first reads"
        " (n, c, h, w)"
    ]


def test_volumes_are_refused_with_what_to_do(place: Workspace, tmp_path: Path) -> None:
    np.savez(tmp_path / "mine.npz", conv=np.zeros((N, 2, 3, 3, 3)))
    result = run(
        "store", "import", tmp_path / "mine.npz", *DESCRIBED, "--channels-first", workspace=place
    )
    assert result.exit_code == 1
    told = "tap conv has the shape (64, 2, 3, 3, 3); wanted are two to four axes, examples first:"
    assert told in result.stderr
    assert "join some, as in values.reshape(len(values), values.shape[1], -1)\n" in result.stderr


def test_bfloat16_is_stored_as_float32(place: Workspace, tmp_path: Path) -> None:
    values = TAPS["logits"].astype(ml_dtypes.bfloat16)
    np.save(tmp_path / "fc.npy", values)
    result = run("store", "import", tmp_path / "fc.npy", *DESCRIBED, workspace=place)
    assert result.exit_code == 0
    assert notes(result) == [
        f"note: {tmp_path}/fc.npy has two raw bytes a value, as np.save writes bfloat16, and is"
        " read as such; save x.astype(np.float32) if they are something else"
    ]
    np.testing.assert_array_equal(stored(place)[0].read(0, N), values.astype(np.float32))


def test_attributes_are_numbers_truths_or_texts() -> None:
    found = parse_attributes(("a=1", "b=0.5", "c=true", "d=false", "e=x=y", "f=1e3"))
    assert found == {"a": 1, "b": 0.5, "c": True, "d": False, "e": "x=y", "f": 1000.0}
    assert [type(value) for value in found.values()] == [int, float, bool, bool, str, float]


def readme_examples() -> list[str]:
    section = README.read_text(encoding="utf-8").split("## Activations of your own networks")[1]
    return re.findall(r"```python\n(.*?)```", section.split("\n## ")[0], re.DOTALL)


@pytest.mark.parametrize("library", ["torch", "numpy"])
def test_the_examples_of_the_readme_run_and_compare(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: str
) -> None:
    if library == "torch":
        pytest.importorskip("torch", reason="PyTorch comes with the extra 'bench'")
    (example,) = [e for e in readme_examples() if f"import {library}" in e]
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "README.md", "exec"), {})
    place = Workspace.at("workspace")
    taps = store.open(place.activations).find()
    assert all(tap.complete for tap in taps)
    (name,) = {f"{tap.key.run}@{tap.key.checkpoint}" for tap in taps}
    succeed("compare", name, name, workspace=place)
