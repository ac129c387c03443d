"""The callbacks that people know, under the names that they know: `from asyncfit.callbacks import EarlyStopping`."""

__all__: list[str] = []
