"""The yardstick for convolutions: what a careful NumPy programmer writes for one network, with im2col and buffers.

Two convolutions of 3×3 with relu, each with max pooling of 2×2 behind it, one hidden layer and a softmax; images lie
`(rows, height, width, channels)`. Every product has `out=`, everything else runs in place.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["HandwrittenConvolution"]

Array = npt.NDArray[Any]


class ConvolvedAndPooled:
    """conv 3×3, relu, max pooling 2×2."""

    def __init__(self, kernel: Array, bias: Array, rows: int, height: int, width: int) -> None:
        *_, channels, filters = kernel.shape
        f, high, wide = np.float32, height - 2, width - 2
        self.kernel, self.bias = kernel.reshape(-1, filters), bias
        self.patches = np.empty((rows, high, wide, 3, 3, channels), f)
        self.d_patches = np.empty_like(self.patches)
        self.z, self.dz = np.empty((rows, high, wide, filters), f), np.zeros((rows, high, wide, filters), f)
        self.y = np.empty((rows, high // 2, wide // 2, filters), f)
        self.open, self.here = np.empty(self.y.shape, bool), np.empty(self.y.shape, bool)
        self.d_kernel, self.d_bias = np.empty_like(self.kernel), np.empty_like(bias)
        self.dx = np.empty((rows, height, width, channels), f)

    def corners(self, array: Array) -> list[Array]:
        high, wide = array.shape[1] // 2 * 2, array.shape[2] // 2 * 2
        return [array[:, i:high:2, j:wide:2] for i in (0, 1) for j in (0, 1)]

    def forward(self, x: Array) -> Array:
        high, wide = self.z.shape[1:3]
        for i in range(3):
            for j in range(3):
                self.patches[:, :, :, i, j] = x[:, i : i + high, j : j + wide]
        flat = self.z.reshape(-1, self.z.shape[-1])
        np.dot(self.patches.reshape(len(flat), -1), self.kernel, flat)
        flat += self.bias
        np.maximum(flat, 0, out=flat)
        a, b, c, d = self.corners(self.z)
        np.maximum(a, b, out=self.y)
        np.maximum(self.y, c, out=self.y)
        np.maximum(self.y, d, out=self.y)
        return self.y

    def backward(self, dy: Array, *, first: bool) -> None:
        np.greater(self.y, 0, out=self.open)  # what no corner before has taken, and relu lets through
        for z, dz in zip(self.corners(self.z), self.corners(self.dz), strict=True):
            np.equal(z, self.y, out=self.here)
            self.here &= self.open
            self.open ^= self.here
            np.multiply(dy, self.here, out=dz)
        flat = self.dz.reshape(-1, self.dz.shape[-1])
        np.dot(self.patches.reshape(len(flat), -1).T, flat, self.d_kernel)
        np.add.reduce(flat, 0, out=self.d_bias)
        if first:
            return
        np.dot(flat, self.kernel.T, self.d_patches.reshape(len(flat), -1))
        high, wide = self.z.shape[1:3]
        self.dx.fill(0)
        for i in range(3):
            for j in range(3):
                self.dx[:, i : i + high, j : j + wide] += self.d_patches[:, :, :, i, j]


class HandwrittenConvolution:
    """The network on `(rows, height, width, channels)`; weights as Keras has them: kernel, bias, kernel, bias, …"""

    def __init__(self, weights: list[Array], rows: int, height: int, width: int, rate: float = 0.001) -> None:
        self.params = [np.array(w, np.float32) for w in weights]
        k1, b1, k2, b2, self.k3, self.b3, self.k4, self.b4 = self.params
        f = np.float32
        self.one = ConvolvedAndPooled(k1, b1, rows, height, width)
        self.two = ConvolvedAndPooled(k2, b2, rows, *self.one.y.shape[1:3])
        self.flat = self.two.y.reshape(rows, -1)
        self.h, self.dh = np.empty((rows, self.k3.shape[1]), f), np.empty((rows, self.k3.shape[1]), f)
        self.p, self.d = np.empty((rows, self.k4.shape[1]), f), np.empty((rows, self.k4.shape[1]), f)
        self.d_flat, self.each, self.rows = np.empty_like(self.flat), np.empty((rows, 1), f), np.arange(rows)
        self.d3, self.d4 = np.empty_like(self.k3), np.empty_like(self.k4)
        self.e3, self.e4 = np.empty_like(self.b3), np.empty_like(self.b4)
        convolved = [self.one.d_kernel, self.one.d_bias, self.two.d_kernel, self.two.d_bias]
        grads = [*convolved, self.d3, self.e3, self.d4, self.e4]
        self.grads = [g.reshape(w.shape) for g, w in zip(grads, self.params, strict=True)]
        self.m, self.v = [np.zeros_like(w) for w in self.params], [np.zeros_like(w) for w in self.params]
        self.s, self.u = [np.empty_like(w) for w in self.params], [np.empty_like(w) for w in self.params]
        self.rate, self.t = rate, 0

    def step(self, x: Array, y: Array) -> float:
        """One batch with class numbers; its loss."""
        n, h, dh, p, d = len(x), self.h, self.dh, self.p, self.d
        self.two.forward(self.one.forward(x))
        np.dot(self.flat, self.k3, h)
        h += self.b3
        np.maximum(h, 0, out=h)
        np.dot(h, self.k4, p)
        p += self.b4
        np.max(p, axis=1, keepdims=True, out=self.each)
        p -= self.each
        np.exp(p, out=p)
        np.sum(p, axis=1, keepdims=True, out=self.each)
        p /= self.each
        loss = -float(np.log(np.maximum(p[self.rows, y], 1e-7)).sum()) / n
        d[...] = p
        d[self.rows, y] -= 1
        d /= n
        np.dot(h.T, d, self.d4)
        np.sum(d, axis=0, out=self.e4)
        np.dot(d, self.k4.T, dh)
        dh *= h > 0
        np.dot(self.flat.T, dh, self.d3)
        np.sum(dh, axis=0, out=self.e3)
        np.dot(dh, self.k3.T, self.d_flat)
        self.two.backward(self.d_flat.reshape(self.two.y.shape), first=False)
        self.one.backward(self.two.dx, first=True)
        self.t += 1
        alpha = np.float32(self.rate * np.sqrt(1 - 0.999**self.t) / (1 - 0.9**self.t))
        for w, g, m, v, s, u in zip(self.params, self.grads, self.m, self.v, self.s, self.u, strict=True):
            np.subtract(g, m, out=s)
            s *= 0.1
            m += s
            np.multiply(g, g, out=s)
            s -= v
            s *= 0.001
            v += s
            np.sqrt(v, out=s)
            s += 1e-7
            np.multiply(m, alpha, out=u)
            u /= s
            w -= u
        return loss
