"""A run as one file: whole there and back, nothing but what is listed, and nothing half."""

import errno
import hashlib
import io
import json
import os
import secrets
import shutil
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from allcnn.errors import ArchiveError, RunError, WorkspaceError
from allcnn.networks.variables import abstract
from allcnn.workspace import checkpoints, run_archive, run_export, run_record
from allcnn.workspace.paths import WHOLE, Workspace, kept_digests
from allcnn.workspace.run_archive import is_member, pack, unpack
from allcnn.workspace.run_export import export_run, import_run
from allcnn.workspace.run_listing import list_runs, remove_run
from store.storage.paths import as_place, walk_files
from tests.commands import contents
from tests.faults import as_before_seals, damaging, relabel
from tests.refusals import refusing
from tests.sweeps import every, slow
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


def entry(name, content=b"", **fields):
    """Return a header, with any fields, and what follows it."""
    info = tarfile.TarInfo(name)
    for field, value in ({"size": len(content)} | fields).items():
        setattr(info, field, value)
    form = tarfile.PAX_FORMAT if info.pax_headers else tarfile.GNU_FORMAT
    return info.tobuf(form) + content + bytes(-len(content) % 512)


def list_of(members, run=RUN, version=2, **changes):
    """Return the list of files with a right digest, whatever is in it."""
    listed = [
        {"name": name, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        | changes.get(name, {})
        for name, content in members
    ]
    values = {"format": "allcnn-run", "version": version, "run": run, "members": listed}
    digest = hashlib.sha256(json.dumps(values, indent=1).encode()).hexdigest()
    return json.dumps(values | {"sha256": f"sha256:{digest}"}, indent=1).encode()


def tar_of(file, *entries):
    """Write a tar without looking at what is in it."""
    file.write_bytes(b"".join(entries) + bytes(1024))
    return file


def forge(file, members, **list_options):
    """Write a file with right digests of whatever names and contents."""
    listed = entry("manifest.json", list_of(members, **list_options))
    return tar_of(file, listed, *(entry(name, content) for name, content in members))


def members_of(file):
    """Return the names and contents of what is in a file, but for its manifest."""
    with tarfile.open(file) as tar:
        read = [(each.name, tar.extractfile(each).read()) for each in tar]
    return read[1:]


def changed(file, name, content):
    return [(n, content if n == name else c) for n, c in members_of(file)]


def refused(file, place, match="", error=ArchiveError):
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


def test_a_file_of_the_first_version_is_imported(empty, tmp_path):
    """The digests are of what revision 838c78a wrote and showed for this run."""
    kept = Path(__file__).with_name("data") / "workspace-v2.tar.xz"
    run, files = "old-d1-v2-s0", {}
    with tarfile.open(kept) as tar:
        for info in filter(tarfile.TarInfo.isreg, tar):
            files[info.name.partition(f"runs/{run}/")[2]] = tar.extractfile(info).read()
    names = sorted(name for name in files if is_member(name, ["final"]))
    names.sort(key=lambda name: name.startswith("checkpoints"))
    members = [(name, files[name]) for name in names]
    listed = entry("manifest.json", list_of(members, run=run, version=1) + b"\n")
    file = tar_of(tmp_path / "run.tar", listed, *(entry(*each) for each in members))
    digest = "642c00a15c0f0a1ffd81f8d3e5a11fa2e15c7d4330a2657eb6c9519389ca5e5d"
    assert hashlib.sha256(file.read_bytes()).hexdigest() == digest
    found = import_run(empty, file)
    digest = "sha256:9da2486dcf9d9a84d029e2148d485ec4ac6fb5c6c61b380917a5f24c56285c67"
    assert (found.added, found.manifest.digest) == (("final",), digest)
    assert contents(empty.root / "runs" / run) == dict(members)


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


@pytest.mark.parametrize("step", [17, slow(3)])
def test_a_flipped_bit_of_many_bytes_is_found_or_harmless(tmp_path, step):
    """Harmless where no file is: between them, and after their end."""
    (tmp_path / "config.json").write_text("{}")
    file = tmp_path / "broken.tar"
    pack(tmp_path / "a.tar", "a", tmp_path, ["final"])
    content, n_found = (tmp_path / "a.tar").read_bytes(), 0
    for position in range(0, 3000, step):
        broken = bytearray(content)
        broken[position] ^= 1 << position % 8
        file.write_bytes(broken)
        try:
            unpack(file, tmp_path / "runs")
        except ArchiveError:
            n_found += 1
        else:
            assert contents(tmp_path / "runs" / "a") == {"config.json": b"{}"}
        shutil.rmtree(tmp_path / "runs", ignore_errors=True)
    assert n_found > 1200 // step  # of two headers of 512 bytes each and a list of 270


@settings(max_examples=15, deadline=None)
@given(st.data())
def test_a_flipped_bit_is_found_or_harmless(trained, exported, tmp_path_factory, data):
    content = bytearray(exported.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    folder = tmp_path_factory.mktemp("flipped")
    refused_or_whole(folder, content, trained)


def refused_or_whole(folder, content, trained):
    (folder / "run.tar").write_bytes(content)
    place = Workspace.at(folder / "place")
    try:
        import_run(place, folder / "run.tar")
    except ArchiveError:
        assert contents(place.root) == {}
        return False
    assert contents(place.root / "runs" / RUN) == contents(trained.root / "runs" / RUN)
    return True


@pytest.mark.parametrize("share", [0.0, 0.0001, 0.003, 0.04, 0.5, 0.9])
def test_a_truncated_file_is_refused(exported, empty, tmp_path, share):
    content = exported.read_bytes()
    (tmp_path / "run.tar").write_bytes(content[: int(share * len(content))])
    refused(tmp_path / "run.tar", empty, r"(cannot be read|is damaged).*; copy")


@pytest.mark.parametrize(
    "n_bytes", every(2, [-5000, 1, 512, 1024, 9000, 9999, 10_240, 10_752, 11_000])
)
def test_the_end_may_be_other_than_written(trained, exported, tmp_path, n_bytes):
    """As long as every file is there."""
    content = exported.read_bytes()
    changed = content[:-n_bytes] if n_bytes > 0 else content + b"x" * -n_bytes
    is_whole = refused_or_whole(tmp_path, changed, trained)
    assert is_whole or n_bytes > 1024


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04" + bytes(600), b"\x80\x05.", bytes(4096)])
def test_other_files_are_refused(empty, tmp_path, content):
    (tmp_path / "run.tar").write_bytes(content)
    refused(tmp_path / "run.tar", empty, r"run.tar (is no file|cannot be read).* name another")


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo, lambda path: None])
def test_what_is_no_file_is_refused(empty, tmp_path, make):
    make(tmp_path / "run.tar")
    refused(tmp_path / "run.tar", empty, r"run.tar is no file; name the file")


