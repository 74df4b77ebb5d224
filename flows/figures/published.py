"""Published numbers that ours are drawn beside, and beside which networks they may stand."""

from collections.abc import Iterable
from typing import Final

from allcnn.networks.architectures import Tiny10
from allcnn.settings.run import RunConfig

TABLE_2: Final = {
    "linear CKA": 0.993,
    "RBF 0.2 CKA": 0.806,
    "RBF 0.4 CKA": 0.991,
    "RBF 0.8 CKA": 0.993,
    "linear HSIC": 0.222,
}
"""Share of layers found by maximum similarity: ten Tiny-10 trained on CIFAR-10, without logits."""

TABLE_2_SOURCE: Final = "Kornblith et al. 2019, Table 2"


def are_of_table_2(configs: Iterable[RunConfig]) -> bool:
    """Return whether all networks are those of Table 2, however long they were trained."""
    return all(
        (config.dataset, config.image_size, config.architecture) == ("cifar10", 32, Tiny10(1.0))
        for config in configs
    )
