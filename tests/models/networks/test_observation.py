"""Tests of observations of every space: results equal NumPy, keys stay separate, images keep their shape."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st

from ppo_lab.config import ModelConfig
from ppo_lab.errors import ConfigError, EnvError
from ppo_lab.models.networks import make_input, visible

ROWS = np.random.default_rng(0)


def reader(space, **settings):
    return make_input(space, ModelConfig(**settings))


def box(*shape, dtype=np.float32, low=-1, high=1):
    return spaces.Box(low, high, shape, dtype)


def picture(*shape, high=255):
    return box(*shape, dtype=np.uint8, low=0, high=high)


def one_hot(number, n):
    return np.eye(n, dtype=np.float32)[number]


ANY = spaces.Dict(
    {
        "action_mask": spaces.MultiBinary(4),
        "camera": picture(8, 9, 3),
        "count": box(2, dtype=np.int32, low=0, high=9),
        "door": spaces.Discrete(3, start=5),
        "flags": spaces.MultiBinary((2, 2)),
        "pose": box(3),
        "team": spaces.MultiDiscrete([2, 3], start=[0, -1]),
        "units": box(4, 2),
        "units_mask": spaces.MultiBinary(4),
    }
)


def sample(space, *batch):
    if isinstance(space, spaces.Dict):
        return {key: sample(leaf, *batch) for key, leaf in space.items()}
    rows = [space.sample() for _ in range(int(np.prod(batch)))]
    return torch.as_tensor(np.stack(rows).reshape(*batch, *(space.shape or ())))


@given(st.integers(1, 6), st.integers(-3, 3), st.lists(st.integers(1, 4), min_size=1, max_size=4), st.data())
def test_discrete_and_multi_discrete_are_one_hot_from_their_start(n, start, counts, data):
    number = data.draw(st.integers(0, n - 1))
    alone = reader(spaces.Discrete(n, start=start))(torch.tensor([start + number]))
    assert np.array_equal(alone.numpy(), [one_hot(number, n)])
    starts = [start + i for i in range(len(counts))]
    numbers = [data.draw(st.integers(0, count - 1)) for count in counts]
    several = reader(spaces.MultiDiscrete(counts, start=starts))(
        torch.tensor([[s + i for s, i in zip(starts, numbers, strict=True)]])
    )
    expected = np.concatenate([one_hot(i, count) for i, count in zip(numbers, counts, strict=True)])
    assert np.array_equal(several.numpy(), [expected])


def test_a_number_outside_its_space_looks_like_no_other():
    space = spaces.MultiDiscrete([2, 3])
    assert reader(space)(torch.tensor([2, 0])).tolist() == [0.0, 0.0, 1.0, 0.0, 0.0]


def test_multi_discrete_of_rank_2():
    space = spaces.MultiDiscrete([[2, 2], [3, 2]])
    assert reader(space)(torch.tensor([[1, 0], [2, 1]])).tolist() == [0, 1, 1, 0, 0, 0, 1, 0, 1]


@pytest.mark.parametrize(
    ("space", "obs", "expected"),
    [
        (spaces.MultiBinary(3), np.array([0, 1, 1], np.int8), [0.0, 1.0, 1.0]),
        (spaces.MultiBinary((1, 2)), np.array([[True, False]]), [1.0, 0.0]),
        (box(2, dtype=np.bool_, low=0), np.array([True, False]), [1.0, 0.0]),
        (box(2, dtype=np.float16), np.array([0.5, 1.0], np.float16), [0.5, 1.0]),
        (box(2, dtype=np.int8, low=-9, high=9), np.array([-3, 2], np.int8), [-3.0, 2.0]),
        (box(), np.float32(0.5), [0.5]),
        (box(2, 2), np.array([[1, 2], [3, 4]], np.float32), [1.0, 2.0, 3.0, 4.0]),
    ],
)
def test_flat_vectors_as_they_are(space, obs, expected):
    out = reader(space)(torch.as_tensor(obs))
    assert out.dtype == torch.float32
    assert out.tolist() == expected


@pytest.mark.parametrize("shape", [(2, 2), (2, 2, 1), (1, 2, 2)])
@pytest.mark.parametrize("body", ["mlp", "cnn_small"])
def test_bytes_of_a_picture_are_scaled_to_1_and_never_normalised(shape, body):
    read = reader(picture(*shape), body=body, normalize_obs=True)
    obs = torch.tensor([0, 51, 102, 255], dtype=torch.uint8).reshape(1, *shape)
    before = read(obs)
    assert before.flatten().tolist() == pytest.approx([0.0, 0.2, 0.4, 1.0])
    assert before.max() == 1.0
    assert before.shape[1:] == ((4,) if body == "mlp" else shape)
    read.refresh(obs)
    assert torch.equal(read(obs), before)
    assert obs.dtype == torch.uint8
    assert not list(read.buffers())


def test_bytes_of_a_board_are_scaled_by_the_highest_value_of_their_space():
    stones = torch.tensor([[[1], [0]]], dtype=torch.uint8)
    assert reader(picture(1, 2, 1, high=1), body="cnn_small")(stones).flatten().tolist() == [1.0, 0.0]
    assert reader(picture(1, 2, high=0))(torch.zeros(1, 2, dtype=torch.uint8)).tolist() == [0.0, 0.0]


def test_float_images_stay_as_they_are_where_their_shape_is_kept():
    space, obs = box(2, 3, 1, low=0, high=9), torch.arange(6.0).reshape(1, 2, 3, 1)
    seen = reader(space, body="cnn_small", normalize_obs=True)
    seen.refresh(obs)
    assert torch.equal(seen(obs), obs)
    flat = reader(space, body="mlp", normalize_obs=True)  # for this body it is no image but six numbers
    flat.refresh(torch.cat([obs, obs + 2]))
    assert torch.allclose(flat(obs), -torch.ones(1, 6))


@pytest.mark.parametrize("dtype", [np.float32, np.int64, np.uint8, np.float16])
def test_the_normaliser_equals_numpy_and_keeps_floats_for_integers(dtype):
    rows = [ROWS.integers(0, 9, (m, 3)).astype(dtype) for m in (40, 1, 25)]
    read = reader(box(3, dtype=dtype, low=0, high=9), normalize_obs=True)
    for chunk in rows:
        read.refresh(torch.as_tensor(chunk))
    everything = np.concatenate(rows).astype(np.float64)
    assert read.normalizer.moments.mean.dtype == torch.float64
    assert np.allclose(read.normalizer.moments.mean.numpy(), everything.mean(0), atol=1e-12)
    expected = (everything - everything.mean(0)) / np.sqrt(everything.var(0) + 1e-8)
    assert np.allclose(read(torch.as_tensor(np.concatenate(rows))).numpy(), expected, atol=1e-5)


def test_statistics_are_per_key_and_one_hots_bits_and_pictures_have_none():
    read = reader(ANY, body="entities", normalize_obs=True)
    obs = sample(ANY, 50)
    obs["units_mask"][0] = 1
    untouched = read(obs)
    read.refresh(obs)
    after = read(obs)
    for key in ("pose", "count"):
        values = obs[key].double().numpy()
        assert np.allclose(after[key].numpy(), (values - values.mean(0)) / np.sqrt(values.var(0) + 1e-8), atol=1e-4)
    for key in ("door", "flags", "team", "camera", "units_mask"):
        assert torch.equal(after[key], untouched[key])
    present = obs["units"].double().numpy()[obs["units_mask"].numpy() != 0]  # (entities present, 2)
    expected = (obs["units"].double().numpy() - present.mean(0)) / np.sqrt(present.var(0) + 1e-8)
    assert np.allclose(after["units"].numpy(), expected, atol=1e-4)
    assert len([name for name, _ in read.named_buffers() if name.endswith("mean")]) == 3


def test_absent_entities_and_no_entities_at_all_leave_the_statistics_alone():
    read = reader(spaces.Dict({"u": box(2, 1), "u_mask": spaces.MultiBinary(2)}), body="entities", normalize_obs=True)
    mask = torch.tensor([[1, 0], [1, 0]], dtype=torch.int8)
    read.refresh({"u": torch.tensor([[[1.0], [torch.nan]], [[3.0], [1e9]]]), "u_mask": mask})
    moments = dict(read.items())["u"].normalizer.moments
    assert (moments.mean.item(), moments.var.item(), moments.count.item()) == (2.0, 1.0, 2.0)
    read.refresh({"u": torch.full((2, 2, 1), 7.0), "u_mask": torch.zeros(2, 2, dtype=torch.int8)})
    assert (moments.mean.item(), moments.count.item()) == (2.0, 2.0)


def test_statistics_stand_still_until_refresh_and_travel_with_the_weights():
    read, other = (reader(ANY, normalize_obs=True) for _ in range(2))
    obs = sample(ANY, 30)
    before = read(obs)
    assert all(torch.equal(read(obs)[key], before[key]) for key in before)
    read.refresh(obs)
    assert not torch.equal(read(obs)["pose"], before["pose"])
    other.load_state_dict(read.state_dict())
    twin = copy.deepcopy(read)
    for reads in (other(obs), twin(obs)):
        assert all(torch.equal(reads[key], value) for key, value in read(obs).items())


def test_the_action_mask_is_never_an_input():
    read = reader(ANY)
    assert "action_mask" not in read.space.spaces
    obs = sample(ANY, 2)
    assert "action_mask" not in read(obs)
    del obs["action_mask"]
    assert read(obs).keys() == read.space.spaces.keys()
    with pytest.raises(EnvError, match="nothing for a network to see"):
        reader(spaces.Dict({"action_mask": spaces.MultiBinary(2)}))


@pytest.mark.parametrize("body", ["mlp", "cnn_small", "impala", "entities"])
@pytest.mark.parametrize("normalize", [False, True])
def test_any_leading_dimensions_and_the_promised_space(body, normalize):
    read = reader(ANY, body=body, normalize_obs=normalize)
    obs = sample(ANY, 2, 3)
    out = read(obs)
    flat = read({key: value.flatten(0, 1) for key, value in obs.items()})
    single = read({key: value[1, 2] for key, value in obs.items()})
    for key, leaf in read.space.spaces.items():
        assert out[key].shape == (2, 3, *leaf.shape)
        assert torch.equal(out[key].flatten(0, 1), flat[key])
        assert torch.equal(out[key][1, 2], single[key])
        assert out[key].dtype == (torch.bool if (key, body) == ("units_mask", "entities") else torch.float32)
    assert read({key: value[:0] for key, value in obs.items()})["pose"].shape == (0, 3, 3)


def test_batch_shape_names_the_key_that_does_not_fit():
    read = reader(ANY)
    obs = sample(ANY, 5)
    assert read.batch_shape(obs) == (5,)
    assert read.batch_shape({key: value[0].numpy() for key, value in obs.items()}) == ()
    assert read.batch_shape(sample(ANY, 2, 3)) == (2, 3)
    with pytest.raises(ConfigError, match=r"'pose': one observation has shape \(3,\), got \(5, 2\)"):
        read.batch_shape({**obs, "pose": obs["pose"][:, :2]})
    with pytest.raises(ConfigError, match=r"'team' has leading dimensions \(4,\), but 'action_mask' has \(5,\)"):
        read.batch_shape({**obs, "team": obs["team"][:4]})
    for wrong in ({"pose": obs["pose"]}, obs["pose"]):
        with pytest.raises(ConfigError, match="needs the keys action_mask, camera"):
            read.batch_shape(wrong)
    plain = reader(spaces.Discrete(3))
    assert plain.batch_shape(2) == () == plain.batch_shape(np.int64(2))
    assert plain.batch_shape(torch.zeros(4)) == (4,)
    with pytest.raises(ConfigError, match=r"^one observation has shape \(2,\), got \(4, 3\)"):
        reader(box(2)).batch_shape(np.zeros((4, 3)))


@pytest.mark.parametrize(
    "space", [spaces.Text(3), spaces.Tuple([box(1)]), spaces.Dict({"a": spaces.Dict({"b": box(1)})})]
)
def test_spaces_that_no_network_can_read_are_named(space):
    with pytest.raises(EnvError, match="is not supported; supported: Box, Discrete, MultiDiscrete, MultiBinary"):
        reader(space)


def test_a_mask_has_a_place_for_each_entity():
    space = spaces.Dict({"u": box(4, 2), "u_mask": spaces.MultiBinary(3)})
    with pytest.raises(EnvError, match=r"'u_mask' .* 'u' .* \(4,\), got \(3,\)"):
        reader(space, body="entities")
    assert reader(space, body="mlp").space["u_mask"].shape == (3,)  # without sets it is a key like any other


def test_visible_takes_keys_away_and_masks_with_their_sets():
    seen = reader(ANY, body="entities").space
    assert visible(seen, ()) is seen
    for body in ("entities", "mlp"):
        left = visible(reader(ANY, body=body).space, ["units", "pose"])
        assert left.spaces.keys() == seen.spaces.keys() - {"units", "units_mask", "pose"}
    for wrong in ("nose", "units_mask", "action_mask"):
        with pytest.raises(ConfigError, match=f"model.privileged: no key '{wrong}' .* keys: camera, count, door"):
            visible(seen, [wrong])
    with pytest.raises(ConfigError, match="leave at least one for the actor"):
        visible(reader(spaces.Dict({"a": box(1)})).space, ["a"])
    with pytest.raises(ConfigError, match="no key 'a' in the observation; keys: none, it is not a dictionary"):
        visible(reader(box(1)).space, ["a"])


def test_keys_may_have_any_name():
    space = spaces.Dict({key: box(1) for key in ("type", "a.b", "c/d", "keys", "forward", "")})
    obs = sample(space, 2)
    out = reader(space, normalize_obs=True)(obs)
    assert all(torch.equal(out[key], obs[key]) for key in obs)
