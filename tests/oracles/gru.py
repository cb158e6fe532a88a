"""GRU and LSTM by their equations, one environment and one step at a time, in NumPy."""

import numpy as np


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


def gru(x, starts, h, w_input, w_hidden, b_input, b_hidden):
    """x (L, B, F), starts (L, B), h (B, H), gates in the order r, z, n -> all hidden states (L, B, H)."""
    out = np.zeros((*x.shape[:2], h.shape[1]))
    for b in range(x.shape[1]):
        state = h[b].copy()
        for t in range(x.shape[0]):
            if starts[t, b]:
                state = np.zeros_like(state)
            r_x, z_x, n_x = np.split(w_input @ x[t, b] + b_input, 3)
            r_h, z_h, n_h = np.split(w_hidden @ state + b_hidden, 3)
            r, z = sigmoid(r_x + r_h), sigmoid(z_x + z_h)
            n = np.tanh(n_x + r * n_h)
            state = (1 - z) * n + z * state
            out[t, b] = state
    return out


def lstm(x, starts, h, c, w_input, w_hidden, b_input, b_hidden):
    """The same with cell states; gates in the order i, f, g, o -> hidden and cell states, each (L, B, H)."""
    hidden, cells = np.zeros((*x.shape[:2], h.shape[1])), np.zeros((*x.shape[:2], h.shape[1]))
    for b in range(x.shape[1]):
        state, cell = h[b].copy(), c[b].copy()
        for t in range(x.shape[0]):
            if starts[t, b]:
                state, cell = np.zeros_like(state), np.zeros_like(cell)
            i, f, g, o = np.split(w_input @ x[t, b] + b_input + w_hidden @ state + b_hidden, 4)
            cell = sigmoid(f) * cell + sigmoid(i) * np.tanh(g)
            state = sigmoid(o) * np.tanh(cell)
            hidden[t, b], cells[t, b] = state, cell
    return hidden, cells
