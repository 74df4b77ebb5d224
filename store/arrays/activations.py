"""How activations are stored: an array a tap, its spatial shape kept, a minibatch a commit."""

from typing import Final

import numpy as np

from store.arrays.committed import ArrayForm, Form
from store.model.names import tap_folder
from store.model.schema import RepresentationMeta
from store.zarrfiles.layout import META, chunk_shape

_DIMENSIONS = {
    1: ("sample", "channel"),
    2: ("sample", "position", "channel"),
    3: ("sample", "y", "x", "channel"),
}


def _attributes(tap: str) -> dict[str, str]:
    # By the first xarray makes the labels a coordinate, and by the second it shows the tap's name
    # where its folder, which is what xarray calls a group, has another one.
    named = {} if tap_folder(tap) == tap else {"long_name": tap}
    return {"coordinates": "label"} | named


def _array_form(meta: RepresentationMeta) -> ArrayForm:
    return ArrayForm(
        shape=(meta.n_samples, *meta.shape),
        chunks=chunk_shape(meta),
        dtype=np.dtype(meta.dtype).newbyteorder("<"),
        dimensions=_DIMENSIONS[len(meta.shape)],
        attributes=_attributes(meta.key.tap),
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
    block="minibatches of {} rows",
    finish="store the rest first",
    verb="store",
)
