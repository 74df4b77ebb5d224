"""Repairing: what was damaged is computed again, nothing else, and ends as the same bits."""

import itertools
import json
import re
import shlex
import shutil
from dataclasses import replace

import jax
import numpy as np
import pytest
from click.testing import CliRunner

import store
from allcnn import extract
from allcnn.compare import compare
from allcnn.datasets import splits
from allcnn.maintenance.repair import repair
from allcnn.networks.architectures.convnet import ConvNet
from allcnn.settings.extraction import Extraction
from allcnn.settings.selection import Selection
from allcnn.workspace.paths import Workspace
from flows.cli.main import main
from store import Writer
from store.arrays import writer as writers
from store.maintenance.verify import verify
from store.storage.claims import is_claimed
from store.zarrfiles.metadata_files import read_attributes, write_attributes
from tests.faults import (
    Killed,
    chunk_files,
    end_claims,
    flip_bit,
    killed_before,
    relabel,
    write_again,
)
from tests.networks import comparison
from tests.strategies import batches, coordinates, make_meta, make_rows

RUN = "small-d1-v2-s0"
N = 22
"""Minibatches of 8, 8 and 6 rows."""

KINDS = ("activations", "grams", "similarity")


@pytest.fixture(scope="module")
def extracted(trained, tmp_path_factory):
    """Return a workspace with activations, Grams and a result, which no test may change."""
    place = Workspace.at(tmp_path_factory.mktemp("extracted") / "workspace")
    shutil.copytree(trained.root, place.root)
    how = {"n_samples": N, "batch_size": 8}
    extract.extract(
        place, Extraction(RUN, "final", keep=("activations", "grams"), kernel="rbf", **how)
    )
    extract.extract(place, Extraction(RUN, "init", dtype="float16", compression="zstd", **how))
    side = Selection(RUN, "final")
    compare(place, comparison(side, side, batch_size=8))
    return place


@pytest.fixture
def place(extracted, tmp_path):
    shutil.copytree(extracted.root, tmp_path / "workspace")
    return Workspace.at(tmp_path / "workspace")


@pytest.fixture
def passes(monkeypatch):
    """Return the numbers of images of the forward passes that are made."""
    apply, made = ConvNet.apply, []

    def counted(network, variables, images):
        if not isinstance(images, jax.core.Tracer):
            made.append(len(images))
        return apply(network, variables, images)

    monkeypatch.setattr(ConvNet, "apply", counted)
    return made


def damage_of(place):
    stores = {
        "activations": place.activations,
        "grams": place.grams,
        "similarity": place.similarity,
    }
    found = (verify(path, kind) for kind, path in stores.items() if path.exists())
    return [each for checked in found for one in checked for each in one.damage]


def repair_all(place):
    found = damage_of(place)
    assert found
    outcomes = repair(place, found)
    assert [outcome.damage for outcome in outcomes] == found
    return outcomes


def assert_repaired(place, whole):
    outcomes = repair_all(place)
    assert all(outcome.repaired for outcome in outcomes), outcomes
    assert damage_of(place) == []
    assert contents(place) == contents(whole)
    return outcomes


def assert_left_alone(place, message):
    before = contents(place)
    outcomes = repair_all(place)
    assert not any(outcome.repaired for outcome in outcomes), outcomes
    for outcome in outcomes:
        assert re.search(message, outcome.said), outcome.said
    assert contents(place) == before
    return outcomes


def contents(place):
    """Return all files, without who made them, and when."""
    files = (path for path in place.root.rglob("*") if path.is_file())
    return {str(p.relative_to(place.root)): plain(p.read_bytes()) for p in files}


def plain(content):
    if not content.startswith(b"{"):
        return content
    try:
        return json.dumps(unstamped(json.loads(content)), sort_keys=True)
    except ValueError:
        return content


def unstamped(node):
    if isinstance(node, dict):
        dropped = ("created_at", "created_by", "allcnn_seal")
        return {k: unstamped(v) for k, v in node.items() if k not in dropped}
    return node


def tap_of(place, tap, checkpoint="final"):
    (found,) = [
        one for one in store.open(place.activations).find(RUN, checkpoint) if one.key.tap == tap
    ]
    return found


def grams_of(place, tap):
    (found,) = [one for one in store.open_grams(place.grams).find() if one.key.of.tap == tap]
    return found


def chunks_of(one):
    return chunk_files(one.place / one.form.array)


