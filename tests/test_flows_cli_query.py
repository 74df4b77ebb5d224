"""Commands that look into stores: what they list, show and write, and what they refuse."""

import csv
import json
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click
import numpy as np
import pyarrow.parquet
import pytest
from click.testing import CliRunner

import store
from allcnn.workspace.paths import Workspace
from flows.cli import query_commands
from flows.cli.main import main
from flows.views import export, listing
from store import GramWriter, Writer
from tests.commands import run, succeed
from tests.faults import chunk_files, flip_bit
from tests.strategies import (
    batches,
    coordinates,
    make_gram_meta,
    make_grams,
    make_meta,
    make_rows,
    make_similarity,
)
from tests.test_store_probes import make_probe

TAPS = {"conv1": (3, 2, 2), "tokens": (2, 3), "logits": (5,)}
EPOCHS = {"init": 0, "final": 7}


def meta_of(run: str, checkpoint: str, tap: str, **changes):
    attributes = {"epoch": EPOCHS[checkpoint], "seed": int(run[-1])}
    index = list(TAPS).index(tap)
    names = {"run": run, "checkpoint": checkpoint, "tap_index": index, "shape": TAPS[tap]}
    return make_meta(tap, **names, attributes=attributes, **changes)


def write_tap(workspace: Workspace, meta, n_batches: int | None = None) -> None:
    with Writer.open(workspace.activations, meta, *coordinates(meta)) as writer:
        for batch in batches(meta, make_rows(meta))[:n_batches]:
            writer.append(batch)


def write_grams(workspace: Workspace, bound: float | None = None) -> None:
    for index, tap in enumerate(["conv1", "logits"]):
        names = {"run": "net-s0", "checkpoint": "final", "tap_index": index}
        meta = make_gram_meta(tap, **names, sizes=(4, 6), attributes={"epoch": 7, "seed": 0})
        with GramWriter.open(workspace.grams, meta, *coordinates(meta)) as writer:
            for i, K in enumerate(make_grams(meta)[: 2 - index]):
                writer.append(np.nan_to_num(K), bound and bound * (1 + i))


def write_result(workspace: Workspace, name: str, *networks: str, **how: Any) -> None:
    keys = [meta_of(network, "final", "conv1").key for network in networks]
    n = len(keys)
    made = {"created_at": "2026-01-31T12:00:00+00:00"}
    result = make_similarity(name, keys, keys, np.eye(n), provenance=made, hsic=np.eye(n), **how)
    store.write_result(workspace.similarity, result)


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Return two networks at two checkpoints, one unfinished; Grams of one; two results."""
    place = Workspace.at(tmp_path_factory.mktemp("filled") / "workspace")
    for network in ("net-s0", "net-s1"):
        for checkpoint in EPOCHS:
            for tap in TAPS:
                last = (network, checkpoint, tap) == ("net-s1", "init", "logits")
                write_tap(place, meta_of(network, checkpoint, tap), 2 if last else None)
    write_grams(place)
    write_result(place, "one", "net-s0")
    write_result(place, "both", "net-s0", "net-s1")
    return place


@pytest.fixture
def writable(filled: Workspace, tmp_path: Path) -> Workspace:
    """Return a copy of it, to write into."""
    shutil.copytree(filled.root, tmp_path / "workspace")
    return Workspace.at(tmp_path / "workspace")


def first_words(table: str) -> list[str]:
    return [line.split()[0] for line in table.splitlines()[1:]]


def test_ls_has_a_table_each_of_activations_grams_and_results(filled: Workspace) -> None:
    activations, grams, results = succeed("store", "ls", workspace=filled).split("\n\n")
    assert first_words(activations) == [
        "net-s0@init",
        "net-s0@final",
        "net-s1@init",
        "net-s1@final",
    ]
    states = [line.split()[-1] for line in activations.splitlines()[1:]]
    assert states == ["complete", "complete", "unfinished", "complete"]
    assert " 8 of 10 " in activations.splitlines()[3]
    # (3 * 2 * 2 + 2 * 3 + 5) float32 values an example.
    assert " 920 B " in activations.splitlines()[1]
    assert first_words(grams) == ["net-s0@final"]
    assert grams.splitlines()[1].endswith("unfinished")
    assert first_words(results) == ["both", "one"]
    assert "net-s0@final, net-s1@final" in results
    assert " 2 x 2 " in results


def listed(workspace: Workspace, *arguments: str) -> tuple[list[str], list[str], list[str]]:
    found = json.loads(succeed("store", "ls", *arguments, "--json", workspace=workspace))
    names = [[f"{e['run']}@{e['checkpoint']}" for e in found[w]] for w in ("activations", "grams")]
    return names[0], names[1], [result["name"] for result in found["results"]]


LISTED = {
    "pattern": (["net-s1@*"], "net-s1@init net-s1@final", "", "both"),
    "pattern of taps": (["*@final:logits"], "net-s0@final net-s1@final", "net-s0@final", ""),
    "attribute": (["--where", "epoch<5"], "net-s0@init net-s1@init", "", ""),
    "two attributes": (
        ["--where", "epoch>=5", "--where", "seed=0"],
        "net-s0@final",
        "net-s0@final",
        "both one",
    ),
    "pattern and attribute": (["*@final", "--where", "seed!=0"], "net-s1@final", "", "both"),
    "unfinished": (["--where", "complete=false"], "net-s1@init", "net-s0@final", ""),
    "a name that activations lack": (["--where", "kernel=lin*"], "", "net-s0@final", "both one"),
    "a run": (["net-s1"], "net-s1@init net-s1@final", "", "both"),
    "runs": (
        ["net-*", "--where", "seed=0"],
        "net-s0@init net-s0@final",
        "net-s0@final",
        "both one",
    ),
}


@pytest.mark.parametrize(
    ("arguments", "activations", "grams", "results"), LISTED.values(), ids=LISTED
)
def test_ls_lists_what_fits(
    filled: Workspace, arguments: list[str], activations: str, grams: str, results: str
) -> None:
    found = json.loads(succeed("store", "ls", *arguments, "--json", workspace=filled))
    for name, wanted in (("activations", activations), ("grams", grams)):
        assert [f"{e['run']}@{e['checkpoint']}" for e in found[name]] == wanted.split()
    assert [result["name"] for result in found["results"]] == results.split()


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Return a network with Grams of known error, and results computed in several ways."""
    place = Workspace.at(tmp_path_factory.mktemp("compared") / "workspace")
    for checkpoint in EPOCHS:
        write_tap(place, meta_of("net-s0", checkpoint, "logits"))
    write_grams(place, bound=2e-6)
    write_result(place, "linear4", "net-s0")
    write_result(place, "linear8", "net-s0", batch_size=8, pool="mean")
    write_result(place, "rbf4", "net-s0", kernel="rbf", sigma=0.4)
    write_result(place, "exact", "net-s0", estimator="exact", batch_size=10, label=3)
    return place


