"""Names as Keras makes them."""

from __future__ import annotations

import pytest

from asyncfit.names import snake

KERAS = {
    "Dense": "dense",
    "ReLU": "re_lu",
    "PReLU": "p_re_lu",
    "LeakyReLU": "leaky_re_lu",
    "ELU": "elu",
    "GRU": "gru",
    "SimpleRNN": "simple_rnn",
    "Conv2DTranspose": "conv2d_transpose",
    "UpSampling2D": "up_sampling2d",
    "SpatialDropout1D": "spatial_dropout1d",
    "BatchNormalization": "batch_normalization",
    "onEpochEnd": "on_epoch_end",
}


@pytest.mark.parametrize("name", KERAS)
def test_layers_are_named_as_keras_names_them(name: str) -> None:
    assert snake(name) == KERAS[name]  # what keras.src.utils.naming.to_snake_case gives
