"""Keep other accounts of this machine out of the clusters that are started here.

Loopback is open to all of them. Who reaches a scheduler, a worker or a nanny of Dask's can run code
as its owner; so can who owns a folder that these import from.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from typing import Final

import dask
from distributed import Security

_PAGES: Final = {
    # Pages to look at alone: neither those that end workers, nor those that fetch other addresses.
    "distributed.scheduler.http.routes": [
        "distributed.http.scheduler.prometheus",
        "distributed.http.scheduler.info",
        "distributed.http.scheduler.json",
        "distributed.http.health",
        "distributed.http.statics",
    ],
    "distributed.worker.http.routes": [
        "distributed.http.worker.prometheus",
        "distributed.http.health",
        "distributed.http.statics",
    ],
}


@contextmanager
def private() -> Iterator[Security]:
    """Yield certificates for one cluster, which exist in its processes alone.

    What is started in this block imports from a folder that only its owner may write, where Dask
    would take one that another account may have made before; it is removed at the end.
    """
    with (
        TemporaryDirectory(prefix="allcnn-", ignore_cleanup_errors=True) as folder,
        dask.config.set({**_PAGES, "temporary-directory": folder}),
    ):
        yield Security.temporary()
