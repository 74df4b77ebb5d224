"""A run as one file: whole there and back, refused for any other byte, and nothing half."""

import errno
import hashlib
import io
import json
import os
import secrets
import shutil
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from allcnn.errors import ArchiveError, RunError, WorkspaceError
from allcnn.networks.network import abstract
from allcnn.workspace import checkpoints, run_archive, run_export, run_record
from allcnn.workspace.checkpoint_digests import kept_digests
from allcnn.workspace.paths import WHOLE, Workspace
from allcnn.workspace.run_archive import pack, unpack
from allcnn.workspace.run_export import export_run, import_run
from allcnn.workspace.run_listing import list_runs, remove_run
from allcnn.workspace.run_manifest import Manifest, Member, is_member
from store.storage.paths import as_place, walk_files
from tests.commands import contents
from tests.faults import as_before_seals, damaging
from tests.refusals import refusing
from tests.test_store_pickle import guarded

RUN = "small-d1-v2-s0"
ALL = ("init", "epoch-0001", "final")


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory):
    """Return a file of a run with all its checkpoints."""
    file = tmp_path_factory.mktemp("exported") / "run.tar"
    export_run(trained, RUN, file, ALL)
    return file


@pytest.fixture(scope="module")
def final(trained, tmp_path_factory):
    """Return a file of the same run with its last checkpoint alone."""
    file = tmp_path_factory.mktemp("final") / "run.tar"
    export_run(trained, RUN, file)
    return file


@pytest.fixture
def empty(tmp_path):
    return Workspace.at(tmp_path / "empty")