# Hostile files


UNLISTED = "which is no plain file of a run, or not listed; get it from a source that you trust"
KINDS = [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE]


@pytest.mark.parametrize("kind", [*KINDS, tarfile.DIRTYPE, b"?"])
@pytest.mark.parametrize("target", ["../outside", "/tmp/outside", "history.json"])
def test_links_devices_and_folders_are_refused(final, empty, tmp_path, kind, target):
    file, members = tmp_path / "run.tar", members_of(final)
    tar_of(file, entry("manifest.json", type=kind, linkname=target))
    refused(file, empty, "is no file of an exported run")
    for name in ("config.json", "other"):
        others = [entry(*each) for each in members if each[0] != name]
        special = entry(name, type=kind, linkname=target)
        tar_of(file, entry("manifest.json", list_of(members)), special, *others)
        refused(file, empty, rf"run.tar holds '{name}', {UNLISTED}")


@pytest.mark.parametrize(
    "fields",
    [
        {"pax_headers": {"path": "../outside"}},
        {"pax_headers": {"path": "/tmp/outside"}},
        {"name": "../outside"},
        {"name": "a" * 500},
        {"size": 2**60},
        {"pax_headers": {"size": str(2**60)}},
        {"size": -512},
        {"size": -1536},
        {"type": tarfile.GNUTYPE_LONGNAME, "size": 2**60},
        {"type": tarfile.XHDTYPE, "size": -512},
        {"type": tarfile.XHDTYPE, "content": b"99 path=a"},
        {"type": tarfile.XHDTYPE, "content": b"0 path=a"},
        {"type": tarfile.XGLTYPE, "content": b"\xff" * 99},
        {"type": tarfile.GNUTYPE_SPARSE, "size": 2**50},
        {"pax_headers": {"GNU.sparse.map": "0,0", "GNU.sparse.realsize": str(2**50)}},
        {"pax_headers": {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}},
    ],
)
def test_headers_that_no_export_has_are_refused(final, empty, tmp_path, fields):
    file, members = tmp_path / "run.tar", members_of(final)
    listed, special = (
        entry("manifest.json", list_of(members)),
        entry(**{"name": "config.json"} | fields),
    )
    others = [entry(*each) for each in members if each[0] != "config.json"]
    tar_of(file, listed, special, *others)
    refused(file, empty, "holds|cannot be read|is damaged")
    tar_of(file, special, listed, *others)
    refused(file, empty, "is no file|cannot be read|is damaged")


