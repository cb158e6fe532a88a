"""Tests of all cores: a chunk equals its single steps wherever episodes start, and nothing crosses a start."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ppo_lab.config import ModelConfig
from ppo_lab.models.networks.cores import CORES, make_core, run_core
from ppo_lab.models.networks.sequences import cut, splice
from tests.oracles import gru as oracle
from tests.tolerance import rounding

T, B, F = 21, 5, 3
KINDS = [(kind, layers) for kind in ("gru", "lstm", "window") for layers in (1, 2)]


def assert_close(found, wanted, kind):
    """Compare with a tolerance for rounding: one row and many rows use different kernels, so the last bits differ.

    A step of a GRU or an LSTM is two sums of 8 products and ten operations, and it keeps about half of the error of
    its memory: 4 times 26. Each layer of a window, which computes the attention again, is a dozen sums of 4 to 32: 120,
    for at most two layers. Hidden states lie in -1..1, the features of a window do not.
    """
    size = max(1.0, wanted.abs().max().item()) if wanted.numel() else 1.0
    tolerance = rounding(wanted.dtype, 240 if kind == "window" else 4 * 26, size)
    torch.testing.assert_close(found, wanted, rtol=0, atol=tolerance)


def core_of(kind, layers=1, dtype=torch.float64, size=8, window=4):
    torch.manual_seed(0)
    config = ModelConfig(core=kind, core_layers=layers, core_size=size, window=window, attention_heads=2)
    core = make_core(config, F).to(dtype)
    with torch.no_grad():
        for parameter in core.parameters():  # so that biases and distances have an effect
            parameter.add_(0.2 * torch.randn_like(parameter))
    return core


def chunk(core, seed=0, starts=0.2, length=T, num_envs=B):
    """Return x, the memory in the middle of an episode, starts and ends of a chunk."""
    generator = torch.Generator().manual_seed(seed)
    dtype = next(core.parameters()).dtype
    before = torch.randn(3, num_envs, F, generator=generator, dtype=dtype)
    memory = core.initial(num_envs)
    for row in before:
        memory = core.step(row, memory, torch.zeros(num_envs, dtype=torch.bool))[1].detach()
    x = torch.randn(length, num_envs, F, generator=generator, dtype=dtype)
    begins = torch.rand(length, num_envs, generator=generator) < starts
    ends = torch.rand(length, num_envs, generator=generator) < 0.3
    ends[:-1] |= begins[1:]
    return x, memory, begins, ends


def steps(core, x, memory, starts):
    """Compute a chunk step by step -> features (L, B, H), memory after each row (L, B, *memory)."""
    features, memories = [], []
    for row, begins in zip(x, starts, strict=True):
        y, memory = core.step(row, memory, begins)
        features.append(y)
        memories.append(memory)
    return torch.stack(features), torch.stack(memories)


def both_routes(core, x, memory, starts):
    """Return the features of `run_core`, which computes memories as well, and of `core.features`."""
    return run_core(core, x, memory, starts).features, core.features(x, memory, starts)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize(("kind", "layers"), KINDS)
@pytest.mark.parametrize("length", [1, 3, 7, T])
def test_chunks_of_any_length_equal_single_steps(kind, layers, length, dtype):
    core = core_of(kind, layers, dtype)
    for seed, probability in ((0, 0.2), (1, 0.0), (2, 1.0), (3, 0.05)):
        x, memory, starts, ends = chunk(core, seed, probability)
        features, memories = steps(core, x, memory, starts)
        for at in range(0, T, length):
            part = slice(at, at + length)
            result = run_core(core, x[part], memory, starts[part], ends[part])
            plain = core.features(x[part], memory, starts[part])
            assert_close(result.features, features[part], kind)
            assert_close(plain, features[part], kind)
            assert_close(result.memory, memories[part][-1], kind)
            assert_close(result.at_ends, memories[part][ends[part]], kind)
            if length == 1:
                assert torch.equal(result.features, features[part])
                assert torch.equal(plain, features[part])
                assert torch.equal(result.memory, memories[at])
            memory = result.memory


@pytest.mark.parametrize(("kind", "layers"), KINDS)
def test_a_chunk_from_a_stored_memory_gives_the_same_bits_again(kind, layers):
    core = core_of(kind, layers, torch.float32)
    x, memory, starts, ends = chunk(core)
    first, again = run_core(core, x, memory, starts, ends), run_core(core, x, memory.clone(), starts, ends)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    features, memories = steps(core, x, memory, starts)
    late = steps(core, x[9:], memories[8], starts[9:])  # from the middle, with the memory stored there
    assert torch.equal(late[0], features[9:])
    assert torch.equal(late[1], memories[9:])


@pytest.mark.parametrize(("kind", "layers"), KINDS)
def test_no_ends_and_ends_everywhere(kind, layers):
    core = core_of(kind, layers)
    x, memory, starts, _ = chunk(core)
    _, memories = steps(core, x, memory, starts)
    assert run_core(core, x, memory, starts).at_ends.shape == (0, *memory.shape[1:])
    assert run_core(core, x, memory, starts, torch.zeros_like(starts)).at_ends.shape == (0, *memory.shape[1:])
    everywhere = run_core(core, x, memory, starts, torch.ones_like(starts)).at_ends
    assert_close(everywhere, memories.flatten(0, 1), kind)
    last = torch.zeros_like(starts)
    last[-1, 2] = True
    for begins in (starts, torch.zeros_like(starts)):
        result = run_core(core, x, memory, begins, last)
        assert_close(result.at_ends, result.memory[2:3], kind)


@pytest.mark.parametrize(("kind", "layers"), KINDS)
@pytest.mark.parametrize("length", [1, T])
def test_reordered_environments_give_reordered_results(kind, layers, length):
    core = core_of(kind, layers)
    x, memory, starts, ends = chunk(core, length=length)
    order = torch.tensor([3, 0, 4, 1, 2])
    result = run_core(core, x, memory, starts, ends)
    moved = run_core(core, x[:, order], memory[order], starts[:, order], ends[:, order])
    assert_close(moved.features, result.features[:, order], kind)
    assert_close(moved.memory, result.memory[order], kind)
    for features, again in zip(
        both_routes(core, x, memory, starts),
        both_routes(core, x[:, order], memory[order], starts[:, order]),
        strict=True,
    ):
        assert_close(again, features[:, order], kind)


@pytest.mark.parametrize("route", [0, 1], ids=["run", "features"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize(("kind", "layers"), KINDS)
def test_gradients_stay_inside_an_episode_and_reach_back_in_it(kind, layers, dtype, route):
    core = core_of(kind, layers, dtype)
    x, memory, _, _ = chunk(core, length=9, num_envs=2)
    x.requires_grad_()
    memory.requires_grad_()
    starts = torch.zeros(9, 2, dtype=torch.bool)
    starts[4, 0] = starts[0, 1] = True
    y = both_routes(core, x, memory, starts)[route]
    for t in range(9):
        rows, remembered = torch.autograd.grad(y[t, 0].sum(), [x, memory], retain_graph=True)
        episode = range(4) if t < 4 else range(4, 9)
        for s in range(9):
            distance_ok = kind != "window" or t - s <= layers * 3  # window 4: three steps back in each layer
            if s in episode and s <= t and distance_ok:
                assert (rows[s, 0] != 0).any(), f"row {t} does not depend on row {s} of its episode"
            else:
                assert (rows[s, 0] == 0).all(), f"row {t} depends on row {s}"
        assert (rows[:, 1] == 0).all(), "one environment depends on another"
        reaches = t < (4 if kind != "window" else 3)
        assert (remembered[0] != 0).any() == (reaches or (t == 3 and layers == 2)), f"memory at row {t}"
    assert (torch.autograd.grad(y[:, 1].sum(), memory)[0] == 0).all(), "the memory before a start in row 0 is used"


@pytest.mark.parametrize(("kind", "layers"), KINDS)
def test_gradients_of_a_chunk_equal_those_of_its_steps(kind, layers):
    core = core_of(kind, layers)
    x, memory, starts, _ = chunk(core)
    weight = torch.randn_like(core.features(x, memory, starts))
    wanted = torch.autograd.grad((steps(core, x, memory, starts)[0] * weight).sum(), list(core.parameters()))
    for features in both_routes(core, x, memory, starts):
        found = torch.autograd.grad((features * weight).sum(), list(core.parameters()))
        torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("probability", [0.0, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("layers", [1, 2])
def test_an_lstm_that_is_told_to_forget_equals_one_whose_chunks_are_cut(layers, probability):
    """Compare both methods of `Recurrent.features` on a CPU: same features, same gradients."""
    core = core_of("lstm", layers, torch.float32)
    x, memory, starts, _ = chunk(core, seed=4, starts=probability)
    starts[0], starts[8, 1] = False, True
    x, memory = x.requires_grad_(), memory.requires_grad_()
    segments = cut(starts)
    told, separate = core._spliced(x, memory, splice(starts)), core._padded(x, memory, segments, segments.groups())
    assert_close(told, separate, "lstm")
    weight = torch.randn_like(told)
    of = [x, memory, *core.parameters()]
    both = [torch.autograd.grad((features * weight).sum(), of, retain_graph=True) for features in (told, separate)]
    for one, other in zip(*both, strict=True):
        limit = rounding(torch.float32, T * B + 4 * 26, other.abs().max().item())  # sums over all rows
        torch.testing.assert_close(one, other, rtol=0, atol=limit)
    leaks = torch.autograd.grad(told[8:, 1].sum(), [x, memory], retain_graph=True)
    assert not leaks[0][:8].any(), "not even a rounding error crosses a start"
    assert not leaks[1].any()


def test_an_lstm_takes_the_cheaper_way(monkeypatch):
    core, taken = core_of("lstm", 1, torch.float32), []
    for way in ("_spliced", "_padded"):
        monkeypatch.setattr(core, way, lambda x, *_, way=way: taken.append(way) or x)
    few, many = torch.zeros(16, 8, dtype=torch.bool), torch.zeros(64, 1, dtype=torch.bool)
    few[5, 0] = few[9, 3] = True
    many[::4] = True
    core.features(torch.zeros(16, 8, F), core.initial(8), few)
    core.features(torch.zeros(64, 1, F), core.initial(1), many)
    core.features(torch.full((16, 8, F), torch.nan), core.initial(8), few)
    assert taken == ["_spliced", "_padded", "_padded"]


@pytest.mark.parametrize("garbage", [1e6, float("nan")])
@pytest.mark.parametrize(("kind", "layers"), KINDS)
def test_rows_of_other_episodes_and_environments_have_no_influence(kind, layers, garbage):
    core = core_of(kind, layers, torch.float32)
    x, memory, starts, _ = chunk(core)
    starts[0, 1] = starts[11, 3] = True
    starts[12:, 3] = False
    wanted = both_routes(core, x, memory, starts)
    memory, x = memory.clone(), x.clone()
    memory[1] = garbage  # a start in row 0 replaces it
    if kind != "window" or garbage == 1e6:
        x[:11, 3] = garbage  # an episode that is over
        x[:, 4] = garbage  # another environment, longer than all others
    for before, after in zip(wanted, both_routes(core, x, memory, starts), strict=True):
        if np.isnan(garbage):  # an LSTM then uses the other method
            assert_close(after[:, :3], before[:, :3], kind)
            assert_close(after[11:, 3], before[11:, 3], kind)
        else:
            assert torch.equal(after[:, :3], before[:, :3])
            assert torch.equal(after[11:, 3], before[11:, 3])


@pytest.mark.parametrize("kind", ["gru", "lstm"])
@pytest.mark.parametrize("starts", [0.0, 0.3])
def test_recurrent_cores_equal_their_equations(kind, starts):
    core = core_of(kind)
    x, memory, begins, _ = chunk(core, starts=starts)
    weights = [parameter.detach().numpy() for parameter in core.rnn.all_weights[0]]
    state = [part.numpy() for part in memory[:, 0].split(8, -1)]
    wanted = getattr(oracle, kind)(x.numpy(), begins.numpy(), *state, *weights)
    hidden, last = (wanted, wanted[-1]) if kind == "gru" else (wanted[0], np.concatenate(wanted, -1)[-1])
    for features in both_routes(core, x, memory, begins):
        np.testing.assert_allclose(features.detach().numpy(), hidden, rtol=0, atol=1e-13)
    np.testing.assert_allclose(
        run_core(core, x, memory, begins).memory[:, 0].detach().numpy(), last, rtol=0, atol=1e-13
    )


@pytest.mark.parametrize(("kind", "layers"), KINDS)
def test_the_initial_memory_is_zero_and_is_what_a_start_brings_back(kind, layers):
    core = core_of(kind, layers)
    assert not core.initial(7).any()
    assert len(core.initial(7)) == 7
    x, memory, _, _ = chunk(core)
    starts = torch.zeros(T, B, dtype=torch.bool)
    begun = starts.clone()
    begun[0] = True
    wanted = core.features(x, core.initial(B), starts)
    assert_close(core.features(x, memory, begun), wanted, kind)
    assert not torch.allclose(core.features(x, memory, starts)[0], wanted[0])


@pytest.mark.parametrize(("kind", "gates"), [("gru", 3), ("lstm", 4)])
def test_recurrent_weights_are_orthogonal_gate_by_gate_and_biases_zero(kind, gates):
    core = make_core(ModelConfig(core=kind, core_layers=2, core_size=6), 6)
    for name, parameter in core.rnn.named_parameters():
        if "bias" in name:
            assert not parameter.any()
        else:
            for gate in parameter.detach().split(6):
                torch.testing.assert_close(gate @ gate.T, torch.eye(6), rtol=0, atol=1e-5)
    assert len(core.rnn.weight_hh_l0) == gates * 6


@pytest.mark.parametrize(("kind", "layers"), KINDS)
@pytest.mark.parametrize("length", [1, T])
def test_autocast_to_bfloat16(kind, layers, length):
    core = core_of(kind, layers, torch.float32)
    x, memory, starts, ends = chunk(core, length=length)
    x = x.bfloat16().float()
    wanted = run_core(core, x, memory, starts, ends)
    with torch.autocast("cpu", torch.bfloat16):
        found = run_core(core, x.bfloat16(), memory, starts, ends)
        core.features(x.bfloat16(), memory, starts).float().sum().backward()
    for a, b in zip(found, wanted, strict=True):
        # eight products and sums in bfloat16 on the way, the others in float32
        limit = rounding(torch.bfloat16, 8, max(1.0, b.abs().max().item())) if b.numel() else 0.0
        torch.testing.assert_close(a.float(), b, rtol=0, atol=limit)
        if kind != "window":  # what is fed back stays in float32
            assert torch.equal(a, b)
    assert found.memory.dtype == torch.float32
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in core.parameters())


def test_a_window_tells_the_order_of_steps():
    core = core_of("window")
    x = torch.randn(4, 1, F, dtype=torch.float64)
    starts = torch.zeros(4, 1, dtype=torch.bool)
    here, swapped = (core.features(rows, core.initial(1), starts)[3] for rows in (x, x[[1, 0, 2, 3]]))
    assert (here - swapped).abs().max() > 1e-3


@pytest.mark.parametrize("window", [1, 2, 40])
def test_windows_shorter_and_longer_than_a_chunk(window):
    core, kind = core_of("window", 2, window=window), "window"
    for length in (T, 50):  # 50 steps: several blocks of attention and one that is not full
        x, memory, starts, ends = chunk(core, length=length)
        features, memories = steps(core, x, memory, starts)
        result = run_core(core, x, memory, starts, ends)
        assert_close(result.features, features, kind)
        assert_close(result.memory, memories[-1], kind)
        assert_close(result.at_ends, memories[ends], kind)


@pytest.mark.parametrize(("kind", "layers"), KINDS)
def test_one_environment(kind, layers):
    core = core_of(kind, layers)
    x, memory, starts, ends = chunk(core, num_envs=1)
    features, memories = steps(core, x, memory, starts)
    result = run_core(core, x, memory, starts, ends)
    assert_close(result.features, features, kind)
    assert_close(result.at_ends, memories[ends], kind)


def test_every_core_of_the_config_is_there():
    assert set(CORES) == set(ModelConfig.model_fields["core"].annotation.__args__)
    assert make_core(ModelConfig(), F) is None
    assert make_core(ModelConfig(core="gru", core_size=12), F).num_features == 12
