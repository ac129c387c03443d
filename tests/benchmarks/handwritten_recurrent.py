"""The yardstick for recurrent networks: an LSTM and a softmax as a careful NumPy programmer writes them by hand.

Samples first, as everybody writes them; inputs times kernel for all steps at once, sigmoids of three gates in one call,
the gradients of the weights in one product behind the loop, every array made beforehand.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["HandwrittenLSTM"]

Array = npt.NDArray[Any]


class HandwrittenLSTM:
    """LSTM(units) on `(steps, features)`, dense softmax, sparse categorical crossentropy, Adam.

    Args:
        weights: Keras's: kernel, recurrent_kernel, bias, kernel, bias.
    """

    def __init__(self, weights: list[Array], batch: int, steps: int, rate: float = 0.001) -> None:
        f = np.float32
        wx, wh, b, head, head_b = (np.array(w, f) for w in weights)
        self.units = u = wh.shape[0]
        order = np.r_[0 : 2 * u, 3 * u : 4 * u, 2 * u : 3 * u]  # i, f, o, g: sigmoids side by side
        self.params = [wx[:, order].copy(), wh[:, order].copy(), b[order].copy(), head, head_b]
        self.grads = [np.empty_like(w) for w in self.params]
        self.m, self.v, self.s, self.d = ([np.zeros_like(w) for w in self.params] for _ in range(4))
        self.rate, self.t, self.steps, self.batch = rate, 0, steps, batch
        self.x = np.empty((steps, batch, wx.shape[0]), f)
        self.gates, self.dz = (np.empty((steps, batch, 4 * u), f) for _ in range(2))
        self.h, self.c = (np.zeros((steps + 1, batch, u), f) for _ in range(2))
        self.tc = np.empty((steps, batch, u), f)
        self.part, self.slope = np.empty((batch, 4 * u), f), np.empty((batch, 4 * u), f)
        self.dh, self.dc, self.a = (np.empty((batch, u), f) for _ in range(3))
        self.p, self.each = np.empty((batch, head.shape[1]), f), np.empty((batch, 1), f)
        self.rows = np.arange(batch)

    def step(self, x: Array, y: Array) -> float:
        """One batch `(batch, steps, features)` with class numbers; its loss."""
        (wx, wh, b, head, head_b), (gx, gh, gb, g_head, g_head_b) = self.params, self.grads
        u, n, gates, dz, dh, dc, a = self.units, self.batch, self.gates, self.dz, self.dh, self.dc, self.a
        self.x[...] = x.transpose(1, 0, 2)
        flat = gates.reshape(-1, 4 * u)
        np.matmul(self.x.reshape(len(flat), -1), wx, out=flat)
        flat += b
        for t in range(self.steps):
            z, sigmoids = gates[t], gates[t, :, : 3 * u]
            np.matmul(self.h[t], wh, out=self.part)
            z += self.part
            sigmoids *= 0.5
            np.tanh(z, out=z)
            sigmoids *= 0.5
            sigmoids += 0.5
            i, f, o, g = (z[:, k * u : (k + 1) * u] for k in range(4))
            np.multiply(f, self.c[t], out=self.c[t + 1])
            np.multiply(i, g, out=a)
            self.c[t + 1] += a
            np.tanh(self.c[t + 1], out=self.tc[t])
            np.multiply(o, self.tc[t], out=self.h[t + 1])
        p = self.p
        np.matmul(self.h[-1], head, out=p)
        p += head_b
        np.max(p, axis=1, keepdims=True, out=self.each)
        p -= self.each
        np.exp(p, out=p)
        np.sum(p, axis=1, keepdims=True, out=self.each)
        p /= self.each
        loss = -float(np.log(np.maximum(p[self.rows, y], 1e-7)).sum()) / n
        p[self.rows, y] -= 1
        p /= n
        np.matmul(self.h[-1].T, p, out=g_head)
        np.sum(p, axis=0, out=g_head_b)
        np.matmul(p, head.T, out=dh)
        dc.fill(0)
        for t in range(self.steps - 1, -1, -1):
            z, d, slope = gates[t], dz[t], self.slope
            i, f, o, g = (z[:, k * u : (k + 1) * u] for k in range(4))
            di, df, do, dg = (d[:, k * u : (k + 1) * u] for k in range(4))
            np.multiply(self.tc[t], self.tc[t], out=a)
            np.subtract(1, a, out=a)
            a *= o
            a *= dh
            dc += a
            np.multiply(dc, g, out=di)
            np.multiply(dc, self.c[t], out=df)
            np.multiply(dh, self.tc[t], out=do)
            np.multiply(dc, i, out=dg)
            np.multiply(z, z, out=slope)
            np.subtract(z[:, : 3 * u], slope[:, : 3 * u], out=slope[:, : 3 * u])
            np.subtract(1, slope[:, 3 * u :], out=slope[:, 3 * u :])
            d *= slope
            dc *= f
            np.matmul(d, wh.T, out=dh)
        flat = dz.reshape(-1, 4 * u)
        np.matmul(self.x.reshape(len(flat), -1).T, flat, out=gx)
        np.matmul(self.h[:-1].reshape(len(flat), -1).T, flat, out=gh)
        np.sum(flat, axis=0, out=gb)
        self.adam()
        return loss

    def adam(self) -> None:
        self.t += 1
        alpha = np.float32(self.rate * np.sqrt(1 - 0.999**self.t) / (1 - 0.9**self.t))
        for w, g, m, v, s, d in zip(self.params, self.grads, self.m, self.v, self.s, self.d, strict=True):
            np.subtract(g, m, out=s)
            s *= 0.1
            m += s
            np.multiply(g, g, out=s)
            s -= v
            s *= 0.001
            v += s
            np.sqrt(v, out=s)
            s += 1e-7
            np.multiply(m, alpha, out=d)
            d /= s
            w -= d