def test_headers_without_end_are_refused(empty, tmp_path):
    names = entry("long", b"manifest.json", type=tarfile.GNUTYPE_LONGNAME) * 3000
    refused(tar_of(tmp_path / "run.tar", names), empty, "cannot be read .*RecursionError")


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
    """They are refused although they are listed."""
    assert not is_member(name)
    file = forge(tmp_path / "run.tar", [*members_of(final), (name, b"a")])
    refused(file, empty, rf"run.tar holds '.*', {UNLISTED}")


def test_files_that_are_not_listed_twice_there_or_missing_are_refused(final, empty, tmp_path):
    file, members = tmp_path / "run.tar", members_of(final)
    listed = entry("manifest.json", list_of(members))
    every = [entry(*each) for each in members]
    refused(tar_of(file, listed, *every, every[-1]), empty, rf"holds 'history.json', {UNLISTED}")
    extra = entry("checkpoints/final/extra", b"a")
    refused(tar_of(file, listed, *every, extra), empty, rf"final/extra', {UNLISTED}")
    refused(tar_of(file, listed, *every[:-1]), empty, "is damaged: history.json is missing; copy")
    refused(tar_of(file, listed, listed, *every), empty, rf"holds 'manifest.json', {UNLISTED}")


@pytest.mark.parametrize(
    ("names", "reason", "error"),
    [
        (("config.json", "config.json"), rf"holds 'config.json', {UNLISTED}", ArchiveError),
        (("checkpoints/final/a", "checkpoints/final/a/b"), "Not a directory", WorkspaceError),
        (("checkpoints/final/a/b", "checkpoints/final/a"), UNLISTED, ArchiveError),
        (("history.json",), "holds no run that can be used here", ArchiveError),
        ((), "holds no run that can be used here", ArchiveError),
    ],
)
def test_lists_that_no_export_has_are_refused(empty, tmp_path, names, reason, error):
    file = forge(tmp_path / "run.tar", [(name, b"") for name in names])
    refused(file, empty, reason, error)


def test_a_file_under_two_names_is_refused(empty, tmp_path, monkeypatch):
    """Some disks do not distinguish A from a; this one is made to be of that kind."""
    real = Path.exists
    monkeypatch.setattr(
        Path, "exists", lambda path: real(path) or real(path.with_name(path.name.lower()))
    )
    names = ("checkpoints/final/a", "checkpoints/final/A")
    file = forge(tmp_path / "run.tar", [(name, b"") for name in names])
    refused(file, empty, rf"holds 'checkpoints/final/A', {UNLISTED}")


@pytest.mark.parametrize("run", ["../outside", "/outside", "", ".importing", "a/b"])
def test_a_run_that_has_no_name_is_refused(final, empty, tmp_path, run):
    file = forge(tmp_path / "run.tar", members_of(final), run=run)
    refused(file, empty, r"cannot be read as an exported run \(ConfigError: run .* is not a name")


def test_a_run_of_another_name_is_refused(final, empty, tmp_path):
    file = forge(tmp_path / "run.tar", members_of(final), run="other")
    refused(file, empty, r"run.tar holds no run .*is of a run 'small-d1-v2-s0', not 'other'")


