"""Advice is a command that works when it is typed, and fits what is there.

Each scenario makes a workspace and names a command that advises others; these are run as they are
written, and the first one is tried again. Every place in the code that builds a command has one.
"""

import ast
import json
import re
import shlex
import shutil
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import store
from allcnn import commands
from allcnn.compare.diagnose import alike
from allcnn.extract import extract
from allcnn.settings.extraction import Extraction
from allcnn.workspace.paths import Workspace
from allcnn.workspace.sealed_json import read_sealed, write_sealed
from flows.cli import local_pipeline
from flows.cli.main import main
from store import RepresentationKey, RepresentationMeta, SampleSet
from tests.faults import chunk_files, edit_attributes, flip_bit, relabel
from tests.strategies import make_meta

D1, D2 = "small-d1-v2-s0", "small-d2-v2-s0"
FINAL = f"{D1}@final"
N, BATCH = 64, 32
ADVICE = re.compile(r"`(allcnn [^`]+)`")
ROOT = Path(__file__).parent.parent
PACKAGES = ("flows", "allcnn", "store")

Words = tuple[object, ...]
SCENARIOS: list[Callable[[Workspace], Words]] = []
INFORMS = [("store", "ls"), ("store", "show"), ("run", "ls"), ("run", "show"), ("train",)]
"""Commands that lead on, and by themselves change nothing of what was missing."""


def code() -> list[Path]:
    return [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]


INSTEAD: list[Callable[[Workspace], Words]] = []
"""Scenarios whose advice is another command than the one that was refused."""


def instead(prepare: Callable[[Workspace], Words]) -> Callable[[Workspace], Words]:
    INSTEAD.append(prepare)
    return scenario(prepare)


def scenario(prepare: Callable[[Workspace], Words]) -> Callable[[Workspace], Words]:
    SCENARIOS.append(prepare)
    return prepare


def run(words: list[str]) -> tuple[int, str]:
    result = CliRunner().invoke(main, words, prog_name="allcnn", input="y\n" * 3)
    assert not (result.exit_code and not isinstance(result.exception, SystemExit)), result.exc_info
    return result.exit_code, result.output


