"""Imports point one way, flows to allcnn to store, and heavy libraries stay in their rooms."""

import ast
import functools
import importlib
import itertools
import subprocess
import sys
from collections import Counter
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("flows", "allcnn", "store")
"""From the top: each may import itself and those after it."""

MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
ON_DEMAND = {
    "store.arrays.xarray_view": {"xarray"},
    "store.ingest.files.hdf5": {"h5py"},
    "store.ingest.files.matlab": {"scipy"},
    "store.ingest.files.pytorch": {"torch"},
    "store.ingest.files.tables": {"pyarrow"},
}
"""Modules of the store that need another library, and are loaded where they are asked for."""

FORBIDDEN = ("tensorflow", "jax._src", "pickle", "cloudpickle", "dill")


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def in_package(package: str) -> list[Path]:
    return [path for path in MODULES if within(module_name(path), package)]


def within(name: str, *modules: str) -> bool:
    return any(name == module or name.startswith(f"{module}.") for module in modules)


@functools.cache
def imports(path: Path) -> set[str]:
    """Return the dotted names that a file imports anywhere, also inside functions.

    ``from a import b`` counts as a.b, which may be a module or something in one.
    """
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def importers(*modules: str, of: str = "", but: tuple[str, ...] = ()) -> set[str]:
    """Return the names of our modules that import any of ``modules``, ``but`` not counted."""
    return {
        module_name(path)
        for path in MODULES
        if within(module_name(path), of or module_name(path))
        and any(within(name, *modules) and not within(name, *but) for name in imports(path))
    }


def foreign(path: Path) -> set[str]:
    """Return the top-level names that a file imports from outside the standard library."""
    return {name.partition(".")[0] for name in imports(path)} - sys.stdlib_module_names


def test_there_are_modules_to_look_at():
    assert {path.relative_to(ROOT).parts[0] for path in MODULES} == set(PACKAGES)
    assert "allcnn.datasets.prepare" in importers("tensorflow_datasets")


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_no_import_points_back(path):
    own = PACKAGES.index(path.relative_to(ROOT).parts[0])
    assert not {name for name in imports(path) if within(name, *PACKAGES[:own])}


def room_of(name: str) -> str:
    """Return the folder of a module within its package; files beside the folders are rooms, too."""
    return ".".join(name.split(".")[:2])


@pytest.mark.parametrize("package", PACKAGES)
def test_no_two_rooms_need_each_other(package):
    modules = {module_name(path): path for path in in_package(package)}
    needs: dict[str, set[str]] = {room_of(name): set() for name in modules}
    for name, path in modules.items():
        ours = {room_of(other) for other in imports(path) if within(other, package)}
        needs[room_of(name)] |= ours & set(needs) - {room_of(name), package}
    # Raises CycleError, which names the rooms.
    assert set(TopologicalSorter(needs).static_order()) == set(needs)


@pytest.mark.parametrize("package", PACKAGES)
def test_no_two_modules_have_one_name(package):
    """But a flow may be named as what it does."""
    names = [path.stem for path in in_package(package) if path.parent != ROOT / "flows"]
    twice = {name for name, count in Counter(names).items() if count > 1} - {"__init__"}
    assert twice == set()


@pytest.mark.parametrize("path", in_package("store"), ids=module_name)
def test_the_store_needs_numpy_and_zarr_alone(path):
    more = ON_DEMAND.get(module_name(path), set())
    assert foreign(path) <= {"store", "numpy", "zarr", "google_crc32c", "upath", "fsspec"} | more


@pytest.mark.parametrize("name", ON_DEMAND)
def test_what_is_loaded_on_demand_is_imported_by_no_module(name):
    assert importers(name) == set()


@pytest.mark.parametrize("path", in_package("allcnn.similarity"), ids=module_name)
def test_similarity_needs_jax_and_numpy_alone(path):
    own = {other for other in imports(path) if within(other, *PACKAGES)}
    # Arrays of other libraries enter by one door; triangles are arrays, too.
    doors = ("allcnn.similarity", "allcnn.definitions", "allcnn.errors")
    doors += ("store.model.array_interop", "store.model.triangles")
    assert {other for other in own if not within(other, *doors)} == set()
    assert foreign(path) <= {"allcnn", "jax", "numpy", "jaxtyping", "store"}


