"""Routes: the challenge's files, and the generator that stands in for them."""

from __future__ import annotations

import numpy as np
import pytest

from environment.lateral.controllers import PidController, ZeroController
from environment.lateral.making import load_routes
from environment.lateral.routes import COLUMNS, read_routes, write_routes
from environment.lateral.rules import ROWS, cost
from environment.lateral.simulate import noise_draws, simulate
from environment.lateral.surrogate import Surrogate
from environment.lateral.synthetic import synthetic_routes
from ppo_lab.errors import EnvError

HEADER = ",".join(COLUMNS)


def segment(rows=600, **cells):
    """Lines of a file; cells: {column: {row: text}}."""
    lines = [HEADER]
    for t in range(rows):
        row = dict(zip(COLUMNS, (t / 10, 20 + t / 100, 0.1, 0.02, 0.5, 0.3 if t < 100 else ""), strict=True))
        row |= {column: texts[t] for column, texts in cells.items() if t in texts}
        lines.append(",".join(str(row[column]) for column in COLUMNS))
    return "\n".join(lines) + "\n"


def test_a_file_in_the_challenges_format(tmp_path):
    (tmp_path / "00007.csv").write_text(segment())
    routes = read_routes(tmp_path)
    assert routes.keys == ("data/00007.csv",)  # as the documented command names it, whatever the folder
    assert routes.target.shape == (ROWS, 1)
    assert routes.v[[0, 100], 0].tolist() == [20.0, 21.0]
    assert routes.roll[0, 0] == pytest.approx(9.81 * np.sin(0.02))
    assert routes.steer[[0, 99, 100], 0].tolist() == [-0.3, -0.3, 0.0]  # left is positive there, negative here


def test_a_short_file_repeats_its_last_row(tmp_path):
    (tmp_path / "a.csv").write_text(segment(520))
    routes = read_routes(tmp_path)
    assert set(routes.v[519:, 0].tolist()) == {20 + 519 / 100}


def test_what_is_written_reads_back(tmp_path):
    routes = synthetic_routes(3, seed=5)
    write_routes(routes, tmp_path)
    back = read_routes(tmp_path)
    for there, here in zip(routes.arrays(), back.arrays(), strict=True):
        np.testing.assert_allclose(here, there, atol=1e-14)
    assert read_routes(tmp_path, (1, 3)).keys == back.keys[1:]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a,b\n1,2\n", "the header is a,b; a segment has t,vEgo"),
        (segment(499), "499 rows; a segment has at least 500"),
        (segment(vEgo={3: "fast"}), "could not convert string to float: 'fast'"),
        (segment(vEgo={3: ""}), "an empty cell where a number is required"),
        (segment(steerCommand={99: ""}), "an empty cell"),
        (HEADER + "\n" + "1,2,3\n" * 600, "lines of 3 cells"),
    ],
)
def test_what_is_no_segment_is_refused_by_name(tmp_path, text, said):
    (tmp_path / "00000.csv").write_text(text)
    with pytest.raises(EnvError, match=r"00000\.csv: ") as error:
        read_routes(tmp_path)
    assert said in str(error.value)


def test_folders_and_numbers_that_lead_nowhere(tmp_path):
    with pytest.raises(EnvError, match=r"no \.csv files in .*NNNNN\.csv"):
        read_routes(tmp_path)
    (tmp_path / "a.csv").write_text(segment())
    with pytest.raises(EnvError, match=r"no segments \(5, 9\) of 1"):
        read_routes(tmp_path, (5, 9))
    with pytest.raises(EnvError, match="0 <= start < stop"):
        load_routes("synthetic", (3, 3))


def test_synthetic_routes_follow_from_their_seed():
    ten = synthetic_routes(10, seed=1)
    for some in (synthetic_routes(120, seed=1).take(np.arange(10)), load_routes("synthetic", (0, 10), 1)):
        assert some.keys == ten.keys
        for here, there in zip(some.arrays(), ten.arrays(), strict=True):
            assert np.array_equal(here, there)
    assert not np.array_equal(synthetic_routes(10, seed=2).target, ten.target)


def test_synthetic_routes_are_like_the_challenges():
    """The figures beside are of its first 1000 segments."""
    routes = synthetic_routes(1000)
    speed, demand = routes.v.mean(0), abs(routes.target)
    assert (routes.v >= 0).all()
    assert speed.mean() == pytest.approx(23.3, abs=1.5)
    assert speed.std() == pytest.approx(8.9, abs=1.0)
    assert np.median(demand) == pytest.approx(0.07, abs=0.02)
    assert np.percentile(demand, 99) == pytest.approx(1.96, abs=0.3)
    assert routes.a.std() == pytest.approx(0.45, abs=0.1)
    assert routes.roll.std(0).mean() == pytest.approx(0.144, abs=0.03)
    draws = noise_draws(routes, "official")
    totals = [
        cost(routes.target, simulate(controller, Surrogate(1000), routes, draws).lataccel).total.mean()
        for controller in (PidController(), ZeroController())
    ]
    assert totals[0] == pytest.approx(105, abs=5)
    assert totals[1] == pytest.approx(1007, rel=0.15)