RESULTS = {
    "kernel": (["kernel=rbf"], "", "rbf4"),
    "not that kernel": (["kernel!=rbf"], "net-s0@final", "exact linear4 linear8"),
    "minibatch": (["batch_size=4"], "net-s0@final", "linear4 rbf4"),
    "order": (["batch_size>4"], "", "exact linear8"),
    "pool": (["pool=mean"], "", "linear8"),
    "estimator": (["estimator=ex*"], "", "exact"),
    "measure": (["measure=cka", "label=3"], "", "exact"),
    "no such measure": (["measure=hsic"], "", ""),
    "label": (["label=3"], "", "exact"),
    "sigma": (["sigma<=0.4"], "", "rbf4"),
    "a network too": (["epoch=7", "kernel=rbf"], "", "rbf4"),
    "no such network": (["epoch=0", "batch_size<8"], "", ""),
}


@pytest.mark.parametrize(("where", "grams", "results"), RESULTS.values(), ids=RESULTS)
def test_results_are_chosen_by_what_they_are(
    compared: Workspace, where: list[str], grams: str, results: str
) -> None:
    words = [word for text in where for word in ("--where", text)]
    if not (grams or results):
        assert (
            f" fits {' and '.join(where)}; "
            in run("store", "ls", *words, workspace=compared).stderr
        )
        return
    found = json.loads(succeed("store", "ls", *words, "--json", workspace=compared))
    assert found["activations"] == []
    assert [f"{each['run']}@{each['checkpoint']}" for each in found["grams"]] == grams.split()
    assert [result["name"] for result in found["results"]] == results.split()


def test_results_alone_are_chosen_by_what_they_are(tmp_path: Path) -> None:
    place = Workspace.at(tmp_path)
    write_result(place, "one", "net-s0")
    write_result(place, "two", "net-s0", batch_size=8)
    assert first_words(succeed("store", "ls", "--where", "batch_size=8", workspace=place)) == [
        "two"
    ]
    result = run("store", "ls", "--where", "batch_size=9", workspace=place)
    assert " fits batch_size=9; " in result.stderr