# Rows


@pytest.mark.parametrize("checkpoint", ["final", "init"])
def test_only_damaged_minibatches_are_computed(place, extracted, passes, checkpoint):
    flip_bit(chunks_of(tap_of(place, "conv1", checkpoint))[0])
    chunks_of(tap_of(place, "conv5", checkpoint))[0].unlink()
    chunks_of(tap_of(place, "logits", checkpoint))[2].write_bytes(b"")
    written = {p: p.stat().st_mtime_ns for p in place.root.rglob("c/*") if p.is_file()}
    outcomes = assert_repaired(place, extracted)
    assert passes == [8, 8]
    said = f"computed again from checkpoint {checkpoint} of run {RUN}"
    assert [outcome.said for outcome in outcomes] == 3 * [said]
    changed = {p for p, time in written.items() if p.stat().st_mtime_ns != time}
    assert len(changed) <= 3


def test_other_bits_are_reported(place, monkeypatch):
    """As another device computes them."""
    apply = ConvNet.apply

    def other(*arguments):
        return {name: tap * np.float32(1.001) for name, tap in apply(*arguments).items()}

    monkeypatch.setattr(ConvNet, "apply", other)
    flip_bit(chunks_of(tap_of(place, "conv1"))[0])
    (outcome,) = repair_all(place)
    assert outcome.repaired
    assert outcome.said.endswith(
        f" of run {RUN}, in other bits: another device or version wrote it first"
    )
    assert damage_of(place) == []


def test_a_whole_store_gives_nothing_to_do(place, passes):
    assert repair(place, []) == []
    assert passes == []


def test_every_minibatch_of_every_tap(place, extracted, passes):
    for one in store.open(place.activations).find(RUN, "final"):
        for file in chunks_of(one):
            flip_bit(file)
    assert_repaired(place, extracted)
    assert passes == [8, 8, 8]


# Kills


def injure_some(place):
    """Damage minibatches, a whole group and Grams; return what they are."""
    flip_bit(chunks_of(tap_of(place, "conv1"))[0])
    flip_bit(chunks_of(tap_of(place, "conv4"))[2])
    flip_bit(*chunk_files(tap_of(place, "conv3").place / "label"))
    flip_bit(chunks_of(grams_of(place, "conv2"))[0])
    return {(each.kind, each.path) for each in damage_of(place)}


def repair_what_is_damaged(place):
    assert all(outcome.repaired for outcome in repair(place, damage_of(place)))
    assert damage_of(place) == []


def extract_what_is_unfinished(place):
    how = {"keep": ("activations", "grams"), "kernel": "rbf", "n_samples": N, "batch_size": 8}
    extract.extract(place, Extraction(RUN, "final", **how))


@pytest.mark.parametrize("step", [61, pytest.param(5, marks=pytest.mark.slow)])
def test_a_repair_that_is_killed_loses_nothing_and_is_gone_on_with(extracted, tmp_path, step):
    """By another repair, but for a group of whose making no more than the beginning is there."""
    whole, steps = contents(extracted), [repair_what_is_damaged, extract_what_is_unfinished]
    for n in itertools.count(step=step):
        place = Workspace.at(shutil.copytree(extracted.root, tmp_path / str(n)))
        injured = injure_some(place)
        try:
            with killed_before(n):
                repair(place, damage_of(place))
        except Killed:
            end_claims()
        else:
            break
        assert {(each.kind, each.path) for each in damage_of(place)} <= injured
        found = contents(place)
        lost = {name for name, content in whole.items() if found.get(name) != content}
        assert all(any(path in name for _, path in injured) for name in lost)
        steps.reverse()
        for go_on in steps:
            go_on(place)
        assert contents(place) == whole
    assert n > 30


# Coordinates and metadata


def break_json(folder):
    (folder / "zarr.json").write_text("{")


def lose_json(folder):
    (folder / "zarr.json").unlink()


def change_seal(folder):
    text = (folder / "zarr.json").read_text()
    (folder / "zarr.json").write_text(text.replace('"n_samples": 22', '"n_samples": 23'))


def flip_label(folder):
    flip_bit(*chunk_files(folder / "label"))


def rename_dimension(folder):
    (array,) = [name for name in ("activations", "grams") if (folder / name).exists()]
    text = (folder / array / "zarr.json").read_text()
    (folder / array / "zarr.json").write_text(text.replace('"dimension', '"dimemsion'))


