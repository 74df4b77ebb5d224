"""How activations are stored: an array a tap, its spatial shape kept, a minibatch a commit."""

from typing import Final

import numpy as np

from store.arrays.committed import ArrayForm, Form
from store.model.names import tap_folder
from store.model.schema import RepresentationMeta
from store.zarrfiles.layout import META, chunk_shape

DIMENSIONS: Final = {
    2: ("sample", "channel"),
    3: ("sample", "position", "channel"),
    4: ("sample", "y", "x", "channel"),
}
"""Names of the axes, by how many there are."""


def _array_form(meta: RepresentationMeta) -> ArrayForm:
    # By the first xarray makes the labels a coordinate, and by the second it shows the tap's name
    # where its folder, which is what xarray calls a group, has another one.
    tap = meta.key.tap
    attributes = {"coordinates": "label"} | ({} if tap_folder(tap) == tap else {"long_name": tap})
    return ArrayForm(
        shape=(meta.n_samples, *meta.shape),
        chunks=chunk_shape(meta),
        dtype=np.dtype(meta.dtype).newbyteorder("<"),
        dimensions=DIMENSIONS[1 + len(meta.shape)],
        attributes=attributes,
    )


ACTIVATIONS: Final = Form(
    kind="activations",
    mark=META,
    from_json=RepresentationMeta.from_json,
    array="activations",
    array_form=_array_form,
    depth=4,
    unit="row",
    units="rows",
    verb="store",
)