def test_kernels_and_measures_know_nothing_of_what_computes_them():
    """So that the command line, whose options they declare, needs no JAX for its help."""
    objects = ("allcnn.similarity.kernels", "allcnn.similarity.measures")
    doors = {
        "allcnn.similarity.kernels": ("allcnn.similarity.kernels", "allcnn.definitions"),
        "allcnn.similarity.measures": ("allcnn.similarity.measures", "allcnn.definitions"),
        "allcnn.definitions": ("allcnn.definitions", "allcnn.errors"),
    }
    for room, own in doors.items():
        for path in in_package(room):
            names = {name for name in imports(path) if within(name, *PACKAGES)}
            assert {name for name in names if not within(name, *own)} == set(), path
            assert foreign(path) <= {"allcnn", "numpy"}
    code = "import sys, allcnn.similarity.method; print(*sorted(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    loaded = set(done.stdout.split())
    assert set(objects) <= loaded
    assert {"jax", "jaxlib", "flax", "zarr", "prefect", "dask"} & loaded == set()


def test_identification_needs_numpy_alone():
    path = ROOT / "allcnn" / "similarity" / "layer_identification.py"
    assert foreign(path) <= {"numpy", "jaxtyping"}


def test_only_the_bridges_touch_the_store():
    # Files, and the texts in them, are the same for runs.
    files = ("storage", "errors", "model.strict_json", "model.field_checks", "model.names")
    arrays = ("model.array_interop", "model.triangles")
    found = importers("store", of="allcnn", but=tuple(f"store.{n}" for n in (*files, *arrays)))
    assert {"allcnn.extract.resume", "allcnn.compare.tasks"} <= found
    bridges = ("allcnn.extract", "allcnn.compare", "allcnn.probing", "allcnn.maintenance")
    assert {name for name in found if not within(name, *bridges)} == set()


def test_dask_stays_where_tasks_are_scheduled():
    """The bodies of the tasks know nothing of what schedules them."""
    found = importers("dask", "distributed")
    assert "allcnn.cluster.cluster" in found
    assert {name for name in found if not within(name, "allcnn.cluster")} == set()


def test_a_worker_is_pinned_before_jax_is_there():
    """JAX looks at the cores once, when it is imported."""
    assert foreign(ROOT / "allcnn/cluster/preload.py") == set()
    assert imports(ROOT / "allcnn/cluster/__init__.py") == set()


def test_only_flows_touch_prefect():
    assert {name.partition(".")[0] for name in importers("prefect")} == {"flows"}


@pytest.mark.parametrize("name", FORBIDDEN)
def test_nobody_imports(name):
    assert importers(name) == set()


IN_FUNCTIONS = ("flows.cli", "allcnn.networks.architectures")
"""Commands and architectures import what they need where they run, so that --help is instant."""


@pytest.mark.parametrize(
    "path", [p for p in MODULES if not within(module_name(p), *IN_FUNCTIONS)], ids=module_name
)
def test_imports_are_at_the_top(path):
    """But for types alone, in one block below them."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    statements = [node for node in ast.walk(tree) if is_import(node)]
    top = list(itertools.takewhile(is_import, tree.body[1:]))  # after the docstring
    below = tree.body[1 + len(top)] if len(statements) > len(top) else None
    if isinstance(below, ast.If) and ast.unparse(below.test) == "TYPE_CHECKING":
        top += filter(is_import, below.body)
    assert statements == top


def is_import(node: ast.AST) -> bool:
    return isinstance(node, ast.Import | ast.ImportFrom)


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_every_module_says_what_it_is(path):
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))


def definitions(path, kind):
    return [
        node
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, kind)
    ]


def test_no_class_has_the_name_of_another():
    named = Counter(node.name for path in MODULES for node in definitions(path, ast.ClassDef))
    assert {name for name, n in named.items() if n > 1} == set()


def test_functions_have_at_most_fifty_lines():
    functions = ast.FunctionDef | ast.AsyncFunctionDef
    long = [
        f"{module_name(path)}.{node.name}"
        for path in MODULES
        for node in definitions(path, functions)
        if node.end_lineno - node.lineno >= 50
    ]
    assert long == []


@pytest.mark.parametrize(
    "path", [ROOT / "tests" / "bench.py", *sorted((ROOT / "docs").rglob("*.py"))], ids=module_name
)
def test_scripts_that_no_test_runs_import_what_there_is(path):
    for node in definitions(path, ast.ImportFrom):
        if node.module and node.module.split(".")[0] in PACKAGES:
            home = importlib.import_module(node.module)
            for alias in node.names:
                if not hasattr(home, alias.name):
                    importlib.import_module(f"{node.module}.{alias.name}")
