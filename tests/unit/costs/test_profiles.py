from __future__ import annotations

import datetime
import pathlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from equipoise.costs.profiles import PROFILES, load_profile, read_arrivals
from equipoise.errors import ConfigError, DataError


def write(folder: pathlib.Path, *rows: str) -> pathlib.Path:
    file = folder / "arrivals.csv"
    file.write_text("\n".join(rows) + "\n")
    return file


@pytest.mark.parametrize("name", PROFILES)
def test_profiles_have_a_mean_of_one_and_peaks_no_lower_than_means(name: str) -> None:
    profile = load_profile(name)

    assert profile.means.mean() == pytest.approx(1)
    assert (profile.peaks >= profile.means - 1e-12).all()
    assert profile.measured_rps is None


def test_the_built_in_multiples() -> None:
    assert load_profile("constant").peaks.tolist() == [1.0]
    diurnal = load_profile("diurnal").means
    assert (diurnal[4], diurnal[16]) == pytest.approx((0.3, 1.7))
    office = load_profile("office-hours").means
    assert office.shape == (168,)
    assert (office[9], office[16], office[8], office[17]) == pytest.approx(
        (3.1818, 3.1818, 0.31818, 0.31818), abs=1e-4
    )
    assert (office > 1).sum() == 40
    assert (office[5 * 24 :] < 1).all()
    assert load_profile("bursts").peaks[0] == pytest.approx(5 / 1.4)


def test_an_unknown_profile_names_the_known() -> None:
    with pytest.raises(ConfigError, match=r"cost\.profile: no such traffic profile .*'weekly'.*office-hours"):
        load_profile("weekly")


def test_a_file_of_requests_gives_hours_and_busiest_minutes(tmp_path: pathlib.Path) -> None:
    # First hour: 120 requests, half of them in one minute; second hour: none; third: 60, one a minute.
    rows = ["time"] + ["0"] * 60 + [str(600 + index * 50) for index in range(60)]
    rows += [str(7200 + 60 * minute) for minute in range(60)] + ["10800"]
    profile = load_profile(str(write(tmp_path, *rows)))

    assert profile.name == "arrivals.csv"
    assert profile.measured_rps == pytest.approx(180 / 3 / 3600)
    assert profile.means == pytest.approx(np.array([120, 0, 60]) / 60)
    assert profile.peaks == pytest.approx(np.array([60, 0, 1]) * 60 / 60)


def test_counts_and_iso_times_say_the_same_as_rows_and_seconds(tmp_path: pathlib.Path) -> None:
    start = datetime.datetime(2026, 3, 1, tzinfo=datetime.UTC)
    minutes = [start + datetime.timedelta(minutes=minute) for minute in range(121)]
    counted = read_arrivals(write(tmp_path, "time,requests", *[f"{m.isoformat()},3" for m in minutes]))
    single = read_arrivals(write(tmp_path, "time", *[str(m.timestamp()) for m in minutes for _ in range(3)]))

    assert counted.means == pytest.approx(single.means)
    assert counted.peaks == pytest.approx(single.peaks)
    assert counted.measured_rps == single.measured_rps == pytest.approx(0.05)


@given(counts=st.lists(st.integers(0, 50), min_size=120, max_size=300))
def test_measured_hours_have_a_mean_of_one(
    tmp_path_factory: pytest.TempPathFactory, counts: list[int]
) -> None:
    counts[0] = 1
    rows = [f"{60 * minute},{count}" for minute, count in enumerate(counts)]
    profile = read_arrivals(write(tmp_path_factory.mktemp("csv"), "time,requests", *rows))

    assert profile.means.mean() == pytest.approx(1)
    assert (profile.peaks >= profile.means - 1e-12).all()
    assert len(profile.means) == len(counts) // 60


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["when", "0"], r"has no column `time`"),
        (["time"], r"holds no arrivals"),
        (["time", "0", "10"], r"less than a whole hour"),
        (["time", "0", "7200", "3600"], r":4: time goes back \(got '3600'\); sort"),
        (["time", "2026-03-01T00:00:00+00:00", "2026-02-01T00:00:00+00:00"], r":3: time goes back"),
        (["time", "noon"], r":2: is no time \(got 'noon'\)"),
        (["time", "inf"], r":2: is no time"),
        (["time", "2026-03-01T00:00:00"], r":2: time has no offset"),
        (["time,requests", "0,-1"], r":2: is no number of requests \(got '-1'\)"),
        (["time,requests", "0,many"], r":2: is no number of requests"),
        (["time,requests", "0,0", "9000,0"], r"less than a whole hour"),
        (["time", "0", "99999999"], r"more than a year"),
    ],
)
def test_a_wrong_file_is_one_line(tmp_path: pathlib.Path, rows: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read_arrivals(write(tmp_path, *rows))

    assert "\n" not in str(caught.value)
    assert caught.value.exit_status == 2


def test_a_file_that_is_no_text_is_one_line(tmp_path: pathlib.Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"time\n\xff\xfe\n")
    with pytest.raises(DataError, match="cannot be read as CSV"):
        read_arrivals(tmp_path / "a.csv")
