"""The bridge from a checkpoint to what is damaged in the stores: that alone is computed again."""

from allcnn.maintenance.repair import Outcome, repair

__all__ = ["Outcome", "repair"]
