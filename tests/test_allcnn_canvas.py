"""Pictures are written at once or not at all, the same for the same figure, from any thread."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from allcnn.drawing import matrices
from allcnn.drawing.canvas import save
from allcnn.drawing.panel import Panel
from tests.drawn import names

SIGNATURES = {"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<?xml"}


def picture(r=3, c=4):
    matrix = np.linspace(0, 1, r * c).reshape(r, c)
    matrix[0, 0] = np.nan
    return matrices.matrix(Panel(matrix, names("row", r), names("col", c), "title"))


@pytest.mark.parametrize("suffix", ["png", "pdf", "svg"])
def test_the_same_input_gives_the_same_bytes(tmp_path, suffix):
    first, second = (save(picture(), tmp_path / f"deep/{k}.{suffix}") for k in "ab")
    assert first.read_bytes() == second.read_bytes()
    assert first.read_bytes().startswith(SIGNATURES[suffix])
    assert b"date" not in first.read_bytes().lower()
    assert sorted(path.name for path in first.parent.iterdir()) == [f"a.{suffix}", f"b.{suffix}"]


def test_a_failed_save_leaves_the_old_picture_and_no_rest(tmp_path, monkeypatch):
    path = save(picture(), str(tmp_path / "a.png"))
    before = path.read_bytes()
    assert before.startswith(SIGNATURES["png"])

    def half_written(file, **_):
        file.write(before[:100])
        raise OSError("no space left")

    figure = picture(4, 4)
    monkeypatch.setattr(figure, "savefig", half_written)
    with pytest.raises(OSError, match="no space left"):
        save(figure, path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_threads_draw_what_one_thread_draws(tmp_path):
    def draw(k):
        return save(picture(k, 5), tmp_path / f"{k}.svg").read_bytes()

    alone = [draw(k) for k in range(1, 7)]
    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(draw, range(1, 7))) == alone


def test_pyplot_is_not_imported():
    modules = "allcnn.drawing.curves, allcnn.drawing.film, allcnn.drawing.matrices"
    script = f"import sys, {modules}; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_what_is_no_picture_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"a\.jpg is no picture; use a name in \.png, "):
        save(picture(), tmp_path / "a.jpg")
    assert not list(tmp_path.iterdir())
