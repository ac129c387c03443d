"""The layers, one file each. A new one is a file, a line here and a line in `KINDS`."""

from __future__ import annotations

from .activation import Activation as Activation
from .activity_regularization import ActivityRegularization as ActivityRegularization
from .base import Layer as Layer
from .base import Weight as Weight
from .batch_normalization import BatchNormalization as BatchNormalization
from .bidirectional import Bidirectional as Bidirectional
from .conv import Conv1D as Conv1D
from .conv import Conv2D as Conv2D
from .dense import Dense as Dense
from .dropout import Dropout as Dropout
from .embedding import Embedding as Embedding
from .flatten import Flatten as Flatten
from .group_normalization import GroupNormalization as GroupNormalization
from .gru import GRU as GRU
from .input import Input as Input
from .input import InputLayer as InputLayer
from .layer_normalization import LayerNormalization as LayerNormalization
from .layer_normalization import UnitNormalization as UnitNormalization
from .lstm import LSTM as LSTM
from .masking import Masking as Masking
from .max_pooling import MaxPooling1D as MaxPooling1D
from .max_pooling import MaxPooling2D as MaxPooling2D
from .prelu import PReLU as PReLU
from .rectifiers import ELU as ELU
from .rectifiers import LeakyReLU as LeakyReLU
from .rectifiers import ReLU as ReLU
from .rectifiers import Softmax as Softmax
from .rescaling import Rescaling as Rescaling
from .reshape import Permute as Permute
from .reshape import RepeatVector as RepeatVector
from .reshape import Reshape as Reshape
from .simple_rnn import SimpleRNN as SimpleRNN
from .time_distributed import TimeDistributed as TimeDistributed

__all__ = [
    "ELU",
    "GRU",
    "KINDS",
    "LSTM",
    "Activation",
    "ActivityRegularization",
    "BatchNormalization",
    "Bidirectional",
    "Conv1D",
    "Conv2D",
    "Dense",
    "Dropout",
    "Embedding",
    "Flatten",
    "GroupNormalization",
    "Input",
    "InputLayer",
    "Layer",
    "LayerNormalization",
    "LeakyReLU",
    "Masking",
    "MaxPooling1D",
    "MaxPooling2D",
    "PReLU",
    "Permute",
    "ReLU",
    "RepeatVector",
    "Rescaling",
    "Reshape",
    "SimpleRNN",
    "Softmax",
    "TimeDistributed",
    "UnitNormalization",
    "Weight",
]

KINDS: dict[str, type[Layer]] = {
    cls.__name__: cls
    for cls in (
        TimeDistributed,
        Bidirectional,
        Activation,
        ActivityRegularization,
        BatchNormalization,
        Conv1D,
        Conv2D,
        Dense,
        Dropout,
        ELU,
        Embedding,
        Flatten,
        GRU,
        GroupNormalization,
        InputLayer,
        LSTM,
        LayerNormalization,
        LeakyReLU,
        Masking,
        MaxPooling1D,
        MaxPooling2D,
        PReLU,
        Permute,
        ReLU,
        RepeatVector,
        Rescaling,
        Reshape,
        SimpleRNN,
        Softmax,
        UnitNormalization,
    )
}
"""By the class name that stands in a config."""