@pytest.fixture(scope="module")
def stored(trained: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Return a workspace whose name has to be quoted, with one network extracted and compared."""
    place = Workspace.at(tmp_path_factory.mktemp("advice") / "it's  here")
    shutil.copytree(trained.root, place.root, ignore=shutil.ignore_patterns("epoch-*"))
    extract(place, Extraction(D1, "final", n_samples=N, batch_size=BATCH))
    return place


@pytest.fixture
def place(stored: Workspace, tmp_path: Path) -> Workspace:
    shutil.copytree(stored.root, tmp_path / stored.root.name)
    return Workspace.at(tmp_path / stored.root.name)


@pytest.fixture
def reached(monkeypatch: pytest.MonkeyPatch) -> None:
    """Note which calls in the code lead to each command that is built."""
    made = commands.CommandLine.__init__

    def noting(self: commands.CommandLine, words: tuple[str, ...]) -> None:
        made(self, words)
        frame, inner = sys._getframe(1), "Command"
        while frame is not None:
            code = frame.f_code
            if any(f"{ROOT / package}/" in code.co_filename for package in PACKAGES):
                file = str(Path(code.co_filename).relative_to(ROOT))
                # A comprehension is a part of the function around it.
                function = code.co_qualname.partition(".<locals>.<")[0]
                REACHED.add((file, function, inner))
            inner = inner if code.co_name.startswith("<") else code.co_name
            frame = frame.f_back

    monkeypatch.setattr(commands.CommandLine, "__init__", noting)


REACHED: set[tuple[str, str, str]] = set()
DONE: list[str] = []


@pytest.mark.slow
@pytest.mark.parametrize("prepare", SCENARIOS, ids=lambda one: one.__name__)
def test_all_advice_works_when_it_is_typed(
    place: Workspace, trained: Workspace, terminal: None, reached: None,
    monkeypatch: pytest.MonkeyPatch, prepare: Callable[[Workspace], Words],
) -> None:  # fmt: skip
    check_advice(place, trained, monkeypatch, prepare)
    DONE.append(prepare.__name__)


def check_advice(
    place: Workspace, trained: Workspace, monkeypatch: pytest.MonkeyPatch,
    prepare: Callable[[Workspace], Words],
) -> None:  # fmt: skip
    monkeypatch.setattr(local_pipeline, "train_runs", partial(train, trained))
    asked = [*map(str, prepare(place)), "--workspace", str(place.root)]
    before, (_, told) = networks(place), run(asked)
    advised = [shlex.split(line)[1:] for line in dict.fromkeys(ADVICE.findall(told))]
    assert advised, told
    for words in advised:
        status, output = run(words)
        assert status == 0, f"{told}\n{words}\n{output}"
    status, again = run(asked)
    if prepare not in INSTEAD and not all(informs(words) for words in advised):
        assert status == 0 or again != told
    assert networks(place) >= before


def train(trained: Workspace, workspace: Workspace, *_: object, **__: object) -> list[str]:
    """Let a run be there, as if it had been trained."""
    shutil.copytree(trained.run_folder(D1), workspace.run_folder(D1), dirs_exist_ok=True)
    return [D1]


def informs(words: list[str]) -> bool:
    return "--help" in words or any(tuple(words[: len(name)]) == name for name in INFORMS)


def networks(place: Workspace) -> set[str]:
    """Return the networks that something is stored of: none may be lost by taking advice."""
    return {str(network) for network in place.stored_networks()}


@pytest.mark.slow
def test_every_advice_has_a_scenario() -> None:
    if len(DONE) < len(SCENARIOS):
        pytest.skip("not all scenarios were run")
    there = set().union(*(sites(path) for path in code()))
    assert len(there) > 30
    missing = sorted(there - REACHED)
    assert not missing, "write a scenario for each of these calls"


def test_no_command_is_written_by_hand() -> None:
    """By ``allcnn.commands.command`` alone: it quotes, and its messages are tried here."""
    written = {str(path.relative_to(ROOT)): by_hand(path.read_text("utf-8")) for path in code()}
    assert not {path: texts for path, texts in written.items() if texts}
    assert by_hand("raise ValueError(f\"run 'allcnn extract {run}'\")")


def by_hand(source: str) -> list[str]:
    """Return the texts of a module, but for its docstrings, that name a command of ours."""
    tree = ast.parse(source)
    texts = [n for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
    documented = {id(node.body[0].value) for node in ast.walk(tree) if has_docstring(node)}
    return [t.value for t in texts if id(t) not in documented and re.search(HAND, t.value)]


HAND = r"['`\"]allcnn [a-z]|(run|with|by) allcnn [a-z]"


def has_docstring(node: ast.AST) -> bool:
    kinds = ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef
    return isinstance(node, kinds) and ast.get_docstring(node) is not None


BUILDERS = {
    "Command", "command", "extracting", "importing", "listing", "store_missing",
    "store_again", "replace_stored", "store_whole", "alike",
}  # fmt: skip
"""Functions whose calls make an advice."""


def sites(path: Path) -> set[tuple[str, str, str]]:
    """Return file, function and callee of the calls that make an advice."""
    file, found = str(path.relative_to(ROOT)), set()

    def walk(node: ast.AST, name: str) -> None:
        for child in ast.iter_child_nodes(node):
            inner = name
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                of_function = not isinstance(node, ast.Module | ast.ClassDef)
                inner = f"{name}{'.<locals>' if of_function else ''}.{child.name}".strip(".")
            elif isinstance(child, ast.Call):
                callee = getattr(child.func, "id", "")
                if callee in BUILDERS and name:
                    found.add((file, name, callee))
            walk(child, inner)

    walk(ast.parse(path.read_text(encoding="utf-8")), "")
    return found


def placed(network: str, side: int, n: int, *, extracted: bool = True) -> RepresentationMeta:
    sample_set = SampleSet("digits", "test", n, (side, side, 1), f"{side:02}23456789abcdef")
    key = RepresentationKey(sample_set.name, *network.split("@"), "conv1")
    attributes = {"seed": 0, "epoch": 1} if extracted else {}
    return make_meta(key=key, sample_set=sample_set, attributes=attributes)


def test_examples_that_cannot_be_shown_to_both_are_said(trained: Workspace) -> None:
    """Of images of another size, or another program's."""
    told = alike(trained, [placed(FINAL, 12, N), placed("larger@final", 16, N)])
    assert told.startswith("their images are 12 x 12 x 1 and 16 x 16 x 1, so that no sample set")
    told = alike(trained, [placed(FINAL, 12, N), placed("mine@final", 12, 32, extracted=False)])
    assert told.startswith("import one of them over the examples of the other, with --like RUN@")


def test_examples_that_both_can_see_are_shown_to_both(trained: Workspace) -> None:
    sides = [placed(FINAL, 12, 32), placed(f"{D2}@final", 12, N)]
    root = trained.root
    more = f"run `allcnn extract {D1} --checkpoint final --split test --samples {N} --workspace"
    assert alike(trained, sides) == f"{more} {root}`"
    fewer = f"run `allcnn extract {D2} --checkpoint final --split test --samples 32 --workspace"
    assert alike(trained, sides, sides[0].sample_set.name) == f"{fewer} {root}`"
    both = [*sides, placed(FINAL, 12, N)]
    assert f"with --sample-set: {both[1].sample_set.name}" in alike(trained, both)


# Nothing is there, or not what is asked for


@scenario
def nothing_is_there(place: Workspace) -> Words:
    shutil.rmtree(place.root)
    return "store", "ls"


@scenario
def nothing_to_report(place: Workspace) -> Words:
    shutil.rmtree(place.root)
    return ("report",)


@scenario
def no_runs(place: Workspace) -> Words:
    shutil.rmtree(place.root)
    return "run", "ls"


@scenario
def no_such_runs(place: Workspace) -> Words:
    return "run", "ls", "x*"


@scenario
def no_such_run(place: Workspace) -> Words:
    return "extract", "other"


@scenario
def nothing_extracted(place: Workspace) -> Words:
    shutil.rmtree(place.activations)
    return "store", "ls"


@scenario
def nothing_stored_fits(place: Workspace) -> Words:
    return "store", "ls", "x@*"


@scenario
def nothing_to_compare(place: Workspace) -> Words:
    shutil.rmtree(place.activations)
    return "compare", FINAL, f"{D2}@final"


@scenario
def one_side_to_compare(place: Workspace) -> Words:
    return "compare", FINAL, f"{D1}@init"


@scenario
def a_mistyped_name_of_what_is_stored(place: Workspace) -> Words:
    return "compare", FINAL, f"{D1}@fnal"


@scenario
def a_mistyped_name_of_what_is_not(place: Workspace) -> Words:
    return "compare", FINAL, f"{D2}@ini"


@scenario
def an_unknown_checkpoint(place: Workspace) -> Words:
    return "compare", FINAL, f"{D1}@zzzzzzzzzzzzzzzzzzzzzzzzzzzz"


@scenario
def an_unknown_network(place: Workspace) -> Words:
    return "compare", FINAL, "zzz@yyy"


@scenario
def a_pattern_of_what_is_not_stored(place: Workspace) -> Words:
    return "matrix", "*d2*@*"


@scenario
def a_pattern_that_fits_nothing(place: Workspace) -> Words:
    return "matrix", "zzz*@*"


@scenario
def an_unknown_tap(place: Workspace) -> Words:
    return "matrix", f"{FINAL}:nothing"


@instead
def a_pattern_for_one_network(place: Workspace) -> Words:
    return "compare", f"{D1}@f*", FINAL


@scenario
def like_what_is_not_stored(place: Workspace) -> Words:
    file = place.root / "a.npz"
    np.savez(file, one=np.zeros((8, 2), np.float32))
    return "store", "import", file, "--run", "a", "--like", "x@final"


@scenario
def like_what_is_stored_on_other_examples(place: Workspace) -> Words:
    return *like_what_is_not_stored(place), "--sample-set", "y"


@scenario
def a_night_without_networks(place: Workspace) -> Words:
    return "nightly", "--networks", "x@*", "--share", "0.01"


# Stored, and not as it is needed


def unfinish(place: Workspace) -> None:
    """Let a tap lack its last minibatch."""
    tap = store.open(place.activations).find(run=D1)[0]
    edit_attributes(tap.place, lambda attributes: attributes["allcnn_commits"].pop())


def keep_grams(place: Workspace, run: str = D1, **how: object) -> None:
    settings = {"n_samples": N, "batch_size": BATCH, "keep": ("grams",)} | how
    extract(place, Extraction(run, "final", **settings))


def retrain(place: Workspace, run: str = D1) -> None:
    """Let another checkpoint stand for the final one, of a run that was begun later."""
    folder = place.checkpoints_folder(run)
    shutil.rmtree(folder / "final")
    shutil.copytree(folder / "init", folder / "final")
    relabel(folder / "final")
    begin(place, run, LATER)


def begin(place: Workspace, run: str, created_at: str) -> None:
    """Let a run have been begun at another time."""
    path = place.run_folder(run) / "config.json"
    write_sealed(path, read_sealed(path) | {"created_at": created_at})


LATER = "2999-01-01T00:00:00+00:00"


def import_network(
    place: Workspace, run: str = "mine", split: str = "test", n: int = N, **how: object
) -> None:
    rng = np.random.default_rng(n)
    labels = rng.integers(0, 3, n)
    taps = {"fc": (np.eye(3)[labels] + rng.standard_normal((n, 3))).astype("f4")}
    settings = {"checkpoint": "final", "batch_rows": BATCH} | how
    examples = store.Examples.of("d", split, n, labels=labels)
    store.write_network(place.activations, taps, run=run, examples=examples, **settings)


@scenario
def a_network_on_fewer_examples(place: Workspace) -> Words:
    extract(place, Extraction(D2, "final", n_samples=BATCH, batch_size=BATCH))
    return "compare", FINAL, f"{D2}@final", "--batch-size", BATCH


@scenario
def networks_on_different_examples(place: Workspace) -> Words:
    extract(place, Extraction(D2, "final", n_samples=BATCH, batch_size=BATCH))
    return "matrix", "*@final", "--batch-size", BATCH


@scenario
def another_network_than_the_data_set_gives(place: Workspace) -> Words:
    import_network(place)
    return "compare", FINAL, "mine@final"


@scenario
def unfinished_activations(place: Workspace) -> Words:
    unfinish(place)
    return "compare", FINAL, FINAL


@scenario
def unfinished_activations_of_an_import(place: Workspace) -> Words:
    import_network(place)
    tap = store.open(place.activations).find(run="mine")[0]
    edit_attributes(tap.place, lambda attributes: attributes["allcnn_commits"].pop())
    return "compare", "mine@final", "mine@final"


@scenario
def a_tap_is_missing(place: Workspace) -> Words:
    shutil.rmtree(store.open(place.activations).find(run=D1)[3].place)
    return "compare", FINAL, FINAL


@scenario
def grams_in_other_minibatches(place: Workspace) -> Words:
    shutil.rmtree(place.activations)
    keep_grams(place)
    return "compare", FINAL, FINAL, "--batch-size", 16, "--kernel", "rbf"


@scenario
def grams_alone_for_the_exact_estimator(place: Workspace) -> Words:
    shutil.rmtree(place.activations)
    keep_grams(place)
    return "compare", FINAL, FINAL, "--estimator", "exact"


@scenario
def grams_of_several_checkpoints(place: Workspace) -> Words:
    shutil.rmtree(place.activations)
    keep_grams(place)
    other = place.root / "before"
    shutil.copytree(place.grams, other)
    shutil.rmtree(place.grams)
    retrain(place)
    keep_grams(place)
    shutil.copytree(other, place.grams, dirs_exist_ok=True)
    return "compare", FINAL, FINAL, "--batch-size", BATCH


@scenario
def grams_of_several_checkpoints_of_a_run_that_is_gone(place: Workspace) -> Words:
    words = grams_of_several_checkpoints(place)
    shutil.rmtree(place.run_folder(D1))
    return words


@scenario
def taps_of_several_types(place: Workspace) -> Words:
    half = Workspace.at(place.root.parent / "half")
    shutil.copytree(place.root / "runs", half.root / "runs")
    shutil.rmtree(place.activations)
    for workspace, dtype in ((place, "float32"), (half, "float16")):
        keep_grams(workspace, dtype=dtype)
    some = store.open_grams(half.grams).find()[0]
    here = place.grams / some.key.of.path
    shutil.rmtree(here)
    shutil.copytree(some.place.parent, here)
    return "compare", FINAL, FINAL, "--batch-size", BATCH


@scenario
def activations_of_an_earlier_run(place: Workspace) -> Words:
    retrain(place)
    return "compare", FINAL, FINAL


@scenario
def activations_of_an_earlier_run_at_extraction(place: Workspace) -> Words:
    retrain(place)
    return "extract", D1, "--samples", N, "--batch-size", BATCH


@scenario
def activations_of_an_earlier_run_beside_grams(place: Workspace) -> Words:
    retrain(place)
    return "extract", D1, "--samples", N, "--batch-size", BATCH, "--keep", "grams"


@scenario
def grams_of_an_earlier_run(place: Workspace) -> Words:
    shutil.rmtree(place.activations)
    keep_grams(place)
    retrain(place)
    return "extract", D1, "--samples", N, "--batch-size", BATCH, "--keep", "grams"


@scenario
def activations_of_another_type(place: Workspace) -> Words:
    return "extract", D1, "--samples", N, "--batch-size", BATCH, "--dtype", "float16"


@scenario
def grams_alone_for_a_query(place: Workspace) -> Words:
    shutil.rmtree(place.activations)
    keep_grams(place)
    return "store", "query", f"{FINAL}:conv1", "--to", place.root / "a.npz", "--overwrite"


# Figures


@scenario
def a_film_without_its_end(place: Workspace) -> Words:
    return "figure", "animation", D2, "--to", place.root / "a.gif"


@scenario
def stages_that_are_not_stored(place: Workspace) -> Words:
    return "figure", "stages", D1, "--to", place.root / "a.png"


@scenario
def no_probes_of_what_is_stored(place: Workspace) -> Words:
    extract(place, Extraction(D1, "final", "train", n_samples=N, batch_size=BATCH))
    return "figure", "probes", FINAL, "--to", place.root / "a.png"


@scenario
def no_probes_of_what_is_not(place: Workspace) -> Words:
    return "figure", "probes", f"{D2}@final", "--to", place.root / "a.png"


@scenario
def nothing_to_transform(place: Workspace) -> Words:
    return "figure", "invariance", f"{D2}@final", "--to", place.root / "a.png"


@scenario
def grams_alone_to_transform(place: Workspace) -> Words:
    shutil.rmtree(place.activations)
    keep_grams(place)
    return "figure", "invariance", FINAL, "--to", place.root / "a.png"


@scenario
def an_import_of_which_a_kill_left_folders(place: Workspace) -> Words:
    (Path(str(place.activations)) / "x" / "mine" / "final").mkdir(parents=True)
    return "compare", "mine@final", FINAL


# Probes

QUICK = ("--pool", "mean", "--penalties", "1e-3")


@scenario
def nothing_to_probe(place: Workspace) -> Words:
    return "probe", f"{D2}@final"


@scenario
def a_mistyped_name_to_probe(place: Workspace) -> Words:
    return "probe", f"{D1}@fnal"


@scenario
def no_training_examples(place: Workspace) -> Words:
    return "probe", FINAL, *QUICK


@scenario
def an_import_without_training_examples(place: Workspace) -> Words:
    import_network(place)
    return "probe", "mine@final"


@scenario
def no_such_set_to_probe(place: Workspace) -> Words:
    return "probe", FINAL, "--train-set", "x"


@scenario
def unfinished_activations_to_probe(place: Workspace) -> Words:
    extract(place, Extraction(D1, "final", "train", n_samples=N, batch_size=BATCH))
    unfinish(place)
    return "probe", FINAL, *QUICK


@scenario
def another_checkpoint_to_probe(place: Workspace) -> Words:
    began = json.loads((place.run_folder(D1) / "config.json").read_text())["created_at"]
    retrain(place)
    begin(place, D1, began)
    extract(place, Extraction(D1, "final", "train", n_samples=N, batch_size=BATCH))
    return "probe", FINAL, *QUICK


@instead
def other_taps_to_probe(place: Workspace) -> Words:
    for split, odd in (("train", 2), ("test", 3)):
        labels = np.arange(N) % 3
        taps = {"same": np.eye(3, dtype="f4")[labels], "odd": np.ones((N, odd), "f4")}
        examples = store.Examples.of("d", split, N, labels=labels)
        how = {"run": "mine", "checkpoint": "final", "examples": examples}
        store.write_network(place.activations, taps, **how)
    return "probe", "mine@final"


# Damage


def damage(array: Path) -> None:
    flip_bit(chunk_files(array)[0])


def activations(place: Workspace, run: str = D1) -> Path:
    return store.open(place.activations).find(run=run)[0].place / "activations"


@scenario
def a_damaged_minibatch(place: Workspace) -> Words:
    damage(activations(place))
    tap = activations(place).parent.name
    return "store", "query", f"{FINAL}:{tap}", "--to", place.root / "a.npz", "--overwrite"


@scenario
def damage_that_is_found(place: Workspace) -> Words:
    damage(activations(place))
    return "store", "verify", FINAL


@scenario
def damage_that_a_list_shows(place: Workspace) -> Words:
    write_other_bytes(activations(place).parent / "zarr.json")
    return "store", "ls"


def write_other_bytes(file: Path) -> None:
    file.write_text(file.read_text().replace("conv1", "conv0"))


@scenario
def unfinished_activations_that_are_found(place: Workspace) -> Words:
    unfinish(place)
    return "store", "verify", FINAL


@scenario
def an_unfinished_import_that_is_found(place: Workspace) -> Words:
    import_network(place)
    edit_attributes(activations(place, "mine").parent, lambda a: a["allcnn_commits"].pop())
    return "store", "verify", "mine@*"


@scenario
def a_damaged_import(place: Workspace) -> Words:
    import_network(place)
    damage(activations(place, "mine"))
    return "store", "verify", "mine@*", "--repair"


@scenario
def a_damaged_tap_without_its_checkpoint(place: Workspace) -> Words:
    extract(place, Extraction(D2, "final", n_samples=N, batch_size=BATCH))
    shutil.rmtree(place.checkpoints_folder(D2) / "final")
    damage(activations(place, D2))
    return "compare", f"{D2}@final", f"{D2}@init"


@scenario
def damage_of_another_checkpoint(place: Workspace) -> Words:
    damage(activations(place))
    retrain(place)
    return "store", "verify", FINAL, "--repair"


@scenario
def damage_of_all_metadata(place: Workspace) -> Words:
    for tap in store.open(place.activations).find(run=D1):
        (tap.place / "zarr.json").write_text("{}")
    return "store", "verify", FINAL, "--repair"


@scenario
def damage_of_all_metadata_of_an_import(place: Workspace) -> Words:
    import_network(place)
    (activations(place, "mine").parent / "zarr.json").write_text("{}")
    return "store", "verify", "mine@*", "--repair"


@scenario
def a_damaged_result(place: Workspace) -> Words:
    assert run(["compare", FINAL, FINAL, "--workspace", str(place.root)])[0] == 0
    name = store.list_results(place.similarity)[0]
    damage(place.similarity / name / "values")
    return "store", "verify", FINAL, "--repair"


@scenario
def a_damaged_probe(place: Workspace) -> Words:
    extract(place, Extraction(D1, "final", "train", n_samples=N, batch_size=BATCH))
    words = ["probe", f"{FINAL}:conv[12]", "--penalties", "1e-3", "--workspace", str(place.root)]
    assert run(words)[0] == 0
    name = store.list_probes(place.probes)[0]
    damage(place.probes / name / "accuracy")
    return "store", "verify", FINAL, "--repair"


@pytest.mark.parametrize("prepare", SCENARIOS[::8], ids=lambda one: one.__name__)
def test_some_advice_works_when_it_is_typed(
    place: Workspace, trained: Workspace, terminal: None,
    monkeypatch: pytest.MonkeyPatch, prepare: Callable[[Workspace], Words],
) -> None:  # fmt: skip
    check_advice(place, trained, monkeypatch, prepare)
