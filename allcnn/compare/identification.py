"""How often layers are identified in stored results."""

from collections.abc import Sequence

import numpy as np

from allcnn.compare.candidates import network_of
from allcnn.compare.describe import way
from allcnn.errors import ConfigError
from allcnn.similarity.layer_identification import Identification, identify
from store import RepresentationKey, SimilarityResult


def check_excluded(keys: Sequence[RepresentationKey], exclude: Sequence[str]) -> None:
    """Raise ConfigError for a tap to leave out that no network has; but some have no logits."""
    taps = list(dict.fromkeys(key.tap for key in keys))
    # A text with commas is a list, whose names follow it, unless it is the name of a tap.
    listed = [tap for tap in exclude if "," in tap]
    for tap in () if {*listed} & {*taps} else exclude:
        if tap not in (*taps, "logits", *listed):
            raise ConfigError(
                f"exclude names {tap!r}, and no network here has such a tap",
                remedy=f"theirs are {', '.join(taps)}",
            )


def identify_layers(
    results: Sequence[SimilarityResult], exclude: Sequence[str]
) -> dict[str, Identification]:
    """Identify layers for each way of comparing, and by HSIC beside the linear kernel."""
    found = {}
    for result in results:
        named, sums = way(result), result.method["sums"]
        found[f"{named} {result.title}"] = identify_keys(result.values, result.rows, exclude)
        if result.method["shows_sums"]:
            found[f"{named} {sums.upper()}"] = identify_keys(result.sums(), result.rows, exclude)
    return found


def identify_keys(
    matrix: np.ndarray, keys: Sequence[RepresentationKey], exclude: Sequence[str]
) -> Identification:
    """Identify layers in a matrix of representations with themselves, as ``identify``."""
    networks, taps = [str(network_of(key)) for key in keys], [key.tap for key in keys]
    return identify(matrix, networks, taps, exclude)
