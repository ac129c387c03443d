"""The layers, one file each. A new one is a file, a line here and a line in `KINDS`."""

from __future__ import annotations

from .activation import Activation as Activation
from .activity_regularization import ActivityRegularization as ActivityRegularization
from .average_pooling import AveragePooling1D as AveragePooling1D
from .average_pooling import AveragePooling2D as AveragePooling2D
from .base import Layer as Layer
from .base import Weight as Weight
from .batch_normalization import BatchNormalization as BatchNormalization
from .bidirectional import Bidirectional as Bidirectional
from .borders import Cropping1D as Cropping1D
from .borders import Cropping2D as Cropping2D
from .borders import ZeroPadding1D as ZeroPadding1D
from .borders import ZeroPadding2D as ZeroPadding2D
from .conv import Conv1D as Conv1D
from .conv import Conv2D as Conv2D
from .conv_transpose import Conv1DTranspose as Conv1DTranspose
from .conv_transpose import Conv2DTranspose as Conv2DTranspose
from .dense import Dense as Dense
from .depthwise_conv import DepthwiseConv1D as DepthwiseConv1D
from .depthwise_conv import DepthwiseConv2D as DepthwiseConv2D
from .depthwise_conv import SeparableConv1D as SeparableConv1D
from .depthwise_conv import SeparableConv2D as SeparableConv2D
from .dropout import Dropout as Dropout
from .dropout import SpatialDropout1D as SpatialDropout1D
from .dropout import SpatialDropout2D as SpatialDropout2D
from .embedding import Embedding as Embedding
from .flatten import Flatten as Flatten
from .global_pooling import GlobalAveragePooling1D as GlobalAveragePooling1D
from .global_pooling import GlobalAveragePooling2D as GlobalAveragePooling2D
from .global_pooling import GlobalMaxPooling1D as GlobalMaxPooling1D
from .global_pooling import GlobalMaxPooling2D as GlobalMaxPooling2D
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
from .noise import AlphaDropout as AlphaDropout
from .noise import GaussianDropout as GaussianDropout
from .noise import GaussianNoise as GaussianNoise
from .normalization import Normalization as Normalization
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
from .up_sampling import UpSampling1D as UpSampling1D
from .up_sampling import UpSampling2D as UpSampling2D

__all__ = [
    "ELU",
    "GRU",
    "KINDS",
    "LSTM",
    "Activation",
    "ActivityRegularization",
    "AlphaDropout",
    "AveragePooling1D",
    "AveragePooling2D",
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
    "GlobalMaxPooling1D",
    "GlobalMaxPooling2D",
    "GroupNormalization",
    "Input",
    "InputLayer",
    "Layer",
    "LayerNormalization",
    "LeakyReLU",
    "Masking",
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

KINDS: dict[str, type[Layer]] = {
    cls.__name__: cls
    for cls in (
        ELU,
        GRU,
        LSTM,
        Activation,
        ActivityRegularization,
        AlphaDropout,
        AveragePooling1D,
        AveragePooling2D,
        BatchNormalization,
        Bidirectional,
        Conv1D,
        Conv1DTranspose,
        Conv2D,
        Conv2DTranspose,
        Cropping1D,
        Cropping2D,
        Dense,
        DepthwiseConv1D,
        DepthwiseConv2D,
        Dropout,
        Embedding,
        Flatten,
        GaussianDropout,
        GaussianNoise,
        GlobalAveragePooling1D,
        GlobalAveragePooling2D,
        GlobalMaxPooling1D,
        GlobalMaxPooling2D,
        GroupNormalization,
        InputLayer,
        LayerNormalization,
        LeakyReLU,
        Masking,
        MaxPooling1D,
        MaxPooling2D,
        Normalization,
        PReLU,
        Permute,
        ReLU,
        RepeatVector,
        Rescaling,
        Reshape,
        SeparableConv1D,
        SeparableConv2D,
        SimpleRNN,
        Softmax,
        SpatialDropout1D,
        SpatialDropout2D,
        TimeDistributed,
        UnitNormalization,
        UpSampling1D,
        UpSampling2D,
        ZeroPadding1D,
        ZeroPadding2D,
    )
}
"""By the class name that stands in a config."""