WHOLE = [break_json, lose_json, change_seal, flip_label, rename_dimension]


@pytest.mark.parametrize("injure", WHOLE)
@pytest.mark.parametrize("checkpoint", ["final", "init"])
def test_a_damaged_group_is_made_again(place, extracted, passes, injure, checkpoint):
    injure(tap_of(place, "conv3", checkpoint).place)
    (outcome,) = assert_repaired(place, extracted)
    assert passes == [8, 8, 8]
    assert outcome.said == f"made again from checkpoint {checkpoint} of run {RUN}"


def test_two_damages_of_a_group_are_one_repair(place, extracted, passes):
    tap = tap_of(place, "conv3")
    flip_label(tap.place)
    flip_bit(chunks_of(tap)[1])
    flip_bit(chunks_of(tap_of(place, "conv4"))[1])
    assert len(assert_repaired(place, extracted)) == 3
    assert passes == [8, 8, 8]


def test_an_unfinished_tap_stays_as_far_as_it_was(place, passes):
    tap = tap_of(place, "conv3")
    attributes = json.loads((tap.place / "zarr.json").read_text())["attributes"]
    attributes["allcnn_commits"] = attributes["allcnn_commits"][:2]
    store.zarrfiles.metadata_files.write_attributes(tap.place, attributes)
    wanted = tap.commits[:2]
    flip_label(tap.place)
    assert all(outcome.repaired for outcome in repair_all(place))
    assert tap_of(place, "conv3").commits == wanted
    assert passes == [8, 8]


def test_folders_are_repaired_without_a_checkpoint(place, extracted, passes):
    for root in (place.activations, place.grams, place.similarity):
        break_json(root)
    set_folder = tap_of(extracted, "conv1").key.sample_set
    break_json(place.activations / set_folder)
    lose_json(place.grams / set_folder / RUN)
    assert_repaired(place, extracted)
    assert passes == []


# Grams


@pytest.mark.parametrize("injure", [None, *WHOLE])
def test_grams_come_from_whole_activations(place, extracted, passes, injure):
    one = grams_of(place, "conv2")
    if injure is None:
        flip_bit(chunks_of(one)[0])
    else:
        injure(one.place)
    (outcome,) = repair_all(place)
    assert outcome.repaired
    assert damage_of(place) == []
    if injure is not None:
        # Extraction computes Grams before it knows of which rows they will have been.
        found = grams_of(place, "conv2")
        assert found.rows_digest == tap_of(place, "conv2").rows_digest
        attributes = read_attributes(found.place)
        del attributes["allcnn_source"]
        write_attributes(found.place, attributes)
    assert contents(place) == contents(extracted)
    assert passes == []
    assert outcome.said.endswith(" from its activations")


@pytest.mark.parametrize("injure", [None, *WHOLE])
@pytest.mark.parametrize("lost", ["all", "tap"])
def test_grams_come_from_the_checkpoint_where_activations_do_not_serve(
    place, extracted, passes, injure, lost
):
    shutil.rmtree(place.activations if lost == "all" else tap_of(place, "conv2").place)
    one = grams_of(place, "conv2")
    if injure is None:
        flip_bit(chunks_of(one)[0])
    else:
        injure(one.place)
    outcomes = repair_all(place)
    assert [each.damage.kind for each in outcomes] == ["activations"] * (lost == "tap") + ["grams"]
    for outcome in outcomes:
        assert outcome.repaired, outcome
    assert outcomes[0].said.endswith(f" from checkpoint final of run {RUN}")
    if lost == "tap":
        # A tap that is gone is made again first, and then serves.
        assert outcomes[1].said.endswith(" from its activations")
        found = grams_of(place, "conv2")
        attributes = read_attributes(found.place)
        attributes.pop("allcnn_source", None)
        write_attributes(found.place, attributes)
    grams = ("grams.zarr/", "similarity.zarr/")
    wanted = {name: value for name, value in contents(extracted).items() if name.startswith(grams)}
    assert {n: v for n, v in contents(place).items() if n.startswith(grams)} == wanted
    assert set(passes) == {8}


def test_grams_are_computed_from_activations_that_were_just_repaired(place, extracted, passes):
    flip_bit(chunks_of(tap_of(place, "conv2"))[1])
    flip_bit(chunks_of(grams_of(place, "conv2"))[0])
    assert_repaired(place, extracted)
    assert passes == [8]


