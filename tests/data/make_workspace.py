"""Write the workspace whose numbers later versions must give again: `make_workspace.py FOLDER`.

`workspace-v2.tar.xz` was written by this script at revision 838c78a. Never write it again: it
stands for what people keep, with a result of every kind. A later version gets a file of its own.
"""

import subprocess
import sys
from pathlib import Path

TRAIN = "train --dataset digits --image-size 12 --batch-size 128 --prefix old"
RUNS = (
    f"{TRAIN} --width 0.05 --epochs 1",
    f"{TRAIN} --architecture tiny --width 0.3 --epochs 1",
)
EXTRACT = "--samples 48 --batch-size 8"
STORED = (
    f"extract old-d1-v2-s0 --checkpoint all {EXTRACT}",
    f"extract old-tiny-10-s0 --checkpoint final {EXTRACT}",
    f"extract old-d1-v2-s0 --checkpoint final --split train {EXTRACT} --dtype float16",
    f"extract old-tiny-10-s0 --checkpoint init {EXTRACT} --keep grams --kernel cosine",
)
NETWORK = "old-d1-v2-s0@final"
COMPARED = (
    f"compare {NETWORK} old-tiny-10-s0@final --batch-size 8",
    f"compare {NETWORK} old-d1-v2-s0@init --batch-size 8 --kernel rbf --sigma 0.2,0.8",
    f"compare {NETWORK} {NETWORK} --batch-size 12 --estimator biased --pool mean --permutations 3",
    f"compare {NETWORK} {NETWORK} --batch-size 16 --kernel cosine",
    f"compare {NETWORK} old-tiny-10-s0@final --estimator exact",
    f"compare {NETWORK} {NETWORK} --estimator exact --kernel rbf --label 3",
    "matrix old-*@final --batch-size 48 --label 3",
    "matrix old-*@* --unusable skip --batch-size 8 --estimator biased --kernel rbf",
)
PROBED = (f"probe {NETWORK}",)
LAST = ("nightly --samples 48 --minibatch 8",)


def main(folder: Path) -> None:
    """Train, store, compare and probe, each by the command that people type."""
    for line in (*RUNS, *STORED, *COMPARED, *PROBED, *LAST):
        command = [sys.executable, "-c", "from flows.cli.main import main; main()", *line.split()]
        subprocess.run([*command, "--workspace", str(folder)], check=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
