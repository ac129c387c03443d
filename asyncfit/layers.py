"""The layers: `from asyncfit.layers import Dense`."""

from __future__ import annotations

from .nn.layers import ELU as ELU
from .nn.layers import GRU as GRU
from .nn.layers import LSTM as LSTM
from .nn.layers import Activation as Activation
from .nn.layers import ActivityRegularization as ActivityRegularization
from .nn.layers import BatchNormalization as BatchNormalization
from .nn.layers import Bidirectional as Bidirectional
from .nn.layers import Conv1D as Conv1D
from .nn.layers import Conv2D as Conv2D
from .nn.layers import Dense as Dense
from .nn.layers import Dropout as Dropout
from .nn.layers import Embedding as Embedding
from .nn.layers import Flatten as Flatten
from .nn.layers import GroupNormalization as GroupNormalization
from .nn.layers import Input as Input
from .nn.layers import InputLayer as InputLayer
from .nn.layers import Layer as Layer
from .nn.layers import LayerNormalization as LayerNormalization
from .nn.layers import LeakyReLU as LeakyReLU
from .nn.layers import Masking as Masking
from .nn.layers import MaxPooling1D as MaxPooling1D
from .nn.layers import MaxPooling2D as MaxPooling2D
from .nn.layers import Permute as Permute
from .nn.layers import PReLU as PReLU
from .nn.layers import ReLU as ReLU
from .nn.layers import RepeatVector as RepeatVector
from .nn.layers import Rescaling as Rescaling
from .nn.layers import Reshape as Reshape
from .nn.layers import SimpleRNN as SimpleRNN
from .nn.layers import Softmax as Softmax
from .nn.layers import TimeDistributed as TimeDistributed
from .nn.layers import UnitNormalization as UnitNormalization
from .nn.layers import Weight as Weight

__all__ = [
    "ELU",
    "GRU",
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
