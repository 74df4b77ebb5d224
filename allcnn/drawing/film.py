"""Matrices one after the other, as a film: written as GIF, or as MP4 where ffmpeg is installed.

Only colours and the words above them change: axes, names and the colour bar stay where they are.
"""

import io
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import matplotlib
import numpy as np
from matplotlib.animation import FFMpegWriter
from matplotlib.figure import Figure
from PIL import Image

from allcnn.drawing.cells import colour_bar, draw_map
from allcnn.drawing.layout import Sheet, fitted
from allcnn.drawing.panel import COLOURS, Panel
from allcnn.drawing.style import PAGE, Style
from store.storage.paths import Address, Place, as_place, make_folder, write_bytes

FRAMES_A_SECOND: Final = 3
HELD: Final = 6
"""How many times as long as another the last frame is shown."""

FILM_INCHES: Final = 4.6
_GREYS: Final = 40
_DPI: Final = 100


@dataclass(frozen=True, eq=False)
class Film:
    """A figure that shows one of several matrices, the panels of its frames, at a time."""

    figure: Figure
    panels: Sequence[Panel]

    def __len__(self) -> int:
        return len(self.panels)

    def show(self, k: int) -> None:
        """Let the figure show frame ``k``."""
        axes, panel = self.figure.axes[0], self.panels[k]
        axes.images[0].set_data(np.ma.masked_invalid(panel.matrix))
        axes.title.set_text(panel.title)


def film(panels: Sequence[Panel], title: str = "", style: Style = PAGE) -> Film:
    """Return a film of matrices, whose panels differ in their values and titles alone.

    The title of a panel, one line, stands above its frame, and ``title`` above them all.
    """
    if not panels:
        raise ValueError("there are no panels to show; give one or more")
    if len({panel.names for panel in panels}) > 1:
        raise ValueError("the panels of a film differ in their names; give those of one size")
    small = replace(style.small, dpi=style.dpi if style.fills else _DPI)
    # Letters and digits of one frame's title are as high as those of another's.
    first = replace(panels[0], title="epoch 0")

    def build(side: float) -> Sheet:
        sheet = Sheet(small, title, bars=[colour_bar(panels)])
        draw_map(sheet, first, (0, 0), side)
        return sheet

    side = min(FILM_INCHES, max(1.8, style.cell * first.longest))
    made = Film(fitted(build, side), panels)
    made.show(0)
    return made


def save_film(made: Film, path: Address) -> Place:
    """Write a film as GIF or MP4 by its suffix, at once or not at all; return the place.

    Three frames a second, the last one held. The same film gives the same bytes as GIF. MP4 needs
    ffmpeg: raises ValueError where it is missing, OSError where it fails.
    """
    place = as_place(path)
    kind = place.suffix[1:].lower()
    if kind not in ("gif", "mp4"):
        raise ValueError(f"{place.name} is no film; use a name in .gif or .mp4")
    if kind == "mp4" and not has_ffmpeg():
        raise ValueError(f"{place.name} needs ffmpeg, which is not installed; use a name in .gif")
    make_folder(place.parent)
    write_bytes(place, _gif(made) if kind == "gif" else _mp4(made))
    return place


def has_ffmpeg() -> bool:
    """Return whether ffmpeg is installed, which writes MP4."""
    return shutil.which(matplotlib.rcParams["animation.ffmpeg_path"]) is not None


def _gif(made: Film) -> bytes:
    frame_ms = 10 * round(100 / FRAMES_A_SECOND)  # a GIF counts hundredths of a second
    # One palette for all, and no dithering: frames differ where colours do, and compress well.
    palette, frames = _palette(), []
    for k in range(len(made)):
        made.show(k)
        made.figure.canvas.draw()
        pixels = np.asarray(made.figure.canvas.buffer_rgba())  # type: ignore[attr-defined]
        frame = Image.fromarray(pixels[:, :, :3])
        frames.append(frame.quantize(palette=palette, dither=Image.Dither.NONE))
    durations = [frame_ms] * (len(frames) - 1) + [HELD * frame_ms]
    written = io.BytesIO()
    how = {"save_all": True, "append_images": frames[1:], "loop": 0, "optimize": False}
    frames[0].save(written, "GIF", duration=durations, **how)
    return written.getvalue()


def _palette() -> Image.Image:
    """Return the colours of measures, and greys for letters."""
    colours = matplotlib.colormaps[COLOURS](np.linspace(0, 1, 256 - _GREYS))[:, :3]
    greys = np.repeat(np.linspace(0, 1, _GREYS)[:, None], 3, axis=1)
    values = np.round(255 * np.concatenate([colours, greys])).astype(int)
    palette = Image.new("P", (1, 1))
    palette.putpalette(values.ravel().tolist())
    return palette


def _mp4(made: Film) -> bytes:
    # Most players want 4:2:0, which has an even number of pixels each way.
    size = "pad=ceil(iw/2)*2:ceil(ih/2)*2:color=white"
    writer = FFMpegWriter(
        fps=FRAMES_A_SECOND, codec="h264", extra_args=["-vf", size, "-pix_fmt", "yuv420p"]
    )
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "film.mp4")
        try:
            with writer.saving(made.figure, path, dpi=made.figure.dpi):
                for k in [*range(len(made)), *[len(made) - 1] * (HELD - 1)]:
                    made.show(k)
                    writer.grab_frame()
        except (OSError, subprocess.CalledProcessError) as error:
            raise OSError("ffmpeg failed to write H.264") from error
        return Path(path).read_bytes()
