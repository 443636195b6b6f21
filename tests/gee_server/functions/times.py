"""Dates."""

import calendar
from datetime import timedelta

from gee_server.errors import EarthEngineError
from gee_server.functions.filters import _FIELDS
from gee_server.interpreter import function
from gee_server.values import Date, DateRange, parse_date

_UNIT_MS = {"second": 1e3, "minute": 6e4, "hour": 3.6e6, "day": 864e5, "week": 7 * 864e5,
            "month": 365.25 / 12 * 864e5, "year": 365.25 * 864e5}  # fmt: skip
_JAVA_TO_STRFTIME = (("YYYY", "%Y"), ("yyyy", "%Y"), ("MM", "%m"), ("dd", "%d"), ("DDD", "%j"), ("HH", "%H"),
                     ("mm", "%M"), ("ss", "%S"))  # fmt: skip


def _unit(name: str) -> str:
    singular = name.rstrip("s").lower()
    if singular not in _UNIT_MS:
        raise EarthEngineError(f"Date: Unrecognized unit '{name}'.")
    return singular


@function("Date")
def _date(value, timeZone) -> Date:
    return parse_date(value.get("value") if isinstance(value, dict) else value)


@function("Date.fromYMD")
def _from_ymd(year: int, month: int, day: int, timeZone) -> Date:
    return parse_date(f"{year:04d}-{month:02d}-{day:02d}")


@function("Date.parse")
def _parse(format: str, date: str, timeZone) -> Date:
    return parse_date(date)


function("Date.millis")(lambda date: int(date.ms))


@function("Date.advance")
def _advance(date: Date, delta: float, unit: str, timeZone) -> Date:
    name = _unit(unit)
    if name not in ("month", "year") or delta != int(delta):
        return Date(date.ms + delta * _UNIT_MS[name])
    when = date.when
    months = when.year * 12 + when.month - 1 + int(delta) * (12 if name == "year" else 1)
    year, month = divmod(months, 12)
    day = min(when.day, calendar.monthrange(year, month + 1)[1])
    return Date(when.replace(year=year, month=month + 1, day=day).timestamp() * 1000)


@function("Date.difference")
def _difference(date: Date, start: Date, unit: str) -> float:
    return (date.ms - start.ms) / _UNIT_MS[_unit(unit)]


@function("Date.format")
def _format(date: Date, format, timeZone) -> str:
    if format is None:
        return (date.when.replace(tzinfo=None)).isoformat(timespec="seconds")
    pattern = format.replace("'T'", "T").replace("'Z'", "Z")
    pattern = pattern.replace("SSS", f"{date.when.microsecond // 1000:03d}")
    for java, python in _JAVA_TO_STRFTIME:
        pattern = pattern.replace(java, python)
    return date.when.strftime(pattern)


@function("Date.get")
def _get(date: Date, unit: str, timeZone) -> int:
    names = {"day": "day_of_month", "second": "second"}
    name = names.get(unit.rstrip("s"), unit.rstrip("s"))
    return date.when.second if name == "second" else _FIELDS[name](date.when)


@function("Date.getRelative")
def _get_relative(date: Date, unit: str, inUnit: str, timeZone) -> int:
    if (_unit(unit), _unit(inUnit)) == ("day", "year"):
        return date.when.timetuple().tm_yday - 1
    if (_unit(unit), _unit(inUnit)) == ("month", "year"):
        return date.when.month - 1
    if (_unit(unit), _unit(inUnit)) == ("day", "month"):
        return date.when.day - 1
    raise EarthEngineError(f"The loopback Earth Engine server has no Date.getRelative of {unit} in {inUnit}.")


@function("Date.getRange")
def _get_range(date: Date, unit: str, timeZone) -> DateRange:
    when, name = date.when, _unit(unit)
    first = {"year": when.replace(month=1, day=1), "month": when.replace(day=1)}.get(name, when)
    first = first.replace(hour=0, minute=0, second=0, microsecond=0)
    if name == "week":
        first -= timedelta(days=when.weekday())
    start = Date(first.timestamp() * 1000)
    return DateRange(start, _advance(start, 1, name, None))


@function("DateRange")
def _range(start, end, timeZone) -> DateRange:
    first = parse_date(start, "DateRange")
    last = Date(first.ms + 1) if end is None else parse_date(end, "DateRange")
    if last.ms <= first.ms:
        raise EarthEngineError("DateRange: Empty date ranges not supported for the current operation.")
    return DateRange(first, last)


function("DateRange.start")(lambda dateRange: dateRange.start)
function("DateRange.end")(lambda dateRange: dateRange.end)
function("DateRange.contains")(lambda dateRange, other: dateRange.contains(parse_date(other)))
