"""The datasets of the stand-in hub."""

from hub_datasets import folders

__all__ = ["folders"]