def test_results_tell_how_they_were_computed(compared: Workspace) -> None:
    table = succeed("store", "ls", workspace=compared).split("\n\n")[2]
    assert table.split()[:7] == "result of sample set measure kernel values".split()
    exact, *_, rbf = table.splitlines()[1:]
    assert " CKA, exact     linear   " in exact
    assert " CKA, unbiased  RBF 0.4  " in rbf
    found = json.loads(succeed("store", "ls", "--json", workspace=compared))["results"]
    names = ("measure", "kernel", "sigma", "estimator", "pool", "batch_size", "label")
    assert [tuple(each[name] for name in names) for each in found] == [
        ("cka", "linear", None, "exact", "whole", 10, 3),
        ("cka", "linear", None, "unbiased", "whole", 4, None),
        ("cka", "linear", None, "unbiased", "mean", 8, None),
        ("cka", "rbf", 0.4, "unbiased", "whole", 4, None),
    ]


def test_linear_grams_serve_rbf_too_and_say_how_exact_they_are(
    filled: Workspace, compared: Workspace
) -> None:
    # Of several minibatches the largest error is told, and none where one is not known.
    accuracies = {"accuracy not known": None, "squared distances within 4e-06": 4e-6}
    for place, (told, bound) in zip((filled, compared), accuracies.items(), strict=True):
        tables = succeed("store", "ls", workspace=place).split("\n\n")
        assert " linear-whole-4-float32-0123456789ab  linear and rbf  " in tables[1]
        shown = succeed("store", "show", "net-s0@final", workspace=place)
        kind = " linear-whole-4-float32-0123456789ab of 2 taps for linear and rbf, "
        assert f"{kind}{told}, " in shown
        found = json.loads(succeed("store", "ls", "--json", workspace=place))
        assert [each["error_bound"] for each in found["grams"]] == [bound]
        assert {each["error_bound"] for each in found["activations"]} == {None}


def test_json_of_ls_counts_bytes_and_taps(filled: Workspace) -> None:
    out = succeed("store", "ls", "net-s1@init", "--json", workspace=filled)
    (entry,) = json.loads(out)["activations"]
    assert entry["taps"] == list(TAPS)
    assert entry["attributes"] == {"epoch": 0, "seed": 1}
    assert (entry["n_committed"], entry["n"], entry["complete"]) == (8, 10, False)
    assert entry["raw_bytes"] == (10 * 12 + 10 * 6 + 8 * 5) * 4
    folder = filled.activations / entry["sample_set"] / "net-s1" / "init"
    files = [path for tap in TAPS for path in (folder / tap).rglob("*") if path.is_file()]
    assert entry["stored_bytes"] == sum(path.stat().st_size for path in files)
    result = json.loads(succeed("store", "ls", "--json", workspace=filled))["results"][1]
    assert result["raw_bytes"] == 4 * 8
    assert (result["networks"], result["n_rows"], result["kernel"]) == (
        ["net-s0@final"],
        1,
        "linear",
    )


def test_ls_reads_no_chunk(writable: Workspace) -> None:
    before = json.loads(succeed("store", "ls", "--json", workspace=writable))
    for file in writable.root.rglob("c/*/*"):
        if file.is_file():
            file.write_bytes(bytes(file.stat().st_size))
    assert json.loads(succeed("store", "ls", "--json", workspace=writable)) == before


def test_ls_and_show_tell_what_is_damaged_and_list_the_rest(writable: Workspace) -> None:
    broken, no_array, *_ = store.open(writable.activations).find(run="net-s0", checkpoint="final")
    flip_bit(broken.place / "zarr.json")
    shutil.rmtree(no_array.place / "activations")
    (writable.similarity / "one" / "zarr.json").write_text("{}")
    out = succeed("store", "ls", workspace=writable)
    tables = out.split("\n\n")
    assert first_words(tables[0])[1] == "net-s0@final"
    assert tables[0].splitlines()[2].split()[2] == "1"
    assert first_words(tables[2]) == ["both"]
    *damaged, advice = tables[3].splitlines()
    owners = [line.partition(" are damaged (")[0] for line in damaged]
    assert owners == [
        f"metadata of tap {tap} of run net-s0, checkpoint final, on {broken.key.sample_set}"
        for tap in (broken.key.tap, no_array.key.tap)
    ] + ["metadata of result one"]
    assert "`allcnn store verify --repair" in advice
    found = json.loads(succeed("store", "ls", "--json", workspace=writable))
    assert [each["path"] for each in found["damaged"][:2]] == [broken.key.path, no_array.key.path]
    shown = succeed("store", "show", "net-s0@final", workspace=writable)
    assert damaged[0] in shown
    assert damaged[1] in shown
    assert "logits" in shown


