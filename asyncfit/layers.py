"""The layers: `from asyncfit.layers import Dense`."""

from __future__ import annotations

from .adapting import Normalization as Normalization
from .nn.layers import ELU as ELU
from .nn.layers import GRU as GRU
from .nn.layers import LSTM as LSTM
from .nn.layers import Activation as Activation
from .nn.layers import ActivityRegularization as ActivityRegularization
from .nn.layers import AlphaDropout as AlphaDropout
from .nn.layers import AveragePooling1D as AveragePooling1D
from .nn.layers import AveragePooling1D as AvgPool1D
from .nn.layers import AveragePooling2D as AveragePooling2D
from .nn.layers import AveragePooling2D as AvgPool2D
from .nn.layers import BatchNormalization as BatchNormalization
from .nn.layers import Bidirectional as Bidirectional
from .nn.layers import Conv1D as Conv1D
from .nn.layers import Conv1DTranspose as Conv1DTranspose
from .nn.layers import Conv2D as Conv2D
from .nn.layers import Conv2DTranspose as Conv2DTranspose
from .nn.layers import Cropping1D as Cropping1D
from .nn.layers import Cropping2D as Cropping2D
from .nn.layers import Dense as Dense
from .nn.layers import DepthwiseConv1D as DepthwiseConv1D
from .nn.layers import DepthwiseConv2D as DepthwiseConv2D
from .nn.layers import Dropout as Dropout
from .nn.layers import Embedding as Embedding
from .nn.layers import Flatten as Flatten
from .nn.layers import GaussianDropout as GaussianDropout
from .nn.layers import GaussianNoise as GaussianNoise
from .nn.layers import GlobalAveragePooling1D as GlobalAveragePooling1D
from .nn.layers import GlobalAveragePooling1D as GlobalAvgPool1D
from .nn.layers import GlobalAveragePooling2D as GlobalAveragePooling2D
from .nn.layers import GlobalAveragePooling2D as GlobalAvgPool2D
from .nn.layers import GlobalMaxPooling1D as GlobalMaxPool1D
from .nn.layers import GlobalMaxPooling1D as GlobalMaxPooling1D
from .nn.layers import GlobalMaxPooling2D as GlobalMaxPool2D
from .nn.layers import GlobalMaxPooling2D as GlobalMaxPooling2D
from .nn.layers import GroupNormalization as GroupNormalization
from .nn.layers import Input as Input
from .nn.layers import InputLayer as InputLayer
from .nn.layers import Layer as Layer
from .nn.layers import LayerNormalization as LayerNormalization
from .nn.layers import LeakyReLU as LeakyReLU
from .nn.layers import Masking as Masking
from .nn.layers import MaxPooling1D as MaxPool1D
from .nn.layers import MaxPooling1D as MaxPooling1D
from .nn.layers import MaxPooling2D as MaxPool2D
from .nn.layers import MaxPooling2D as MaxPooling2D
from .nn.layers import Permute as Permute
from .nn.layers import PReLU as PReLU
from .nn.layers import ReLU as ReLU
from .nn.layers import RepeatVector as RepeatVector
from .nn.layers import Rescaling as Rescaling
from .nn.layers import Reshape as Reshape
from .nn.layers import SeparableConv1D as SeparableConv1D
from .nn.layers import SeparableConv2D as SeparableConv2D
from .nn.layers import SimpleRNN as SimpleRNN
from .nn.layers import Softmax as Softmax
from .nn.layers import SpatialDropout1D as SpatialDropout1D
from .nn.layers import SpatialDropout2D as SpatialDropout2D
from .nn.layers import TimeDistributed as TimeDistributed
from .nn.layers import UnitNormalization as UnitNormalization
from .nn.layers import UpSampling1D as UpSampling1D
from .nn.layers import UpSampling2D as UpSampling2D
from .nn.layers import Weight as Weight
from .nn.layers import ZeroPadding1D as ZeroPadding1D
from .nn.layers import ZeroPadding2D as ZeroPadding2D

__all__ = [
    "ELU",
    "GRU",
    "LSTM",
    "Activation",
    "ActivityRegularization",
    "AlphaDropout",
    "AveragePooling1D",
    "AveragePooling2D",
    "AvgPool1D",
    "AvgPool2D",
    "BatchNormalization",
    "Bidirectional",
    "Conv1D",
    "Conv1DTranspose",
    "Conv2D",
    "Conv2DTranspose",
    "Cropping1D",
    "Cropping2D",
    "Dense",
    "DepthwiseConv1D",
    "DepthwiseConv2D",
    "Dropout",
    "Embedding",
    "Flatten",
    "GaussianDropout",
    "GaussianNoise",
    "GlobalAveragePooling1D",
    "GlobalAveragePooling2D",
    "GlobalAvgPool1D",
    "GlobalAvgPool2D",
    "GlobalMaxPool1D",
    "GlobalMaxPool2D",
    "GlobalMaxPooling1D",
    "GlobalMaxPooling2D",
    "GroupNormalization",
    "Input",
    "InputLayer",
    "Layer",
    "LayerNormalization",
    "LeakyReLU",
    "Masking",
    "MaxPool1D",
    "MaxPool2D",
    "MaxPooling1D",
    "MaxPooling2D",
    "Normalization",
    "PReLU",
    "Permute",
    "ReLU",
    "RepeatVector",
    "Rescaling",
    "Reshape",
    "SeparableConv1D",
    "SeparableConv2D",
    "SimpleRNN",
    "Softmax",
    "SpatialDropout1D",
    "SpatialDropout2D",
    "TimeDistributed",
    "UnitNormalization",
    "UpSampling1D",
    "UpSampling2D",
    "Weight",
    "ZeroPadding1D",
    "ZeroPadding2D",
]