# What cannot be repaired


def injure_all_kinds(place):
    third, fourth = (tap_of(place, name) for name in ("conv3", "conv4"))
    flip_bit(chunks_of(tap_of(place, "conv1"))[0])
    flip_label(tap_of(place, "conv2").place)
    break_json(third.place)
    lose_json(fourth.place)


def test_nothing_is_touched_where_the_checkpoint_is_gone(place):
    injure_all_kinds(place)
    shutil.rmtree(place.find_checkpoint(RUN, "final"))
    assert_left_alone(place, f"run '{RUN}' has no checkpoint 'final'; choose one of: init")


def test_nothing_is_touched_where_the_run_is_gone(place):
    injure_all_kinds(place)
    shutil.rmtree(place.run_folder(RUN))
    assert_left_alone(place, "nothing in .* computes this; restore the run, or")


def test_nothing_is_touched_where_the_checkpoint_is_another(place):
    injure_all_kinds(place)
    folder = place.checkpoints_folder(RUN)
    shutil.rmtree(folder / "final")
    shutil.copytree(folder / "init", folder / "final")
    relabel(folder / "final")
    message = r"checkpoint 'final' of run .* has the digest sha256:.*, and what is stored comes"
    assert_left_alone(place, message)


def test_nothing_is_touched_where_the_data_are_others(place, monkeypatch):
    injure_all_kinds(place)
    monkeypatch.setattr("allcnn.datasets.splits.digest", lambda *_: "f" * 64)
    assert_left_alone(place, "the data set now gives digits-test-22-ffffffff for digits-test-22-")


def test_nothing_is_touched_where_only_the_whole_digest_tells_the_data_apart(place, monkeypatch):
    injure_all_kinds(place)
    digest = splits.digest
    monkeypatch.setattr(splits, "digest", lambda *arguments: digest(*arguments)[:8] + 56 * "f")
    assert_left_alone(
        place, "the examples of digits-test-22-.* have the digest .*ffff now, and had"
    )


def test_grams_whose_rows_are_nowhere_stay_as_they_are(place):
    one = grams_of(place, "conv2")
    flip_label(one.place)
    shutil.rmtree(place.run_folder(RUN))
    flip_bit(chunks_of(tap_of(place, "conv2"))[2])
    assert_left_alone(place, "nothing in .* computes this; restore the run, or")


def test_activations_of_others_are_left_alone(place):
    meta = make_meta("features", run="theirs", n_samples=10)
    with Writer.open(place.activations, meta, *coordinates(meta)) as writer:
        for rows in batches(meta, make_rows(meta)):
            writer.append(rows)
    flip_bit(chunk_files(place.activations / meta.key.path / "activations")[1])
    assert_left_alone(place, "nothing in .* computes this; restore the run, or")


@pytest.mark.parametrize("part", ["rows", "label"])
def test_what_another_process_writes_is_left_alone(place, part):
    tap = tap_of(place, "conv1")
    attributes = json.loads((tap.place / "zarr.json").read_text())["attributes"]
    attributes["allcnn_commits"] = attributes["allcnn_commits"][:2]
    store.zarrfiles.metadata_files.write_attributes(tap.place, attributes)
    flip_label(tap_of(place, "conv2").place)
    with Writer.open(place.activations, tap.meta, tap.samples, tap.labels):
        flip_label(tap.place) if part == "label" else flip_bit(chunks_of(tap)[0])
        first, second = repair_all(place)
        assert tap_of(place, "conv1").n_committed == 16
    assert (first.repaired, second.repaired) == (False, True)
    assert "is being written by another" in first.said


def test_a_folder_of_others_is_named_and_left(place):
    folder = place.activations / "notes"
    folder.mkdir()
    (folder / "readme.txt").write_text("mine")
    (outcome,) = assert_left_alone(place, f"move {folder} away, or delete it")
    assert outcome.damage.part == "folder"


# Symbolic links


def moved_out(place, folder, name="outside"):
    """Move a folder out of its store, and link to it."""
    elsewhere = place.root.parent / name
    folder.rename(elsewhere)
    folder.symlink_to(elsewhere, target_is_directory=True)
    return elsewhere


