"""The callbacks that people know, under the names that they know: `from asyncfit.callbacks import EarlyStopping`."""

from .loggers import CSVLogger as CSVLogger

__all__ = ["CSVLogger"]