@pytest.mark.parametrize(
    "changes",
    [
        *({"bytes": n} for n in (10**15, 10**400, -1, 1.5, "1", None)),
        *({"sha256": digest} for digest in ("0" * 64, None)),
        {"more": 1},
    ],
)
def test_sizes_and_digests_that_are_not_those_of_the_files_are_refused(
    final, empty, tmp_path, changes
):
    file = forge(tmp_path / "run.tar", members_of(final), **{"config.json": changes})
    refused(file, empty, r"config.json does not have its SHA-256|a number in it has 401 digits")


def test_a_long_list_is_not_read(empty, tmp_path):
    with (tmp_path / "run.tar").open("wb") as file:
        file.write(entry("manifest.json", size=2**32))
        file.truncate(2**33)
    refused(tmp_path / "run.tar", empty, r"run.tar is no file of an exported run; name another")


@pytest.mark.parametrize("text", ["[" * 10**5, '{"format": 1}', "5", "null", '{"a": NaN', "\x00"])
def test_odd_lists_are_refused(empty, tmp_path, text):
    tar_of(tmp_path / "run.tar", entry("manifest.json", text.encode()))
    refused(tmp_path / "run.tar", empty, r"cannot be read as an exported run \(.*; copy it again")


def test_a_list_without_its_own_digest_is_refused(final, empty, tmp_path):
    members = members_of(final)
    content = list_of(members).replace(b'"run": "small', b'"run": "large')
    file = tar_of(tmp_path / "run.tar", entry("manifest.json", content))
    refused(file, empty, "is damaged: its manifest.json does not have its own SHA-256; copy or")


def test_a_newer_format_is_named(final, empty, tmp_path):
    content = final.read_bytes().replace(b'"version": 2', b'"version": 3', 1)
    (tmp_path / "run.tar").write_bytes(content)
    refused(tmp_path / "run.tar", empty, r"format 'allcnn-run 3', and this program reads .*; impo")


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
        ({"schema_version": 99}, r"schema_version 99\)\); export it again"),
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
    refused(file, empty, r"the variables have the digest sha256:.*, not sha256:000.*\)\); export")


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
    refused(file, workspace, "is of other classes or channels than the file; import", RunError)


def test_a_run_with_other_curves_stays(workspace, final):
    first, *rest = run_record.read_history(workspace, RUN)
    run_record.write_history(workspace, RUN, (first._replace(train_loss=9.0), *rest))
    refused(final, workspace, "has other learning curves than", RunError)


def test_a_run_with_another_checkpoint_stays(workspace, exported):
    folder = workspace.checkpoints_folder(RUN)
    shutil.rmtree(folder / "init")
    shutil.copytree(folder / "final", folder / "init")
    relabel(folder / "init")
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
def test_a_full_disk_leaves_nothing_of_an_import(final, empty, monkeypatch, n):
    # The disk refuses what is opened by this function.
    monkeypatch.setattr(tarfile, "bltn_open", lambda *args: io.open(*args))  # noqa: UP020
    with refusing(n, errno.ENOSPC, empty.root) as disk:
        with pytest.raises(WorkspaceError, match=r"fix that, and import it again"):
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
    real = run_archive.replacing
    history = workspace.run_folder(RUN) / "history.json"

    def replacing(file):
        history.write_text("[]")
        return real(file)

    monkeypatch.setattr(run_archive, "replacing", replacing)
    with pytest.raises(WorkspaceError, match=r"history.json was changed while it was exported; "):
        export_run(workspace, RUN, tmp_path / "run.tar")
    assert list(tmp_path.glob("run.tar*")) == []


def test_kept_digests_are_those_of_the_variables(trained):
    folder = trained.find_checkpoint(RUN, "final")
    like = abstract(run_record.read_record(trained, RUN).network)
    found = checkpoints.digest(checkpoints.load_variables(folder, like)[0])
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
    content[content.index(b'"train_loss"')] ^= 1
    (tmp_path / "run.tar").write_bytes(content)
    with pytest.raises(ArchiveError, match="is damaged"):
        import_run(place, tmp_path / "run.tar")
    assert list(walk_files(as_place(str(place.root)))) == []
