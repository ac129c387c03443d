"""The yardstick: what a careful NumPy programmer writes by hand for one fixed network, with preallocated buffers.

Every product has `out=`, everything else runs in place, the loss is computed for each batch, and the shuffled batch is
gathered with `np.take(out=, mode="clip")`. No layers, no checks, no logs. Benchmarks compare with these loops.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["HandwrittenBinary", "HandwrittenClassifier"]

Array = npt.NDArray[Any]


class HandwrittenBinary:
    """features-hidden-1, relu and sigmoid, binary crossentropy, SGD."""

    def __init__(self, weights: list[Array], batch: int, rate: float = 0.01, accuracy: bool = False) -> None:
        self.w1, self.b1, self.w2, self.b2 = (np.array(w, np.float32) for w in weights)
        features, hidden = self.w1.shape
        self.rate, self.accuracy = np.float32(rate), accuracy
        f = np.float32
        self.x, self.y = np.empty((batch, features), f), np.empty((batch, 1), f)
        self.h, self.dh, self.mask = (np.empty((batch, hidden), f) for _ in range(3))
        self.scale = np.float32(rate / batch)
        self.w2_row = self.w2.T
        self.p, self.a, self.c, self.d, self.hit = (np.empty((batch, 1), kind) for kind in (f, f, f, f, bool))
        self.gw1, self.gb1 = np.empty_like(self.w1), np.empty_like(self.b1)
        self.gw2, self.gb2 = np.empty_like(self.w2), np.empty_like(self.b2)

    def gather(self, x: Array, y: Array, rows: Array) -> None:
        np.take(x, rows, axis=0, out=self.x, mode="clip")
        np.take(y, rows, axis=0, out=self.y, mode="clip")

    def step(self, x: Array, y: Array) -> tuple[float, float]:
        """One batch; loss and accuracy (0 unless asked for)."""
        w1, b1, w2, b2, h, p, a, c, d, dh = (
            self.w1, self.b1, self.w2, self.b2, self.h, self.p, self.a, self.c, self.d, self.dh
        )  # fmt: skip
        n = len(x)
        np.matmul(x, w1, out=h)
        h += b1
        np.maximum(h, 0, out=h)
        np.matmul(h, w2, out=p)
        p += b2
        np.logaddexp(0, p, out=a)  # loss: log(1 + e^z) - y z
        np.multiply(y, p, out=c)
        a -= c
        loss = float(np.add.reduce(a, axis=None)) / n
        np.negative(p, out=p)
        np.exp(p, out=p)
        p += 1
        np.reciprocal(p, out=p)
        hits = 0.0
        if self.accuracy:
            np.greater(p, 0.5, out=self.hit)
            np.equal(self.hit, y, out=self.hit)
            hits = float(np.count_nonzero(self.hit)) / n
        np.subtract(p, y, out=d)
        d *= self.scale
        np.matmul(h.T, d, out=self.gw2)
        np.add.reduce(d, axis=0, out=self.gb2)
        np.multiply(d, self.w2_row, out=dh)  # an outer product: cheaper than a matmul of that shape
        np.sign(h, out=self.mask)  # as float: a bool would be converted at each product
        dh *= self.mask
        np.matmul(x.T, dh, out=self.gw1)
        np.add.reduce(dh, axis=0, out=self.gb1)
        for w, g in ((w1, self.gw1), (b1, self.gb1), (w2, self.gw2), (b2, self.gb2)):
            w -= g  # the gradients carry the rate: it is in `scale`
        return loss, hits


class HandwrittenClassifier:
    """Several relu layers and a softmax, sparse categorical crossentropy, Adam."""

    def __init__(self, weights: list[Array], batch: int, rate: float = 0.001) -> None:
        self.params = [np.array(w, np.float32) for w in weights]
        self.kernels, self.biases = self.params[::2], self.params[1::2]
        f = np.float32
        self.z = [np.empty((batch, k.shape[1]), f) for k in self.kernels]
        self.masks = [np.empty(z.shape, bool) for z in self.z]
        self.dz = [np.empty_like(z) for z in self.z]
        self.each = np.empty((batch, 1), f)
        self.log_p = np.empty_like(self.z[-1])
        self.rows = np.arange(batch)
        self.grads = [np.empty_like(w) for w in self.params]
        self.m, self.v = [np.zeros_like(w) for w in self.params], [np.zeros_like(w) for w in self.params]
        self.s, self.u = [np.empty_like(w) for w in self.params], [np.empty_like(w) for w in self.params]
        self.rate, self.t = rate, 0

    def step(self, x: Array, y: Array) -> float:
        n, last = len(x), len(self.kernels) - 1
        a = x
        for i, (k, b, z) in enumerate(zip(self.kernels, self.biases, self.z, strict=True)):
            np.matmul(a, k, out=z)
            z += b
            if i < last:
                np.greater(z, 0, out=self.masks[i])
                np.maximum(z, 0, out=z)
            a = z
        p, d = self.z[-1], self.dz[-1]
        np.max(p, axis=1, keepdims=True, out=self.each)
        p -= self.each
        np.exp(p, out=p)
        np.sum(p, axis=1, keepdims=True, out=self.each)
        p /= self.each
        loss = -float(np.log(np.maximum(p[self.rows, y], 1e-7)).sum()) / n
        d[...] = p
        d[self.rows, y] -= 1
        d /= n
        for i in range(last, -1, -1):
            np.matmul((self.z[i - 1] if i else x).T, self.dz[i], out=self.grads[2 * i])
            np.sum(self.dz[i], axis=0, out=self.grads[2 * i + 1])
            if i:
                np.matmul(self.dz[i], self.kernels[i].T, out=self.dz[i - 1])
                self.dz[i - 1] *= self.masks[i - 1]
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
