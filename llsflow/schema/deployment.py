"""The deployment: an experiment that runs again and again, by the clock."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Literal
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, Field, model_validator

from llsflow.schema.base import Bool, Identifier, PositiveInt, Record, Text

UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
INTERVAL = re.compile(r"^([1-9]\d{0,5})([smhdw])$")
CRON_FIELDS = (
    ("minute", 0, 59),
    ("hour", 0, 23),
    ("day of the month", 1, 31),
    ("month", 1, 12),
    ("day of the week", 0, 7),
)
CRON_NAMES = {
    "month": ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"),
    "day of the week": ("sun", "mon", "tue", "wed", "thu", "fri", "sat"),
}


def _checked_cron(text: str) -> str:
    fields = text.split()
    if len(fields) != len(CRON_FIELDS):
        names = ", ".join(name for name, _, _ in CRON_FIELDS)
        raise ValueError(f'found {text!r}, allowed: five fields ({names}), for example "0 3 * * *"')
    for (name, low, high), field in zip(CRON_FIELDS, fields, strict=True):
        for part in field.split(","):
            if not _is_cron_part(part.lower(), name, low, high):
                raise ValueError(
                    f"found {part!r} as the {name}, allowed: *, {low} to {high}, a range (1-5), a list or a step (*/15)"
                )
    return text


def _is_cron_part(part: str, name: str, low: int, high: int) -> bool:
    match = re.fullmatch(r"(\*|\w+)(?:-(\w+))?(?:/(\d+))?", part)
    if match is None:
        return False
    first, last, step = match.groups()
    if first == "*":
        return last is None and (step is None or int(step) > 0)
    names = {word: number for number, word in enumerate(CRON_NAMES.get(name, ()), low)}
    ends = [names.get(end, int(end) if end.isdecimal() else -1) for end in (first, last) if end is not None]
    return all(low <= end <= high for end in ends) and ends == sorted(ends) and (step is None or int(step) > 0)


def _checked_interval(text: str) -> str:
    if not INTERVAL.match(text):
        raise ValueError(f"found {text!r}, allowed: a number and its unit, s m h d or w: 90s, 15m, 6h, 1d")
    return text


def _checked_rrule(text: str) -> str:
    from dateutil.rrule import rrulestr

    try:
        rrulestr(text)
    except Exception as error:
        raise ValueError(
            f"found {text!r}: {error}; write a rule as in RFC 5545: FREQ=WEEKLY;BYDAY=MO,FR;BYHOUR=3;BYMINUTE=0"
        ) from error
    return text


def _checked_timezone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:
        raise ValueError(f"found {name!r}, allowed: a name of the time zone database: UTC, Europe/Berlin") from error
    return name


class Deployment(Record):
    """An experiment on a schedule; what is up to date is skipped, as always."""

    name: Identifier
    """Its file under conf/deployment."""
    description: str = ""
    """One sentence for its page in Prefect."""
    experiment: Identifier
    """A name of conf/experiment."""
    overrides: list[Text] = []
    """As on the command line: group=option, key=value."""
    cron: Annotated[Text, AfterValidator(_checked_cron)] | None = None
    """Minute, hour, day of the month, month, day of the week."""
    interval: Annotated[Text, AfterValidator(_checked_interval)] | None = None
    """A number and its unit (s, m, h, d, w), counted from midnight of 2020-01-01."""
    rrule: Annotated[Text, AfterValidator(_checked_rrule)] | None = None
    """A recurrence rule as in RFC 5545."""
    timezone: Annotated[Text, AfterValidator(_checked_timezone)] = "UTC"
    """Of the schedule: a name of the time zone database."""
    work_pool: Identifier = "llsflow"
    """Prefect work pool that runs it; `llsflow serve` works for the one that server.jobs.work_pool names."""
    concurrency_limit: PositiveInt | None = Field(default=1)
    """Most runs of this deployment at the same time; null: no limit."""
    collision: Literal["enqueue", "cancel_new"] = "enqueue"
    """What becomes of a run that is due beyond the limit: it waits, or it does not run."""
    paused: Bool = False
    """Whether nothing is scheduled for now."""

    @model_validator(mode="after")
    def _one_schedule(self) -> Deployment:
        given = [name for name in ("cron", "interval", "rrule") if getattr(self, name) is not None]
        if len(given) != 1:
            found = " and ".join(given) or "none"
            raise ValueError(f"found {found}, allowed: exactly one of cron, interval and rrule")
        return self

    def period(self) -> timedelta | None:
        """Return the interval as a time; None: the schedule is another."""
        match = INTERVAL.match(self.interval or "")
        return timedelta(**{UNITS[match.group(2)]: int(match.group(1))}) if match else None