@pytest.mark.parametrize("lost", ["kernel", "batch_size", "rows"])
def test_ls_names_a_malformed_result_and_lists_the_rest(writable: Workspace, lost: str) -> None:
    """Metadata of version 1 have no seal, which would tell."""
    file = writable.similarity / "one" / "zarr.json"
    written = json.loads(file.read_text())
    record = written["attributes"]["allcnn_result"]
    del (record if lost in record else record["method"])[lost], written["attributes"]["allcnn_seal"]
    file.write_text(json.dumps(written))
    out = succeed("store", "ls", workspace=writable)
    assert "metadata of result one are damaged (it is malformed)" in out
    assert first_words(out.split("\n\n")[2]) == ["both"]


def test_ls_tells_that_taps_are_missing(tmp_path: Path) -> None:
    place = Workspace.at(tmp_path)
    write_tap(place, meta_of("net-s0", "final", "conv1", n_taps=3))
    (line,) = succeed("store", "ls", workspace=place).splitlines()[1:]
    assert " 1 of 3 " in line
    assert line.endswith("unfinished")


def test_results_alone_are_listed(tmp_path: Path) -> None:
    place = Workspace.at(tmp_path)
    write_result(place, "one", "net-s0")
    assert first_words(succeed("store", "ls", workspace=place)) == ["one"]


def write_probe(workspace: Workspace, name: str, network: str, **how: Any) -> None:
    taps = tuple(meta_of(network, "final", tap).key for tap in TAPS)
    provenance = {"created_at": "2026-01-31T12:00:00+00:00"}
    made = make_probe(name, **{"taps": taps, "provenance": provenance} | how)
    store.write_probe(workspace.probes, made)