def forge(file, members, run=RUN, **changes):
    """Write a file with a right digest of whatever names and contents."""
    listed = [Member(name, len(c), hashlib.sha256(c).hexdigest()) for name, c in members]
    listed = [each._replace(**changes.get(each.name, {})) for each in listed]
    content = Manifest(run, tuple(listed)).encode()
    with tarfile.open(file, "w", format=tarfile.GNU_FORMAT) as tar:
        for name, each in [("manifest.json", content), *members]:
            info = tarfile.TarInfo(name)
            info.size = len(each)
            tar.addfile(info, io.BytesIO(each))
    end = sum(512 + -(-len(each) // 512) * 512 for each in [content, *(c for _, c in members)])
    file.write_bytes(file.read_bytes()[: end + 1024])
    return file


def members_of(file):
    """Return the names and contents of what is in a file, but for its manifest."""
    with tarfile.open(file) as tar:
        read = [(each.name, tar.extractfile(each).read()) for each in tar]
    return read[1:]


def changed(file, name, content):
    return [(n, content if n == name else c) for n, c in members_of(file)]


def refused(file, place, match, error=ArchiveError):
    """Import a file in vain: nothing of it is left."""
    before = contents(place.root) if place.root.exists() else {}
    with pytest.raises(error, match=match) as found:
        import_run(place, file)
    assert "\n" not in str(found.value)
    assert contents(place.root) == before
    assert not (place.root / "runs" / ".importing").exists()
    assert not (place.root.parent / "outside").exists()


# There and back


def test_a_run_is_the_same_in_another_workspace(trained, exported, empty):
    found = import_run(empty, exported)
    assert found.added == ALL
    assert contents(empty.root / "runs" / RUN) == contents(trained.root / "runs" / RUN)
    assert os.listdir(empty.root / "runs") == [RUN]


def test_exporting_again_gives_the_same_bytes(trained, exported, empty, tmp_path):
    export_run(trained, RUN, tmp_path / "again.tar", ALL[::-1])
    assert (tmp_path / "again.tar").read_bytes() == exported.read_bytes()
    import_run(empty, exported)
    export_run(empty, RUN, tmp_path / "there.tar", ALL)
    assert (tmp_path / "there.tar").read_bytes() == exported.read_bytes()


def test_the_last_checkpoint_alone_is_exported_unless_others_are_named(trained, final, empty):
    assert import_run(empty, final).added == ("final",)
    assert empty.checkpoints(RUN) == ["final"]
    assert run_record.read_history(empty, RUN) == run_record.read_history(trained, RUN)


def test_tar_reads_it(trained, exported, tmp_path):
    with tarfile.open(exported) as tar:
        # Before 3.11.4 there are no filters; later ones warn where none is named.
        tar.extractall(tmp_path, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    (tmp_path / "manifest.json").unlink()
    assert contents(tmp_path) == contents(trained.root / "runs" / RUN)


def test_the_digest_stands_for_the_list_and_the_list_for_the_files(exported):
    with tarfile.open(exported) as tar:
        listed = json.loads(tar.extractfile("manifest.json").read())
    digest = listed.pop("sha256")
    assert digest == f"sha256:{hashlib.sha256(json.dumps(listed, indent=1).encode()).hexdigest()}"
    found = [(m["name"], m["bytes"], m["sha256"]) for m in listed["members"]]
    read = members_of(exported)
    assert found == [(name, len(c), hashlib.sha256(c).hexdigest()) for name, c in read]


def test_importing_again_changes_nothing(exported, empty):
    import_run(empty, exported)
    before = {p: p.stat().st_mtime_ns for p in empty.root.rglob("*") if p.is_file()}
    assert import_run(empty, exported).added == ()
    assert {p: p.stat().st_mtime_ns for p in empty.root.rglob("*") if p.is_file()} == before


def test_checkpoints_that_are_missing_are_added(trained, exported, final, empty):
    import_run(empty, final)
    assert import_run(empty, exported).added == ("init", "epoch-0001")
    assert contents(empty.root / "runs" / RUN) == contents(trained.root / "runs" / RUN)


def test_a_run_that_is_not_finished_goes_on_elsewhere(workspace, empty, tmp_path):
    shutil.rmtree(workspace.checkpoints_folder(RUN) / "final")
    run_record.write_history(workspace, RUN, run_record.read_history(workspace, RUN)[:1])
    with pytest.raises(RunError, match=r"run 'small-d1-v2-s0' is not finished; name a checkpoint"):
        export_run(workspace, RUN, tmp_path / "run.tar")
    export_run(workspace, RUN, tmp_path / "run.tar", ("epoch-0001",))
    import_run(empty, tmp_path / "run.tar")
    (one,) = list_runs(empty)
    assert (one.epochs_done, one.finished, one.checkpoints) == (1, False, ("epoch-0001",))


def test_the_end_of_a_run_is_added_to_its_beginning(workspace, exported):
    shutil.rmtree(workspace.checkpoints_folder(RUN) / "final")
    history = run_record.read_history(workspace, RUN)
    # The same epoch on another machine took another time.
    run_record.write_history(workspace, RUN, (history[0]._replace(wall_s=9.0),))
    assert import_run(workspace, exported).added == ("final",)
    assert run_record.read_history(workspace, RUN) == history


# Damage


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Return a file with settings alone, small enough to break each of its bytes."""
    folder = tmp_path_factory.mktemp("tiny")
    (folder / "config.json").write_text("{}")
    pack(folder / "a.tar", "a", folder, ["config.json"])
    return folder / "a.tar"


def test_every_byte_counts(tiny, tmp_path):
    content = tiny.read_bytes()
    file = tmp_path / "broken.tar"
    for position in range(len(content)):
        broken = bytearray(content)
        broken[position] ^= 1 << position % 8
        file.write_bytes(broken)
        with pytest.raises(ArchiveError, match=r"broken.tar .*; (copy|give|get|import|name)"):
            unpack(file, tmp_path / str(position))
    unpack(tiny, tmp_path / "whole")


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_flipped_bit_is_found(exported, tmp_path_factory, data):
    content = bytearray(exported.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    folder = tmp_path_factory.mktemp("flipped")
    (folder / "run.tar").write_bytes(content)
    refused(folder / "run.tar", Workspace.at(folder / "place"), "run.tar")


@pytest.mark.parametrize("share", [0.0, 0.0001, 0.003, 0.04, 0.5, 0.99])
def test_a_truncated_file_is_refused(exported, empty, tmp_path, share):
    content = exported.read_bytes()
    (tmp_path / "run.tar").write_bytes(content[: int(share * len(content))])
    refused(
        tmp_path / "run.tar",
        empty,
        r"run.tar (was cut off|is damaged|is no file of an exported run)",
    )


@pytest.mark.parametrize("n_bytes", [1, 512, 1024])
def test_a_few_bytes_less_or_more_are_refused(exported, empty, tmp_path, n_bytes):
    content, file = exported.read_bytes(), tmp_path / "run.tar"
    file.write_bytes(content[:-n_bytes])
    refused(file, empty, rf"was cut off \(it has {len(content) - n_bytes} bytes of {len(content)}")
    file.write_bytes(content + bytes(n_bytes))
    refused(file, empty, rf"it has {len(content) + n_bytes} bytes and should have {len(content)}")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04" + bytes(600), b"\x80\x05.", bytes(4096)])
def test_other_files_are_refused(empty, tmp_path, content):
    (tmp_path / "run.tar").write_bytes(content)
    refused(tmp_path / "run.tar", empty, r"run.tar is no file of an exported run; name")


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo, lambda path: None])
def test_what_is_no_file_is_refused(empty, tmp_path, make):
    make(tmp_path / "run.tar")
    refused(tmp_path / "run.tar", empty, r"run.tar is no file; name the file")


# Hostile files


def tar_with(file, *infos):
    with tarfile.open(file, "w") as tar:
        for info in infos:
            tar.addfile(info, io.BytesIO(bytes(info.size)))
    return file


def other_kind(name, kind, target=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE]
)
def test_links_and_devices_are_refused(final, empty, tmp_path, kind):
    target = "../outside"
    for name in ("manifest.json", "config.json"):
        file = tar_with(tmp_path / "run.tar", other_kind(name, kind, target))
        refused(
            file,
            empty,
            r"run.tar is (no file of an exported run|damaged: the header of manifest.json)",
        )
    # In a file that is right but for this one header, of a file of no bytes.
    forged = forge(tmp_path / "forged.tar", [("config.json", b"")])
    content = bytearray(forged.read_bytes())
    start = content.index(b"config.json\0")
    header = other_kind("config.json", kind, target).tobuf(tarfile.GNU_FORMAT)
    content[start : start + 512] = header
    forged.write_bytes(content)
    refused(forged, empty, r"forged.tar is damaged: the header of config.json is not as written")


OUTSIDE = [
    "../outside",
    "/tmp/outside",
    "checkpoints/../outside",
    "checkpoints/final/../../../outside",
    "checkpoints/final/variables/..",
    "checkpoints/final//outside",
    "checkpoints/final/.hidden",
    "checkpoints/final/a\\..\\b",
    "checkpoints/final/a\nb",
    "checkpoints/final",
    "checkpoints/other/file",
    "checkpoints/epoch-\u0660\u0660\u0660\u0665/file",
    "checkpoints/final/a/b/c/d/e/f",
    "checkpoints/final/" + "a" * 90,
    "other.json",
    "config.json/../outside",
    ".config.json",
    "manifest.json",
    "",
    ".",
]


@pytest.mark.parametrize("name", OUTSIDE)
def test_names_that_are_not_those_of_a_run_are_refused(final, empty, tmp_path, name):
    assert not is_member(name)
    members = [(n, c) for n, c in members_of(final) if n == "config.json"]
    file = tmp_path / "run.tar"
    content = Manifest(RUN, (Member(name, 0, hashlib.sha256(b"").hexdigest()),)).encode()
    info = tarfile.TarInfo("manifest.json")
    info.size = len(content)
    file.write_bytes(info.tobuf(tarfile.GNU_FORMAT) + content + bytes(9999) + members[0][1])
    refused(
        file, empty, r"run.tar holds '.*', which is no file of a run; get it from somebody whom"
    )


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (("config.json", "config.json"), "names a file twice"),
        (("config.json", "checkpoints/final/A", "checkpoints/final/a"), "names a file twice"),
        (("config.json", "checkpoints/final/a", "checkpoints/final/a/b"), "or one as a folder"),
        (("history.json", "config.json"), "is not in order"),
        (("history.json",), "holds no config.json"),
        ((), "holds no config.json"),
    ],
)
def test_lists_that_no_export_has_are_refused(empty, tmp_path, names, reason):
    refused(forge(tmp_path / "run.tar", [(name, b"") for name in names]), empty, reason)


@pytest.mark.parametrize("run", ["../outside", "/outside", "", ".importing", "a/b"])
def test_a_run_that_has_no_name_is_refused(final, empty, tmp_path, run):
    file = forge(tmp_path / "run.tar", members_of(final), run=run)
    refused(file, empty, r"its manifest.json cannot be read")


def test_a_run_of_another_name_is_refused(final, empty, tmp_path):
    file = forge(tmp_path / "run.tar", members_of(final), run="other")
    refused(file, empty, r"run.tar holds no run .*is of a run 'small-d1-v2-s0', not 'other'")


@pytest.mark.parametrize("n_bytes", [10**15, 10**400, -1, 1.0, True, "1", None])
def test_sizes_that_are_not_there_write_nothing(final, empty, tmp_path, n_bytes):
    changes = {"config.json": {"n_bytes": n_bytes}}
    file = forge(tmp_path / "run.tar", members_of(final), **changes)
    refused(file, empty, r"was cut off|says no size|is damaged")


def test_a_long_list_is_not_read(empty, tmp_path):
    info = tarfile.TarInfo("manifest.json")
    info.size = 2**32
    with (tmp_path / "run.tar").open("wb") as file:
        file.write(info.tobuf(tarfile.GNU_FORMAT))
        file.truncate(2**33)
    refused(tmp_path / "run.tar", empty, r"the header of manifest.json is not as written")


@pytest.mark.parametrize("text", ["[" * 10**5, '{"format": 1}', "5", "null", '{"a": NaN', "\x00"])
def test_odd_lists_are_refused(empty, tmp_path, text):
    info = tarfile.TarInfo("manifest.json")
    info.size = len(text)
    content = info.tobuf(tarfile.GNU_FORMAT) + text.encode() + bytes(4096)
    (tmp_path / "run.tar").write_bytes(content)
    refused(tmp_path / "run.tar", empty, r"its manifest.json cannot be read; copy or export it")


def test_a_newer_format_is_named(final, empty, tmp_path):
    content = final.read_bytes().replace(b'"version": 1', b'"version": 2', 1)
    (tmp_path / "run.tar").write_bytes(content)
    refused(tmp_path / "run.tar", empty, r"version 2 of the format, and this program reads 1; impo")


def settings_of(file, **changes):
    """Return the members of a file with other settings, without the seals that would tell."""
    values = json.loads(dict(members_of(file))["config.json"])
    others = {k: v for k, v in changes.items() if k not in values["config"]}
    config = values["config"] | {k: v for k, v in changes.items() if k in values["config"]}
    edits = {"config.json": {"config": config} | others, "history.json": {}}
    return [(n, as_before_seals(c, **edits[n]) if n in edits else c) for n, c in members_of(file)]


@damaging
@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"schema_version": 99}, "schema_version 99"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 1}, "is of a run 'small-d1-v2-s1'"),
        ({"prefix": "../outside"}, "not a name"),
        ({"width": 1000}, "too few for the network"),
        ({"width": 0.1}, "cannot be read"),
        ({"input_channels": 10**12}, "input_channels is 1000000000000; use 1024"),
        ({"input_channels": 3}, "cannot be read"),
        ({"created_at": "<img src=x>"}, "created_at is '<img src=x>'; want ISO 8601"),
        ({"created_at": ["2026"]}, "created_at is .*; want ISO 8601"),
        ({"input_channels": True}, "input_channels is True"),
        ({"class_names": []}, "number of classes is 0"),
        ({"class_names": [["a"]]}, "a class name is ..a..; want a text"),
        ({"epochs": 1}, "curves of 2 of its 1 epochs"),
        ({"epochs": 3}, "curves of 2 of its 3 epochs"),
        ({"unknown": 1, "config": {}}, "do not fit this version"),
    ],
)
def test_settings_that_are_not_those_of_the_checkpoints_are_refused(
    final, empty, tmp_path, changes, reason
):
    file = forge(tmp_path / "run.tar", settings_of(final, **changes))
    refused(file, empty, rf"run.tar holds no run that can be used here \(.*{reason}")


def test_settings_of_a_network_without_end_are_refused(final, empty, tmp_path):
    file = forge(tmp_path / "run.tar", settings_of(final, depth=170), run="small-d170-v2-s0")
    refused(file, empty, "too few for the network that its config.json describes")


@pytest.mark.parametrize(
    "history",
    ["{}", "[]", "5", "[1]", "nonsense", "[" * 10**5, '[{"epoch": 1}]', "[{}, {}]"],
)
def test_curves_that_are_none_are_refused(final, empty, tmp_path, history):
    file = forge(tmp_path / "run.tar", changed(final, "history.json", history.encode()))
    refused(file, empty, r"run.tar holds no run that can be used here")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("test_accuracy", v) for v in (float("nan"), float("inf"), "0.5", None, True)),
        ("epoch", 3),
    ],
)
def test_curves_of_no_numbers_are_refused(final, empty, tmp_path, name, value):
    rows = json.loads(dict(members_of(final))["history.json"])["epochs"]
    rows[1][name] = value
    file = forge(tmp_path / "run.tar", changed(final, "history.json", json.dumps(rows).encode()))
    refused(file, empty, "curves as training writes them .*row 2|stands in it, which is no JSON")


def test_a_checkpoint_that_is_not_whole_is_refused(final, empty, tmp_path):
    members = [(n, c) for n, c in members_of(final) if not n.endswith(WHOLE)]
    refused(forge(tmp_path / "run.tar", members), empty, r"\(checkpoint 'final' is not whole\)")
    members = [(n, c) for n, c in members if not n.startswith("checkpoints")]
    refused(forge(tmp_path / "run.tar", members), empty, r"\(no checkpoints\)")


def test_numbers_that_do_not_have_their_digest_are_refused(final, empty, tmp_path):
    name = f"checkpoints/final/{WHOLE}"
    kept = json.loads(dict(members_of(final))[name])
    kept["custom_metadata"]["digests"]["variables"] = "sha256:" + 64 * "0"
    file = forge(tmp_path / "run.tar", changed(final, name, json.dumps(kept).encode()))
    refused(file, empty, r"the variables have the digest sha256:.*, not sha256:000")


IMPORTING = """
from pathlib import Path
from allcnn.workspace.run_export import import_run
from allcnn.workspace.paths import Workspace

print(import_run(Workspace.at(sys.argv[2]), Path(sys.argv[1])).added)
"""


def test_importing_loads_no_pickle(final, tmp_path):
    found = guarded(IMPORTING, final, tmp_path / "place")
    assert found.returncode == 0, found.stderr
    assert found.stdout == "('final',)\n"


# Another run of that name


def test_a_run_with_other_settings_stays(workspace, final, tmp_path):
    file = forge(tmp_path / "run.tar", settings_of(final, learning_rate=0.2))
    refused(file, workspace, r"exists with learning-rate 0.1 \(asked for: 0.2\)", RunError)


def test_a_run_with_other_classes_stays(workspace, final, tmp_path):
    names = [f"class {n}" for n in range(10)]
    file = forge(tmp_path / "run.tar", settings_of(final, class_names=names))
    refused(file, workspace, "is of other classes or channels than .*run.tar; import", RunError)


def test_a_run_with_other_curves_stays(workspace, final):
    first, *rest = run_record.read_history(workspace, RUN)
    run_record.write_history(workspace, RUN, (first._replace(train_loss=9.0), *rest))
    refused(final, workspace, "has other learning curves than", RunError)


def test_a_run_with_another_checkpoint_stays(workspace, exported):
    folder = workspace.checkpoints_folder(RUN)
    shutil.rmtree(folder / "init")
    shutil.copytree(folder / "final", folder / "init")
    refused(exported, workspace, "has another checkpoint 'init' than", RunError)


def test_checkpoints_of_nobody_knows_what_stay(workspace, final, exported):
    (workspace.run_folder(RUN) / "config.json").unlink()
    refused(final, workspace, r"holds checkpoints but no config.json to say of what; ", RunError)
    # All of them are in this file, with the same digests.
    assert import_run(workspace, exported).added == ()
    assert workspace.runs() == [RUN, "small-d2-v2-s0"]


def test_a_check_may_keep_a_run_out(final, empty):
    def check(run, digests):
        raise RunError(f"{run} {list(digests)}")

    with pytest.raises(RunError, match=r"small-d1-v2-s0 \['final'\]"):
        import_run(empty, final, check)
    assert contents(empty.root) == {}


# Refusals and kills


@pytest.mark.parametrize("n", [*range(8), 20, 40, 61])
def test_a_full_disk_leaves_nothing_of_an_import(final, empty, n):
    with refusing(n, errno.ENOSPC, empty.root) as disk:
        with pytest.raises(WorkspaceError, match=r"mend that, and import it again"):
            import_run(empty, final)
    assert disk.refused
    assert (empty.runs(), contents(empty.root)) == ([], {})
    import_run(empty, final)
    assert empty.checkpoints(RUN) == ["final"]


def test_a_full_disk_leaves_nothing_of_an_export(trained, final, tmp_path):
    file = tmp_path / "run.tar"
    file.write_text("earlier")
    for n in (0, 1, 2, 5):
        with refusing(n, errno.ENOSPC, tmp_path):
            with pytest.raises(WorkspaceError, match=r"run.tar cannot be written \(No space left"):
                export_run(trained, RUN, file)
        assert contents(tmp_path) == {"run.tar": b"earlier"}
    export_run(trained, RUN, file)
    assert file.read_bytes() == final.read_bytes()


def test_what_a_kill_left_is_no_run_and_goes_with_the_next_import(final, empty, monkeypatch):
    monkeypatch.setattr(run_export, "remove_tree", lambda place: None)
    monkeypatch.setattr(run_export, "_add", lambda *_: exec("raise KeyboardInterrupt"))
    with pytest.raises(KeyboardInterrupt):
        import_run(empty, final)
    monkeypatch.undo()
    assert len(contents(empty.root)) > 20
    assert (empty.runs(), list_runs(empty)) == ([], [])
    import_run(empty, final)
    assert os.listdir(empty.root / "runs") == [RUN]


def test_a_kill_between_two_steps_leaves_a_run_or_none(trained, exported, tmp_path, monkeypatch):
    """An import into what is there already is made of renames; each in turn is the last."""
    for n in range(4):
        place = Workspace.at(tmp_path / str(n))
        shutil.copytree(trained.root, place.root)
        remove_run(place, "small-d2-v2-s0")
        for name in ("epoch-0001", "final"):
            shutil.rmtree(place.checkpoints_folder(RUN) / name)
        (place.run_folder(RUN) / "history.json").unlink()
        done, real = [], os.replace

        def once(*paths, done=done, real=real, n=n):
            if len(done) == n:
                raise KeyboardInterrupt
            done.append(paths)
            real(*paths)

        monkeypatch.setattr("store.storage.paths.os.replace", once)
        monkeypatch.setattr("allcnn.workspace.run_export.os.rename", once)
        if n < 3:
            with pytest.raises(KeyboardInterrupt):
                import_run(place, exported)
            monkeypatch.undo()
            (one,) = list_runs(place)
            assert not one.finished
            assert one.epochs_done == (2 if n else 0)
        import_run(place, exported)
        monkeypatch.undo()
        assert contents(place.root) == {
            name: content
            for name, content in contents(trained.root).items()
            if name.startswith(f"runs/{RUN}/")
        }


def test_one_import_at_a_time(final, empty):
    def check(run, digests):
        with pytest.raises(WorkspaceError, match=r"another import is at work in .*; wait for it"):
            import_run(empty, final)

    import_run(empty, final, check)
    assert empty.checkpoints(RUN) == ["final"]


def test_a_damaged_checkpoint_is_not_exported(workspace, tmp_path):
    file = workspace.checkpoints_folder(RUN) / "final" / WHOLE
    kept = json.loads(file.read_text())
    kept["custom_metadata"]["digests"]["variables"] = "sha256:" + 64 * "0"
    file.write_text(json.dumps(kept))
    with pytest.raises(RunError, match=r"final cannot be read \(the variables have the digest"):
        export_run(workspace, RUN, tmp_path / "run.tar")
    assert not (tmp_path / "run.tar").exists()


def test_a_link_is_not_exported(workspace, tmp_path):
    history = workspace.run_folder(RUN) / "history.json"
    history.rename(tmp_path / "history.json")
    history.symlink_to(tmp_path / "history.json")
    with pytest.raises(WorkspaceError, match=r"history.json is no ordinary file of a run; remove"):
        export_run(workspace, RUN, tmp_path / "run.tar")


def test_what_changes_meanwhile_is_not_exported(workspace, tmp_path, monkeypatch):
    real = run_archive._replacing
    history = workspace.run_folder(RUN) / "history.json"

    def replacing(file):
        history.write_text("[]")
        return real(file)

    monkeypatch.setattr(run_archive, "_replacing", replacing)
    with pytest.raises(WorkspaceError, match=r"history.json was changed while it was exported; "):
        export_run(workspace, RUN, tmp_path / "run.tar")
    assert list(tmp_path.glob("run.tar*")) == []


def test_kept_digests_are_those_of_the_variables(trained):
    folder = trained.find_checkpoint(RUN, "final")
    like = abstract(run_record.read_record(trained, RUN).network)
    found = checkpoints.digest(checkpoints.load_variables(folder, like))
    assert kept_digests(folder)["variables"] == found


# At an address


def test_a_run_goes_to_an_address_and_back(trained, exported, tmp_path):
    place = Workspace.at(f"memory://bucket/{secrets.token_hex(4)}/workspace")
    assert import_run(place, exported).added == ALL
    assert import_run(place, exported).added == ()
    found = {name: (place.root / "runs" / name) for name, _, _ in walk_files(place.root / "runs")}
    assert {name: path.read_bytes() for name, path in found.items()} == {
        f"{RUN}/{name}": c for name, c in contents(trained.root / "runs" / RUN).items()
    }
    export_run(place, RUN, tmp_path / "run.tar", ALL)
    assert (tmp_path / "run.tar").read_bytes() == exported.read_bytes()


def test_half_an_import_at_an_address_is_no_run(exported, monkeypatch):
    place = Workspace.at(f"memory://bucket/{secrets.token_hex(4)}/workspace")
    real, sent = run_export.send, []

    def dies(*args, **kwargs):
        if len(sent) == 2:
            raise KeyboardInterrupt
        sent.append(args)
        real(*args, **kwargs)

    monkeypatch.setattr(run_export, "send", dies)
    with pytest.raises(KeyboardInterrupt):
        import_run(place, exported)
    monkeypatch.undo()
    assert (place.runs(), place.checkpoints(RUN)) == ([], ["init", "epoch-0001"])
    assert import_run(place, exported).added == ("final",)
    assert place.runs() == [RUN]


def test_half_a_removal_at_an_address_is_no_run(exported, monkeypatch):
    place = Workspace.at(f"memory://bucket/{secrets.token_hex(4)}/workspace")
    import_run(place, exported)

    def dies(folder):
        raise KeyboardInterrupt

    monkeypatch.setattr("allcnn.workspace.run_listing.remove_tree", dies)
    with pytest.raises(KeyboardInterrupt):
        remove_run(place, RUN)
    monkeypatch.undo()
    assert place.runs() == []
    remove_run(place, RUN)
    assert list(walk_files(place.root)) == []


def test_an_address_is_not_written_before_all_was_checked(final, tmp_path):
    place = Workspace.at(f"memory://bucket/{secrets.token_hex(4)}/workspace")
    content = bytearray(final.read_bytes())
    content[-2000] ^= 1
    (tmp_path / "run.tar").write_bytes(content)
    with pytest.raises(ArchiveError, match="is damaged"):
        import_run(place, tmp_path / "run.tar")
    assert list(walk_files(as_place(str(place.root)))) == []