def files_below(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("kind", ["activations", "grams"])
@pytest.mark.parametrize("depth", [1, 2, 4])
def test_nothing_outside_of_a_store_is_removed(place, kind, depth):
    one = (tap_of if kind == "activations" else grams_of)(place, "conv3")
    root = getattr(place, kind)
    elsewhere = moved_out(place, root.joinpath(*one.key.path.split("/")[:depth]))
    before = files_below(elsewhere)
    assert_left_alone(place, "symbolic link to .*outside")
    assert files_below(elsewhere) == before


def test_nothing_is_written_outside_of_a_store(place):
    set_folder = place.activations / tap_of(place, "conv1").key.sample_set
    elsewhere = moved_out(place, set_folder)
    lose_json(elsewhere)
    before = files_below(elsewhere)
    repair_all(place)
    assert files_below(elsewhere) == before


def test_what_is_not_outside_is_repaired_all_the_same(place):
    flip_label(tap_of(place, "conv4").place)
    elsewhere = moved_out(place, tap_of(place, "conv3").place)
    before = files_below(elsewhere)
    assert {outcome.damage.path[-5:]: outcome.repaired for outcome in repair_all(place)} == {
        "conv3": False,
        "conv4": True,
    }
    assert files_below(elsewhere) == before


def test_a_group_that_a_link_leads_to_is_kept(place):
    """It is whole under its own name."""
    tap = tap_of(place, "conv3")
    shutil.rmtree(tap.place)
    tap.place.symlink_to(tap_of(place, "conv2").place)
    assert_left_alone(place, "conv3 is a symbolic link, which no store makes")


def test_a_result_outside_of_a_store_is_kept(place):
    (name,) = store.list_results(place.similarity)
    elsewhere = moved_out(place, place.similarity / name)
    before = files_below(elsewhere)
    assert_left_alone(place, "is a symbolic link, which no store makes; delete the link itself")
    assert files_below(elsewhere) == before
    assert (place.similarity / name).is_symlink()


def test_a_group_is_claimed_while_it_is_removed(place, extracted, monkeypatch):
    tap, held = tap_of(place, "conv3"), []
    remove_tree = writers.remove_tree

    def looking(folder):
        held.append(is_claimed(tap.place / "activations"))
        remove_tree(folder)

    monkeypatch.setattr(writers, "remove_tree", looking)
    flip_label(tap.place)
    assert_repaired(place, extracted)
    assert len(held) == 5
    assert all(held)


# Results


def test_a_damaged_result_is_removed_and_its_command_named(place):
    (name,) = store.list_results(place.similarity)
    flip_bit(chunk_files(place.similarity / name / "values")[0])
    flip_bit(chunk_files(place.similarity / name / "hsic")[0])
    outcomes = repair_all(place)
    assert all(outcome.repaired for outcome in outcomes)
    sample_set = tap_of(place, "conv1").key.sample_set
    command = (
        f"allcnn compare {RUN}@final {RUN}@final --kernel linear --estimator unbiased"
        f" --batch-size 8 --pool whole --sample-set {sample_set} --workspace {place.root}"
    )
    said = f"removed; `{command}` computes it again"
    assert [outcome.said for outcome in outcomes] == [said, said]
    assert store.list_results(place.similarity) == []
    assert damage_of(place) == []
    assert CliRunner().invoke(main, shlex.split(command)[1:]).exit_code == 0
    assert store.list_results(place.similarity) == [name]


FINAL, INIT = Selection(RUN, "final"), Selection(RUN, "init")
JOBS = {
    "permuted": comparison(FINAL, FINAL, batch_size=8, permutations=3),
    "one tap": comparison(replace(FINAL, tap="conv2"), FINAL, batch_size=8, pool="mean"),
    "rbf": comparison(FINAL, FINAL, kernel="rbf", sigma=0.2, batch_size=8),
    "class": comparison(FINAL, FINAL, batch_size=22, estimator="biased", label=1),
    "exact": comparison(FINAL, FINAL, kernel="cosine", estimator="exact"),
}


@pytest.mark.parametrize("job", JOBS.values(), ids=JOBS.keys())
def test_the_command_gives_the_same_result_again(place, job):
    shutil.rmtree(place.similarity)
    (result,) = compare(place, job)
    assert_computed_again(place, result)


def assert_computed_again(place, result):
    flip_bit(chunk_files(place.similarity / result.name / "hsic")[0])
    (outcome,) = repair_all(place)
    command = re.fullmatch("removed; `(.*)` computes it again", outcome.said)[1]
    assert CliRunner().invoke(main, shlex.split(command)[1:]).exit_code == 0
    again = store.read_result(place.similarity, result.name)
    np.testing.assert_array_equal(again.cka, result.cka)


def test_a_damaged_result_whose_activations_are_gone_is_kept(place):
    shutil.rmtree(place.similarity)
    (result,) = compare(place, comparison(FINAL, FINAL, estimator="exact"))
    shutil.rmtree(place.activations)
    flip_bit(chunk_files(place.similarity / result.name / "hsic")[0])
    assert_left_alone(place, "exact HSIC needs activations")


def test_a_damaged_result_whose_activations_stay_damaged_is_kept(place):
    """Its command would stop at what cannot be repaired, and what is whole of it would be gone."""
    shutil.rmtree(place.similarity)
    shutil.rmtree(place.grams)
    (result,) = compare(place, comparison(FINAL, FINAL, estimator="exact"))
    shutil.rmtree(place.checkpoints_folder(RUN) / "final")
    flip_bit(chunks_of(tap_of(place, "conv2"))[0])
    flip_bit(chunk_files(place.similarity / result.name / "hsic")[0])
    found = damage_of(place)
    said = {each.damage.kind: each for each in repair(place, found)}
    assert not any(each.repaired for each in said.values()), said
    assert re.search("conv2 on .* is damaged, and is a source of it", said["similarity"].said)
    assert store.list_results(place.similarity) == [result.name]


def test_a_damaged_result_does_not_wait_for_what_it_did_not_come_from(place):
    shutil.rmtree(place.checkpoints_folder(RUN) / "init")
    flip_bit(chunks_of(tap_of(place, "conv2", "init"))[0])
    (name,) = store.list_results(place.similarity)
    flip_bit(chunk_files(place.similarity / name / "hsic")[0])
    assert {each.damage.kind: each.repaired for each in repair_all(place)} == {
        "activations": False,
        "similarity": True,
    }


def test_the_command_holds_in_a_folder_with_a_space(extracted, tmp_path):
    shutil.copytree(extracted.root, tmp_path / "two words")
    place = Workspace.at(tmp_path / "two words")
    (name,) = store.list_results(place.similarity)
    flip_bit(chunk_files(place.similarity / name / "hsic")[0])
    (outcome,) = repair_all(place)
    command = outcome.said.removeprefix("removed; ").removesuffix(" computes it again")
    assert shlex.split(command[1:-1])[-2:] == ["--workspace", str(place.root)]


def test_a_damaged_result_of_other_rows_is_kept(place):
    tap = tap_of(place, "conv2")
    with Writer.open(place.activations, tap.meta, tap.samples, tap.labels) as writer:
        write_again(writer, 0, tap.read(0, 8) + 1)
    (name,) = store.list_results(place.similarity)
    flip_bit(chunk_files(place.similarity / name / "hsic")[0])
    assert_left_alone(place, "what is stored gives another result now")


def result_of_a_pattern(place):
    shutil.rmtree(place.similarity)
    side = Selection(RUN, "*", "conv[12]")
    extract.extract(place, Extraction(RUN, "init", n_samples=16, batch_size=8))
    extract.extract(place, Extraction(RUN, "final", n_samples=16, batch_size=8))
    (result,) = compare(place, comparison(side, side, batch_size=8, sample_set=None))
    return result


def test_a_damaged_result_of_a_pattern_is_computed_again(place):
    assert_computed_again(place, result_of_a_pattern(place))


def test_a_damaged_result_of_a_pattern_that_fits_others_now_is_kept(place):
    result = result_of_a_pattern(place)
    sample_set = result.rows[0].sample_set
    for root in (place.activations, place.grams):
        shutil.rmtree(root / sample_set / RUN / "init")
    flip_bit(chunk_files(place.similarity / result.name / "hsic")[0])
    assert_left_alone(place, "what is stored gives another result now")


def test_a_damaged_result_of_what_is_gone_is_kept(place):
    (name,) = store.list_results(place.similarity)
    flip_bit(chunk_files(place.similarity / name / "values")[0])
    shutil.rmtree(place.activations)
    shutil.rmtree(place.grams)
    assert_left_alone(place, "nothing is extracted yet")


def test_a_renamed_result_is_kept(place):
    (name,) = store.list_results(place.similarity)
    (place.similarity / name).rename(place.similarity / "figure-3")
    assert_left_alone(place, f"rename the folder to {name}, which is the result that it holds")


def test_a_damaged_result_of_another_checkpoint_is_kept(place):
    (name,) = store.list_results(place.similarity)
    attributes = json.loads((place.similarity / name / "zarr.json").read_text())["attributes"]
    digests = attributes["allcnn_result"]["provenance"]["checkpoint_digests"]["rows"]
    digests[f"{RUN}@final"] = "sha256:" + 64 * "0"
    store.zarrfiles.metadata_files.write_attributes(place.similarity / name, attributes)
    flip_bit(chunk_files(place.similarity / name / "values")[0])
    assert_left_alone(place, "what is stored gives another result now")


def test_a_damaged_result_that_does_not_say_its_origin_is_kept(place):
    (name,) = store.list_results(place.similarity)
    break_json(place.similarity / name)
    assert_left_alone(place, "its source is not known")


@pytest.mark.parametrize("injure", WHOLE)
def test_grams_made_again_say_of_which_rows_they_are(place, injure):
    for path in (place.grams, place.similarity):
        shutil.rmtree(path)
    compare(place, comparison(FINAL, FINAL, batch_size=8))
    tap = tap_of(place, "conv2")
    assert grams_of(place, "conv2").rows_digest == tap.rows_digest
    injure(grams_of(place, "conv2").place)
    assert all(outcome.repaired for outcome in repair_all(place))
    assert grams_of(place, "conv2").rows_digest == tap.rows_digest


def test_grams_are_not_repaired_from_activations_of_another_checkpoint(place, passes):
    tap = tap_of(place, "conv2")
    how = tap.samples, tap.labels
    shutil.rmtree(tap.place)
    other = replace(tap.meta, checkpoint_digest="sha256:" + 64 * "1")
    with Writer.open(place.activations, other, *how) as writer:
        for rows in batches(other, np.ones((N, *other.shape), np.float32)):
            writer.append(rows)
    wanted = [c.digest for c in grams_of(place, "conv2").commits]
    flip_bit(chunks_of(grams_of(place, "conv2"))[0])
    (outcome,) = repair_all(place)
    assert outcome.said.endswith(f" from checkpoint final of run {RUN}")
    assert [c.digest for c in grams_of(place, "conv2").commits] == wanted
    assert set(passes) == {8}


def test_grams_of_another_dtype_than_the_activations_keep_their_rows(place, passes):
    """Named after these activations, they would be taken for Grams of rows that they are not of."""
    for path in (place.grams, place.similarity):
        shutil.rmtree(path)
    compare(place, comparison(FINAL, FINAL, batch_size=8))
    before, tap = grams_of(place, "conv2"), tap_of(place, "conv2")
    rows, other = tap.read(0, N).astype(np.float16), replace(tap.meta, dtype="float16")
    how = tap.samples, tap.labels
    shutil.rmtree(tap.place)
    with Writer.open(place.activations, other, *how) as writer:
        for some in batches(other, rows):
            writer.append(some)
    passes.clear()
    flip_bit(chunks_of(before)[0])
    (outcome,) = [each for each in repair_all(place) if each.damage.kind == "grams"]
    assert outcome.said == f"computed again from checkpoint final of run {RUN}"
    after = grams_of(place, "conv2")
    assert (after.rows_digest, after.commits) == (before.rows_digest, before.commits)
    assert set(passes) == {8}


def test_grams_of_earlier_activations_are_made_again_as_a_whole(place):
    """Repaired in part they would be of two networks."""
    for path in (place.grams, place.similarity):
        shutil.rmtree(path)
    side = Selection(RUN, "final")
    compare(place, comparison(side, side, batch_size=8))
    tap = tap_of(place, "conv2")
    with Writer.open(place.activations, tap.meta, tap.samples, tap.labels) as writer:
        write_again(writer, 0, tap.read(0, 8) + 1)
    now = tap_of(place, "conv2")
    flip_bit(chunks_of(grams_of(place, "conv2"))[0])
    assert all(outcome.repaired for outcome in repair_all(place))
    found = grams_of(place, "conv2")
    assert (found.rows_digest, damage_of(place)) == (now.rows_digest, [])
    assert now.rows_digest != tap.rows_digest
    shutil.rmtree(place.grams)
    compare(place, comparison(side, side, kernel="linear", estimator="biased", batch_size=8))
    wanted = grams_of(place, "conv2")
    assert [c.digest for c in found.commits] == [c.digest for c in wanted.commits]