@pytest.fixture(scope="module")
def probed(filled: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Return the two networks, and a probe of each."""
    place = Workspace.at(tmp_path_factory.mktemp("probed") / "workspace")
    shutil.copytree(filled.root, place.root)
    write_probe(place, "first", "net-s0", pool="whole")
    write_probe(place, "second", "net-s1")
    return place


def test_ls_has_a_table_of_probes_behind_the_others(filled: Workspace, probed: Workspace) -> None:
    *others, probes = succeed("store", "ls", workspace=probed).split("\n\n")
    assert others == succeed("store", "ls", workspace=filled).rstrip().split("\n\n")
    head, first, second = probes.splitlines()
    assert head.split() == "probe of trained on tested on taps pool raw stored age".split()
    sets = ["digits-train-50-89abcdef", meta_of("net-s0", "final", "conv1").key.sample_set]
    # Four numbers of each of three taps, and a share of two classes, in 8 bytes each.
    assert first.split()[:8] == ["first", "net-s0@final", *sets, "3", "whole", "144", "B"]
    assert second.split()[:6] == ["second", "net-s1@final", *sets, "3", "mean"]
    assert second.split()[-1] == "d"


def test_json_of_ls_tells_what_probes_are_of(probed: Workspace) -> None:
    out = succeed("store", "ls", "net-s0@final", "--json", workspace=probed)
    (found,) = json.loads(out)["probes"]
    files = [path for path in (probed.probes / "first").rglob("*") if path.is_file()]
    assert found == {
        "name": "first",
        "run": "net-s0",
        "checkpoint": "final",
        "train_set": "digits-train-50-89abcdef",
        "sample_set": meta_of("net-s0", "final", "conv1").key.sample_set,
        "taps": list(TAPS),
        "pool": "whole",
        "raw_bytes": 144,
        "stored_bytes": sum(path.stat().st_size for path in files),
        "created_at": "2026-01-31T12:00:00+00:00",
    }


PROBES = {
    "a run": (["net-s1"], "second"),
    "a checkpoint that has none": (["*@init"], ""),
    "a tap": (["*@final:tokens"], "first second"),
    "a tap that is not probed": (["*@final:c0"], None),
    "attribute": (["--where", "seed=1"], "second"),
    "pool": (["--where", "pool=mean"], "second"),
    "what they have no name for": (["--where", "estimator=unbiased"], ""),
}


@pytest.mark.parametrize(("arguments", "wanted"), PROBES.values(), ids=PROBES)
def test_ls_lists_the_probes_that_fit(
    probed: Workspace, arguments: list[str], wanted: str | None
) -> None:
    if wanted is None:
        assert run("store", "ls", *arguments, workspace=probed).exit_code == 1
        return
    found = json.loads(succeed("store", "ls", *arguments, "--json", workspace=probed))["probes"]
    assert [probe["name"] for probe in found] == wanted.split()


def test_probes_alone_are_listed(tmp_path: Path) -> None:
    place = Workspace.at(tmp_path)
    write_probe(place, "one", "net-s0")
    for where in ([], ["--where", "pool=mean"]):
        assert first_words(succeed("store", "ls", *where, workspace=place)) == ["one"]
    result = run("store", "ls", "--where", "kernel=rbf", workspace=place)
    assert "has the name 'kernel'; use one of pool, as in" in result.stderr
    assert " fits x@*; " in run("store", "ls", "x@*", workspace=place).stderr


@pytest.mark.parametrize("lost", ["pool", "taps"])
def test_ls_names_a_malformed_probe_and_lists_the_rest(
    probed: Workspace, tmp_path: Path, lost: str
) -> None:
    place = Workspace.at(tmp_path / "workspace")
    shutil.copytree(probed.root, place.root)
    file = place.probes / "first" / "zarr.json"
    written = json.loads(file.read_text())
    del written["attributes"]["allcnn_probe"][lost], written["attributes"]["allcnn_seal"]
    file.write_text(json.dumps(written))
    *_, probes, damage = succeed("store", "ls", workspace=place).split("\n\n")
    assert first_words(probes) == ["second"]
    assert "metadata of probe first are damaged (it is malformed)" in damage


def test_an_empty_workspace_says_what_to_do(tmp_path: Path) -> None:
    result = run("store", "ls", workspace=Workspace.at(tmp_path / "workspace"))
    assert result.exit_code == 1
    root = tmp_path / "workspace"
    wanted = f"nothing is extracted yet in {root}; train a network first with `allcnn train"
    assert result.stderr.startswith(f"Error: {wanted} --workspace {root}`, or import")
    assert list(tmp_path.iterdir()) == []


def test_the_workspace_that_needs_no_option_is_given_none(
    filled: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(filled.root.parent)
    result = CliRunner().invoke(main, ["store", "ls", "x@*"])
    assert result.stderr.endswith("fits x@*; `allcnn store ls` lists what is stored\n")


def test_show_has_a_line_for_each_tap(filled: Workspace) -> None:
    head, taps = succeed("store", "show", "net-s0@final", workspace=filled).split("\n\n")
    lines = dict(line.split(maxsplit=1) for line in head.splitlines() if "  " in line)
    assert lines["network"] == "net-s0@final"
    assert lines["sample"].startswith("set  digits-test-10-01234567: 10 examples of digits/test, 8")
    assert lines["digest"].startswith("feedc0de")
    assert lines["attributes"] == "epoch 7, seed 0"
    assert "linear-whole-4-float32-0123456789ab of 2 taps" in lines["Grams"]
    assert first_words(taps) == list(TAPS)
    conv1 = taps.splitlines()[1].split()
    assert conv1[:4] == ["conv1", "3x2x2", "float32", "4x3x2x2"]
    assert "480 B" in taps.splitlines()[1]


def test_json_of_show_has_what_stands_in_the_metadata(filled: Workspace) -> None:
    found = json.loads(succeed("store", "show", "net-s*@final", "--json", workspace=filled))[
        "networks"
    ]
    assert [network["run"] for network in found] == ["net-s0", "net-s1"]
    out = succeed("store", "show", "net-s0@*:conv1", workspace=filled)
    assert out.index("net-s0@init") < out.index("net-s0@final")
    sample_set = meta_of("net-s0", "final", "conv1").sample_set
    assert found[0]["sample_set"] == sample_set.to_json() | {"name": sample_set.name}
    assert (len(found[0]["grams"]), found[1]["grams"]) == (1, [])
    assert [tap["shape"] for tap in found[0]["taps"]] == [[3, 2, 2], [2, 3], [5]]
    assert found[0]["taps"][0]["codecs"] == ["bytes", "crc32c"]


def test_digests_of_rows_are_equal_where_the_rows_are(filled: Workspace) -> None:
    found = json.loads(succeed("store", "show", "*@*:conv1", "--json", workspace=filled))[
        "networks"
    ]
    digests = [network["taps"][0]["rows_digest"] for network in found]
    assert len(set(digests)) == 1  # all were made from one seed
    others = json.loads(succeed("store", "show", "*@final:logits", "--json", workspace=filled))[
        "networks"
    ]
    assert others[0]["taps"][0]["rows_digest"] != digests[0]


def test_show_takes_a_run_for_all_its_checkpoints(filled: Workspace) -> None:
    out = succeed("store", "show", "net-s1", workspace=filled)
    assert out == succeed("store", "show", "net-s1@*", workspace=filled)


def test_show_knows_a_network_by_its_grams_alone(writable: Workspace) -> None:
    shutil.rmtree(writable.activations)
    out = succeed("store", "show", "net-s0@final", workspace=writable)
    assert "linear-whole-4" in out
    assert "tap " not in out


def load_npz(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as found:
        return dict(found)


def load_csv(path: Path) -> dict[str, np.ndarray]:
    with path.open(newline="") as file:
        names, *lines = csv.reader(file)
    columns = np.array(lines, float).reshape(len(lines), len(names)).T
    return dict(zip(names, columns, strict=True))


def load_parquet(path: Path) -> dict[str, np.ndarray]:
    table = pyarrow.parquet.read_table(path)
    return {name: table[name].to_numpy() for name in table.column_names}


def test_npz_has_values_samples_labels_and_metadata(filled: Workspace, tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    out = succeed("store", "query", "net-s0@final:conv1", "--to", path, workspace=filled)
    meta = meta_of("net-s0", "final", "conv1")
    assert out == f"{path}  10 x 3 x 2 x 2 values of net-s0@final:conv1 on {meta.key.sample_set}\n"
    found, (samples, labels) = load_npz(path), coordinates(meta)
    assert list(found) == ["values", "samples", "labels", "metadata"]
    np.testing.assert_array_equal(found["values"], make_rows(meta))
    assert found["values"].dtype == np.float32
    np.testing.assert_array_equal(found["samples"], samples)
    np.testing.assert_array_equal(found["labels"], labels)
    assert json.loads(str(found["metadata"])) == meta.to_json() | {"channels": None, "space": None}


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_tables_have_a_line_for_each_example(
    filled: Workspace, tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / f"a.{suffix}"
    how = ["--rows", "2:9", "--label", "2-4,8", "--channels", "1"]
    succeed("store", "query", "net-s0@final:conv1", "--to", path, *how, workspace=filled)
    found = (load_csv if suffix == "csv" else load_parquet)(path)
    names = [f"y{y}_x{x}_c1" for y in range(3) for x in range(2)]
    assert list(found) == ["sample", "label", *names]
    assert found["sample"].tolist() == [7, 6, 5, 1]
    assert found["label"].tolist() == [2, 3, 4, 8]
    rows = make_rows(meta_of("net-s0", "final", "conv1"))[[2, 3, 4, 8], ..., 1]
    values = np.stack([found[name] for name in names], axis=1).astype(np.float32)
    np.testing.assert_array_equal(values, rows.reshape(4, 6))


@pytest.mark.parametrize("suffix", ["npz", "csv", "parquet"])
def test_means_over_space_and_no_row_at_all(filled: Workspace, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    query = ["query", "net-s0@final:tokens", "--to", path, "--pool", "mean"]
    succeed("store", *query, "--rows", "0:1", "--label", "5", workspace=filled)
    succeed("store", *query, "--overwrite", workspace=filled)
    wanted = make_rows(meta_of("net-s0", "final", "tokens")).mean(1, np.float64).astype(np.float32)
    if suffix == "npz":
        values = load_npz(path)["values"]
    else:
        found = (load_csv if suffix == "csv" else load_parquet)(path)
        assert list(found)[2:] == ["c0", "c1", "c2"]
        values = np.stack([found[f"c{i}"] for i in range(3)], axis=1).astype(np.float32)
    np.testing.assert_array_equal(values, wanted)


@pytest.mark.parametrize("suffix", ["npz", "csv", "parquet"])
@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_other_types_lose_nothing(tmp_path: Path, suffix: str, dtype: str) -> None:
    place, path = Workspace.at(tmp_path / "workspace"), tmp_path / f"a.{suffix}"
    meta = meta_of("net-s0", "final", "logits", dtype=dtype)
    write_tap(place, meta)
    succeed("store", "query", "net-s0@final:logits", "--to", path, workspace=place)
    if suffix == "npz":
        values = load_npz(path)["values"]
        assert values.dtype == dtype
    else:
        found = (load_csv if suffix == "csv" else load_parquet)(path)
        values = np.stack([found[f"c{i}"] for i in range(5)], axis=1)
    np.testing.assert_array_equal(values.astype(dtype), make_rows(meta))


def test_a_query_where_grams_alone_are_kept_says_how_to_get_activations(
    writable: Workspace, tmp_path: Path
) -> None:
    root = writable.root
    query = ["store", "query", "net-s0@final:conv1", "--to", tmp_path / "a.npz"]
    wanted = (
        "Error: only Grams of net-s0@final on digits-test-10-01234567 are kept, and a query needs"
        " activations; store it again by the program that made it, or import its files again"
        " (`allcnn store import --help` says how)\n"
    )
    succeed("store", "rm", "net-s0@final", "--what", "activations", "--yes", workspace=writable)
    assert run(*query, workspace=writable).stderr == wanted
    shutil.rmtree(writable.activations)
    assert run(*query, workspace=writable).stderr == wanted
    on = ["--sample-set", "x"]
    assert (
        " fits net-s0@final:conv1 and --sample-set x; "
        in run(*query, *on, workspace=writable).stderr
    )
    (root / "runs" / "net-s0").mkdir(parents=True)
    (root / "runs" / "net-s0" / "config.json").write_text("{}")
    ours = "restore checkpoint 'final' of run 'net-s0', which has none\n"
    assert run(*query, workspace=writable).stderr.endswith(ours)


def test_parquet_has_the_metadata(filled: Workspace, tmp_path: Path) -> None:
    succeed(
        "store", "query", "net-s1@final:logits", "--to", tmp_path / "a.parquet", workspace=filled
    )
    schema = pyarrow.parquet.read_schema(tmp_path / "a.parquet")
    described = json.loads(schema.metadata[b"allcnn"])
    assert described["key"].endswith("/net-s1/final/logits")


@pytest.mark.parametrize("suffix", ["npz", "csv", "parquet"])
def test_a_file_is_written_whole_or_not_at_all(writable: Workspace, suffix: str) -> None:
    folder = writable.root / "files"
    folder.mkdir()
    path = folder / f"a.{suffix}"
    query = ["query", "net-s0@final:conv1", "--to", path]
    key = meta_of("net-s0", "final", "conv1").key
    flip_bit(chunk_files(writable.activations / key.path / "activations")[2])
    result = run("store", *query, workspace=writable)
    assert (result.exit_code, list(folder.iterdir())) == (1, [])
    assert "rows 8 to 9 of tap conv1" in result.stderr
    path.write_text("mine")
    assert run("store", *query, "--overwrite", workspace=writable).exit_code == 1
    assert (path.read_text(), list(folder.iterdir())) == ("mine", [path])
    succeed("store", *query, "--overwrite", "--rows", ":8", workspace=writable)
    assert path.read_bytes() != b"mine"
    assert list(folder.iterdir()) == [path]


BAD = {
    "nothing fits": (["ls", "x@*"], 1, "fits x@*; `allcnn store ls --workspace /"),
    "nothing fits both": (["ls", "*@init", "--where", "epoch=7"], 1, "fits *@init and epoch=7"),
    "half a pattern": (["ls", "net-s0:conv1"], 2, "names no network; write RUN@CHECKPOINT"),
    "half a pattern to query": (["query", "net-s0", "--to", "a.npz"], 2, "names no network; write"),
    "no comparison": (["ls", "--where", "epoch"], 2, "'epoch' compares nothing; write NAME=VALUE"),
    "two to order by": (["ls", "--where", "seed>=0,1"], 2, "seed>= is [0, 1]; give one number"),
    "text for a known number": (["ls", "--where", "n_samples=x"], 2, "n_samples is a number, and"),
    "unknown name": (["ls", "--where", "epoc=5"], 1, "has the name 'epoc'; use one of batch_size,"),
    "how to compare": (["ls", "--where", "epoc=5"], 1, ", tap, as in NAME=VALUE or NAME>=VALUE"),
    "text for a number": (["ls", "--where", "epoch=five"], 1, "epoch is a number"),
    "text for a result's": (["ls", "--where", "label=x"], 1, "label is a number"),
    "name of Grams": (["ls", "--where", "kernel=rbf"], 1, " fits kernel=rbf; `allcnn store ls"),
    "size of minibatches": (["ls", "--where", "batch_size=9"], 1, " fits batch_size=9; `allcnn s"),
    "name of results": (["ls", "--where", "sigma=0.4"], 1, " fits sigma=0.4; `allcnn store ls"),
    "compared twice": (["ls", "--where", "seed=0", "--where", "seed=1"], 2, "where compares seed"),
    "run twice": (["ls", "a@*", "--where", "run=b"], 2, "run is in the pattern and in --where"),
    "unknown network": (["show", "x@final"], 1, "fits x@final"),
    "unknown sample set": (
        ["show", "*@*", "--sample-set", "x"],
        1,
        "fits *@* and --sample-set x; `allcnn store ls --workspace /",
    ),
    "unknown format": (["query", "*@*", "--to", "a.txt"], 2, "ends in .npz or .csv or .parquet"),
    "no folder": (["query", "*@*", "--to", "no/such/a.npz"], 2, "no/such is no folder"),
    "several": (["query", "*@final:conv1", "--to", "a.npz"], 2, "fits 2 representations (net-s0@"),
    "none": (["query", "x@final:conv1", "--to", "a.npz"], 1, "fits x@final:conv1; `all"),
    "rows": (["query", "net-s0@final:conv1", "--to", "a.npz", "--rows", "3"], 2, "write A:B"),
    "address": (["query", "*@*", "--to", "s3://b/a.npz"], 2, "s3://b/a.npz is an address; give a"),
    "reversed rows": (
        ["query", "net-s0@final:conv1", "--to", "a.npz", "--rows", "5:2"],
        2,
        "rows is 5:2, and between these lies none of the 10 rows of net-s0@final:conv1",
    ),
    "no rows": (
        ["query", "net-s0@final:conv1", "--to", "a.npz", "--rows", "-2:8"],
        2,
        "rows is -2:8",
    ),
    "too many rows": (
        ["query", "net-s0@final:conv1", "--to", "a.npz", "--rows", ":11"],
        1,
        "are 0 to 9, and 11 was asked for",
    ),
    "absent label": (
        ["query", "net-s0@final:conv1", "--to", "a.npz", "--label", "10"],
        1,
        "its labels are 0, 1, 2",
    ),
    "absent channel": (
        ["query", "net-s0@final:conv1", "--to", "a.npz", "--channels", "1,2"],
        1,
        "channels of net-s0@final:conv1 are 0 to 1, and 2 was asked for",
    ),
    "unfinished": (
        ["query", "net-s1@init:logits", "--to", "a.npz"],
        1,
        "has 8 of 10 rows, and row 9 was selected; finish its extraction, or select rows before 8",
    ),
}


@pytest.mark.parametrize(("arguments", "status", "sentence"), BAD.values(), ids=BAD.keys())
def test_bad_input_is_one_sentence_and_writes_nothing(
    filled: Workspace,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    status: int,
    sentence: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run("store", *arguments, workspace=filled)
    assert (result.exit_code, len(result.stderr.splitlines())) == (status, 1)
    assert result.stderr.startswith("Error: ")
    assert sentence in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_exists_is_kept(filled: Workspace, tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_text("mine")
    result = run(
        "store", "query", "net-s0@final:conv1", "--to", tmp_path / "a.npz", workspace=filled
    )
    assert result.exit_code == 2
    assert "a.npz, which exists; replace it with --overwrite" in result.stderr
    assert (tmp_path / "a.npz").read_text() == "mine"


def test_tables_too_wide_to_open_are_refused(
    filled: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "MOST_COLUMNS", 11)
    result = run(
        "store", "query", "net-s0@final:conv1", "--to", tmp_path / "a.csv", workspace=filled
    )
    assert result.exit_code == 2
    assert "has 12 features an example, and a table takes 11; average with" in result.stderr
    assert list(tmp_path.iterdir()) == []
    succeed("store", "query", "net-s0@final:conv1", "--to", tmp_path / "a.npz", workspace=filled)


def test_help_of_every_option_says_what_it_is() -> None:
    commands = [c for c in vars(query_commands).values() if isinstance(c, click.Command)]
    options = [p for command in commands for p in command.params if p.param_type_name == "option"]
    assert len(options) > 10
    assert [p.name for p in options if not getattr(p, "help", "")] == []


@pytest.mark.parametrize(
    ("n_bytes", "wanted"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (99_949, "99.9 kB"),
        (99_950, "100 kB"),
        (999_499, "999 kB"),
        (999_500, "1.0 MB"),
        (2_400_000_000, "2.4 GB"),
        (7 * 10**15, "7000 TB"),
    ],
)
def test_sizes_have_two_or_three_digits(n_bytes: int, wanted: str) -> None:
    assert listing.size(n_bytes) == wanted


@pytest.mark.parametrize(
    ("seconds", "wanted"),
    [
        (-5, "0 s"),
        (59, "59 s"),
        (60, "1 min"),
        (3599, "59 min"),
        (3600, "1 h"),
        (86_399, "23 h"),
        (86_400, "1 d"),
        (400 * 86_400, "400 d"),
    ],
)
def test_ages_are_in_their_largest_unit(seconds: int, wanted: str) -> None:
    now = datetime(2026, 1, 31, 12, tzinfo=UTC)
    assert listing.age((now - timedelta(seconds=seconds)).isoformat(), now) == wanted
