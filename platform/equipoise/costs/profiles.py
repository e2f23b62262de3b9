"""Traffic profiles: how an arrival rate varies over the hours, as multiples of its mean."""

from __future__ import annotations

import csv
import datetime
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from equipoise.errors import ConfigError, DataError

PROFILES = ("constant", "diurnal", "office-hours", "bursts")

_HOUR_S = 3600.0
_MINUTE_S = 60.0
_MAX_HOURS = 24 * 366

_DIURNAL_SWING = 0.7
"""Traffic of the busiest hour is 1 + this of the mean, that of the quietest 1 - this."""
_QUIET_HOUR = 4
_OFFICE_OFF_HOURS = 0.1
"""Traffic outside office hours, as a share of that within."""
_BURST_SHARE, _BURST_FACTOR = 0.1, 5.0
"""A tenth of each hour arrives at five times the rate of the rest."""


@dataclass(frozen=True)
class TrafficProfile:
    """Hours of traffic that repeat, relative to the mean rate.

    `means` and `peaks` are (hours,): the mean rate of each hour, and that of its busiest minute.
    Replicas follow the hours, since they take minutes to start; within an hour they stand for the peak.
    """

    name: str
    means: NDArray[np.float64]
    peaks: NDArray[np.float64]
    measured_rps: float | None = None
    """Mean rate of the arrivals that the profile was read from."""


def load_profile(name: str) -> TrafficProfile:
    """A built-in profile by name, or the one that a CSV of arrivals shows.

    Raises:
        ConfigError: there is neither a profile nor a file of that name.
        DataError: the file holds no usable arrivals.
    """
    if name == "constant":
        return _scaled(name, np.ones(1))
    if name == "diurnal":
        hours = np.arange(24)
        return _scaled(name, 1 - _DIURNAL_SWING * np.cos(2 * np.pi * (hours - _QUIET_HOUR) / 24))
    if name == "office-hours":
        week = np.arange(168)
        busy = (week // 24 < 5) & (week % 24 >= 9) & (week % 24 < 17)
        return _scaled(name, np.where(busy, 1.0, _OFFICE_OFF_HOURS))
    if name == "bursts":
        rest = 1 / (1 - _BURST_SHARE + _BURST_SHARE * _BURST_FACTOR)
        return TrafficProfile(name, np.ones(1), np.array([rest * _BURST_FACTOR]))
    if not Path(name).is_file():
        raise ConfigError(
            "no such traffic profile",
            where="cost.profile",
            value=name,
            remedy=f"give {', '.join(PROFILES)}, or a CSV file of arrivals",
        )
    return read_arrivals(Path(name))


def read_arrivals(file: Path) -> TrafficProfile:
    """The profile of measured arrivals.

    A CSV with the column `time` (ISO 8601 with an offset, or seconds since the epoch), in order; a row is
    one request, or as many as its column `requests` says. Hours without a row had no traffic; the last
    hour counts for nothing where it is not whole.

    Raises:
        DataError: a column is missing, a time cannot be read or goes back, or there is less than an hour.
    """
    minutes, requests = _read_minutes(file)
    hours = (minutes[-1] + 1) // 60
    if hours < 1 or not sum(requests):
        raise DataError("holds less than a whole hour of arrivals", where=str(file))
    if hours > _MAX_HOURS:
        raise DataError("holds more than a year of arrivals", where=str(file), value=hours)
    counts = np.bincount(minutes, weights=requests, minlength=hours * 60)[: hours * 60].reshape(hours, 60)
    total = float(counts.sum())
    if total == 0:
        raise DataError("its whole hours hold no request", where=str(file))
    mean = total / hours
    return TrafficProfile(
        file.name, counts.sum(axis=1) / mean, counts.max(axis=1) * 60 / mean, mean / _HOUR_S
    )


def _scaled(name: str, rates: NDArray[np.float64]) -> TrafficProfile:
    even = rates / rates.mean()
    return TrafficProfile(name, even, even)


def _read_minutes(file: Path) -> tuple[list[int], list[float]]:
    """Minute of each row after the first row's, and its requests."""
    minutes: list[int] = []
    requests: list[float] = []
    first = latest = -math.inf
    try:
        with file.open(newline="", encoding="utf-8") as lines:
            reader = csv.DictReader(lines)
            if "time" not in (reader.fieldnames or ()):
                raise DataError("has no column `time`", where=str(file), value=reader.fieldnames)
            for row in reader:
                spot = f"{file}:{reader.line_num}"
                second = _second(row["time"], spot)
                if second < latest:
                    raise DataError(
                        "time goes back", where=spot, value=row["time"], remedy="sort the rows by time"
                    )
                if not minutes:
                    first = second
                latest = second
                minutes.append(int((second - first) // _MINUTE_S))
                requests.append(_count(row.get("requests"), spot))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"cannot be read as CSV: {error}", where=str(file)) from error
    if not minutes:
        raise DataError("holds no arrivals", where=str(file))
    return minutes, requests


def _second(text: str | None, spot: str) -> float:
    try:
        second = float(text or "")
    except ValueError:
        try:
            moment = datetime.datetime.fromisoformat(text or "")
        except ValueError:
            raise DataError("is no time", where=spot, value=text, remedy="write ISO 8601") from None
        if moment.tzinfo is None:
            raise DataError("time has no offset", where=spot, value=text, remedy="write it in UTC") from None
        return moment.timestamp()
    if not math.isfinite(second):
        raise DataError("is no time", where=spot, value=text)
    return second


def _count(text: str | None, spot: str) -> float:
    if text is None:
        return 1.0
    try:
        count = float(text)
    except ValueError:
        count = math.nan
    if not (math.isfinite(count) and count >= 0):
        raise DataError("is no number of requests", where=spot, value=text)
    return count
