"""The extraction references, recomputed: the pasted texts are parsed again, and every figure is worked out anew."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from itertools import combinations, pairwise
from typing import Any, NamedTuple

from tests.bench_answers.bundled import query, reference

Check = Callable[[], list[str]]
DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


def found(pattern: str, question_id: int, turn: int) -> Any:
    """The only match of a pattern in what the user says: its group, or its groups where there are several."""
    (match,) = re.findall(pattern, query(question_id, turn))
    return match


def _days(text: str) -> set[str]:
    """The days of the week that "Tuesday to Friday", "daily except Wed" or "Mondays and Thursdays" stand for."""
    text, _, but = text.partition(" except ")
    named = [DAYS.index(day) for day in re.findall("|".join(DAYS), text)]
    if re.search("daily|every day", text):
        named = list(range(7))
    elif re.search(r" to |\w-\w", text):
        named = list(range(named[0], named[1] + 1))
    return {DAYS[day] for day in named} - {day for day in DAYS if day in but}


# 51: a clinic


class Staff(NamedTuple):
    """One person on the note."""

    name: str
    role: str
    ext: int
    days: set[str]
    start: int


def _clinic() -> list[Staff]:
    people = []
    for sentence in re.split(r"(?<!Dr)\. (?=[A-Z])", query(51, 1).split('"')[1])[1:]:
        if match := re.match(r"(Nurse|Receptionist) (\w+ \w+)", sentence):
            role, name = match[1].lower(), match[2]
        else:
            (name,), (role,) = re.findall(r"Dr\. (\w+ \w+)", sentence), re.findall(r"(\w+ist|\w+ician)\b", sentence)
        ext = int(re.findall(r"ext\. (\d+)", sentence)[0])
        start = re.match(r"From (\d+) May", sentence)
        people.append(Staff(name, role, ext, _days(sentence), int(start[1]) if start else 0))
    return people


def _listed(people: list[Staff]) -> str:
    return json.dumps([{"name": one.name, "role": one.role, "ext": one.ext} for one in people])


def _in_on(day: str) -> list[str]:
    return [" and ".join(one.name for one in _clinic() if day in one.days) + "."]


def q51_1() -> list[str]:
    assert len(_clinic()) == 4
    return [_listed(_clinic())]


def q51_2() -> list[str]:
    return _in_on("Wed")


def q51_3() -> list[str]:
    return _in_on("Mon")


def q51_4() -> list[str]:
    return [_listed(sorted(_clinic(), key=lambda one: one.ext))]


def q51_5() -> list[str]:
    origin, left, goal, reached = found(r"left (\w+) on (\d+) June and reached (\w+) on (\d+) June", 51, 5)
    return [f"Origin: {origin}", f"Destination: {goal}", f"transit: {int(reached) - int(left)}"]


def q51_6() -> list[str]:
    (late,) = (one for one in _clinic() if one.start > 1)
    return [f"{late.name}, who joins from {late.start} May"]


def _corrected() -> list[Staff]:
    number = int(found(r"really (\d+)", 51, 7))
    return [one._replace(ext=number) if one.role == "nurse" else one for one in _clinic()]


def q51_7() -> list[str]:
    return [" and ".join(f"{one.name} ({one.ext})" for one in _corrected() if 205 <= one.ext <= 220)]


def q51_8() -> list[str]:
    return [" ".join(f"{one.name} {one.ext}" for one in _corrected() if one.role != "receptionist")]


# 52: expenses


def _expenses() -> list[tuple[date, str, Decimal]]:
    first, glass, paid = found(r"On (\d+) March I paid (\w+ \w+) ([\d.]+)", 52, 1)
    plumber, took = found(r"two days later the plumber, (.*?), took (\d+)", 52, 1)
    bought, shop, price = found(r"On the (\d+)th I bought paint at (\w+) for ([\d.]+),", 52, 1)
    returned, back = found(r"on the (\d+)th and got ([\d.]+) back", 52, 1)
    refund, refunded = found(r"refunded (\d+) on (\d+) March", 52, 1)
    start = date(2025, 3, int(first))
    return [
        (start, glass, Decimal(paid)),
        (start + timedelta(days=2), plumber, Decimal(took)),
        (date(2025, 3, int(bought)), shop, Decimal(price)),
        (date(2025, 3, int(returned)), shop, -Decimal(back)),
        (date(2025, 3, int(refunded)), glass, -Decimal(refund)),
    ]


def _csv(rows: list[tuple[date, str, Decimal]]) -> str:
    return " ".join(f"{day:%m-%d},{payee},{amount:.2f}" for day, payee, amount in rows)


def _second_bill() -> tuple[date, str, Decimal]:
    day, plumber, amount = _expenses()[1]
    return day + timedelta(days=7), plumber, amount / 2


def q52_1() -> list[str]:
    return [f"date,payee,amount {_csv(_expenses())}"]


def q52_2() -> list[str]:
    return [f"{day:%m-%d} {payee}, {-amount:.2f}" for day, payee, amount in _expenses() if amount < 0]


def q52_3() -> list[str]:
    return [f"{-sum(amount for *_, amount in _expenses() if amount < 0):.2f}"]


def q52_4() -> list[str]:
    cost: Counter[str] = Counter()
    for _, payee, amount in _expenses():
        cost[payee] += amount  # type: ignore[assignment]
    return [*(f"{payee} {amount:.2f}" for payee, amount in cost.items()), f"{sum(cost.values()):.2f} altogether"]


def q52_6() -> list[str]:
    days = [day for day, payee, _ in _expenses() if "Glass" in payee]
    return [f"{(days[1] - days[0]).days} days ({days[0].day} March to {days[1].day} March)"]


def q52_7() -> list[str]:
    return [_csv([_second_bill()])]


def q52_8() -> list[str]:
    rows = sorted([*_expenses(), _second_bill()])
    return [f"date,payee,amount {_csv(rows)} Net total: {sum(amount for *_, amount in rows):.2f}"]


# 53: minutes of a meeting


class Action(NamedTuple):
    """One thing to be done."""

    who: str
    what: str
    when: str


def _day(day: date) -> str:
    return f"{day.day} {day:%B %Y}"


def _present() -> dict[str, str]:
    """Full names by the word that the minutes use for them."""
    names = found(r"Present: (.*?)\. ", 53, 1).split(", ")
    chair = next(name for name in names if name.endswith(" (chair)"))
    full = {name.split()[0]: name for name in names if name != chair}
    return {**full, "The chair": chair.removesuffix(" (chair)")}


def _meeting() -> date:
    weekday, day, year = found(r"(\w+) (\d+) January (\d+)\.", 53, 1)
    held = date(int(year), 1, int(day))
    assert f"{held:%A}" == weekday
    return held


def _next_meeting() -> date:
    assert "second Tuesday of February" in query(53, 1)
    february = (date(_meeting().year, 2, 1) + timedelta(days=day) for day in range(28))
    return [day for day in february if day.weekday() == 1][1]


def _actions() -> list[Action]:
    name, actions = _present(), []
    patterns = (
        r"(Raf) will (get .*?) (before the next meeting)",
        r"(The chair) is to (write .*?) by (Friday)",
        r"(Mrs) Thornbury offered to (repaint .*?); (no date)",
        r"(Ipek) will (order .*?) by (31 January)",
        r"(Raf) will (stack) them (the day after they arrive)",
    )
    for who, what, when in (found(pattern, 53, 1) for pattern in patterns):
        actions.append(Action(name[who], "stack the bags" if what == "stack" else what, when))
    return actions


def _friday() -> date:
    return _meeting() + timedelta(days=(4 - _meeting().weekday()) % 7)


def _dated() -> list[Action]:
    dates = {
        "before the next meeting": f"before {_day(_next_meeting())}",
        "Friday": _day(_friday()),
        "31 January": _day(date(_meeting().year, 1, 31)),
        "the day after they arrive": "unknown (the day after they arrive)",
    }
    return [one._replace(when=dates.get(one.when, one.when)) for one in _actions()]


def _idle(actions: list[Action]) -> str:
    (idle,) = set(_present().values()) - {one.who for one in actions}
    return idle


def _amended() -> list[Action]:
    letter = _day(_friday() + timedelta(days=7))
    amended = [one._replace(when=letter) if "write" in one.what else one for one in _dated()]
    return [one._replace(who=_idle(_actions())) if "compost" in one.what else one for one in amended]


def _lines(actions: list[Action]) -> list[str]:
    return [" ".join(" | ".join(one) for one in actions)]


def q53_1() -> list[str]:
    return _lines(_actions())


def q53_2() -> list[str]:
    return _lines(_dated())


def q53_3() -> list[str]:
    return [_day(_meeting().replace(day=int(found(r"(\d+)th", 53, 3))) + timedelta(days=1))]


def q53_4() -> list[str]:
    return [_idle(_actions())]


def q53_5() -> list[str]:
    return _lines([new for old, new in zip(_dated(), _amended(), strict=True) if old != new])


def q53_7() -> list[str]:
    (busy,) = (name for name, n in Counter(one.who for one in _amended()).items() if n == 2)
    return [f"{busy} has two", f"{_idle(_amended())} now has none"]


def q53_8() -> list[str]:
    (open_ended,) = (one for one in _actions() if one.when == "no date")
    return [open_ended.who, open_ended.what, f"{_next_meeting():%A} {_day(_next_meeting())}"]


# 54: ferries


class Crossing(NamedTuple):
    """One line of the timetable."""

    boat: str
    start: str
    leaves: str
    goal: str
    arrives: str
    days: set[str]

    def __str__(self) -> str:
        return f"{self.start} > {self.goal}, {self.leaves}, {self.arrives}"


def _minutes(clock: str) -> int:
    hours, minutes = clock.split(":")
    return 60 * int(hours) + int(minutes)


def _clock(minutes: int) -> str:
    return f"{minutes // 60 % 24:02}:{minutes % 60:02}"


def _ferries() -> list[Crossing]:
    pattern = r"(?m)^(\w+) +(\w+) (\d\d:\d\d) +(\w+) (\d\d:\d\d) +(.*)$"
    rows = [
        Crossing(boat, start, leaves, goal, arrives, _days(runs))
        for boat, start, leaves, goal, arrives, runs in re.findall(pattern, query(54, 1))
    ]
    return sorted(rows, key=lambda row: row.leaves)


def _length(crossing: Crossing) -> int:
    return _minutes(crossing.arrives) - _minutes(crossing.leaves)


def _twelve(clock: str) -> str:
    return f"{datetime.strptime(clock, '%H:%M'):%I:%M %p}".lstrip("0").replace("AM", "a.m.").replace("PM", "p.m.")


def _earliest(day: str, ferries: list[Crossing]) -> list[Crossing]:
    """The trip from Harran to Skell that arrives first, of at most two crossings."""
    running = [one for one in ferries if day in one.days]
    chains = [[one] for one in running] + [[a, b] for a in running for b in running]
    trips = [
        chain
        for chain in chains
        if (chain[0].start, chain[-1].goal) == ("Harran", "Skell")
        and all(a.goal == b.start and a.arrives <= b.leaves for a, b in pairwise(chain))
    ]
    return min(trips, key=lambda trip: trip[-1].arrives)


def q54_1() -> list[str]:
    assert len(_ferries()) == 7
    return [" ".join(map(str, _ferries()))]


def q54_2() -> list[str]:
    lengths = {str(one).split(",")[0]: _length(one) for one in _ferries()}
    quick, slow = min(lengths.values()), max(lengths.values())
    rest = {length for length in map(_length, _ferries()) if length not in (quick, slow)}
    names = {length: " and ".join(name for name in lengths if lengths[name] == length) for length in (quick, slow)}
    return [
        f"Quickest: {names[quick]}, {quick} minutes",
        f"Slowest: {names[slow]}, {slow} minutes",
        f"The rest take {rest.pop()}.",
    ]


def _gannet(day: str) -> list[str]:
    return [" ".join(str(one) for one in _ferries() if one.boat == "Gannet" and day in one.days)]


def q54_3() -> list[str]:
    return _gannet("Wed")


def q54_4() -> list[str]:
    return _gannet("Thu")


def q54_5() -> list[str]:
    trip = _earliest("Sat", _ferries())
    other = min(one.arrives for one in _ferries() if one.boat == "Petrel" and "Sat" in one.days and one.goal == "Skell")
    legs = "; ".join(f"{one.start} {one.leaves}, {one.goal} {one.arrives}" for one in trip)
    assert {one.boat for one in trip} == {"Gannet"}
    return [f"By the Gannet, via {trip[0].goal}: {legs}", f"ashore at {trip[-1].arrives}", other]


def q54_6() -> list[str]:
    landed = _earliest("Sat", _ferries())[-1].arrives
    (home,) = (one for one in _ferries() if "Sat" in one.days and (one.start, one.goal) == ("Skell", "Harran"))
    assert landed < home.leaves
    return [f"{home.boat}'s {home}"]


def q54_7() -> list[str]:
    return [", ".join(map(_twelve, re.findall(r"\d\d:\d\d", query(54, 7))))]


def q54_8() -> list[str]:
    hop = min(_ferries(), key=_length)
    later = hop._replace(leaves=_clock(_minutes(hop.leaves) + 60), arrives=_clock(_minutes(hop.arrives) + 60))
    trip = _earliest("Sat", [*(one for one in _ferries() if one != hop), later])
    assert trip[-1] == later
    return [str(later), f"at {_twelve(later.arrives)}"]


# 55: a letter of 1897

BIRTHDAYS = {"eighteenth": 18, "nineteenth": 19, "eighty": 80}
FEASTS = {"Candlemas": (2, 2), "Midsummer Day": (6, 24)}


def _letter() -> date:
    weekday, day, month, year = found(r"Cork, (\w+) (\d+) (\w+) (\d+)\.", 55, 1)
    written = datetime.strptime(f"{day} {month} {year}", "%d %B %Y").date()
    assert f"{written:%A}" == weekday
    return written


def _sailed() -> date:
    weekday = found(r"sailed on (\w+),", 55, 1)
    return next(day for day in (_letter() - timedelta(days=n) for n in range(1, 8)) if f"{day:%A}" == weekday)


def _thady() -> date:
    birthday = BIRTHDAYS[found(r"two days short of his (\w+) birthday", 55, 1)]
    soon = _sailed() + timedelta(days=2)
    return soon.replace(year=soon.year - birthday)


def _mother() -> date:
    age, feast = found(r"she turned (\w+) at (\w+)", 55, 1)
    month, day = FEASTS[feast]
    return date(_letter().year - BIRTHDAYS[age], month, day)


def _malachy() -> int:
    return 1800 + int(found(r"buried in June of '(\d\d)", 55, 1))


def q55_1() -> list[str]:
    parent = {"Honora": "Daniel", "Thady": "Daniel", "Ellen": "Daniel", "Con Lacey": "Brigid"}
    parent |= dict.fromkeys(("Daniel", "Brigid", "Malachy"), "Mother")
    women = {"Honora", "Brigid", "Ellen"}
    kin = {("Daniel",): ("daughter", "son"), ("Mother",): ("sister", "brother"), ("Brigid",): ("niece", "nephew")}
    names = [name for name in parent if name != "Daniel"]
    assert all(name in query(55, 1) for name in (*names, "Mr Prout"))
    assert found(r"Your loving father, ([\w ]+)", 55, 1) in reference(55, 1)
    return [f"{name}: {kin[(parent[name],)][name not in women]}" for name in names]


def q55_2() -> list[str]:
    return [f"Thady was born on {_day(_thady())}", f"{_sailed():%A} {_day(_sailed())}"]


def q55_3() -> list[str]:
    assert "Con Lacey, who is a year older" in query(55, 1)
    return [f"Con Lacey was born in about {_thady().year - 1}"]


def q55_5() -> list[str]:
    born, lost = _mother(), date(_malachy(), 6, 1)
    age = lost.year - born.year - ((lost.month, lost.day) < (born.month, born.day))
    return [f"{age}.", _day(born), f"June {lost.year}"]


def q55_6() -> list[str]:
    wedding = date(_letter().year, *FEASTS[found(r"weds .*? on (Midsummer Day)", 55, 1)])
    bride, groom = found(r"My own (\w+) weds the schoolmaster, (Mr \w+),", 55, 1)
    days = f"{_letter().day} {_letter():%B} to {wedding.day} {wedding:%B}"
    return [f"{(wedding - _letter()).days} days ({days}): {bride} Keane and {groom}"]


def q55_7() -> list[str]:
    years = {"Mother": f"b. {_mother().year}", "Thady": f"b. {_thady().year}", "Malachy": f"d. {_malachy()}"}
    years["Con Lacey"] = f"b. about {_thady().year - 1}"
    children = {"Daniel Keane": ["Honora", "Thady", "Ellen"], "Brigid": ["Con Lacey"], "Malachy": []}
    tree = [
        "Mother",
        *(name for child, grown in children.items() for name in (f"  {child}", *(f"    {n}" for n in grown))),
    ]
    lines = [f"{name} ({years[name.strip()]})" if name.strip() in years else name for name in tree]
    assert reference(55, 7).splitlines() == lines
    return []


def q55_8() -> list[str]:
    day, month, year = found(r"christened on (\d+) (\w+) (\d+), aged one week", 55, 8)
    born = datetime.strptime(f"{day} {month} {year}", "%d %B %Y").date() - timedelta(days=7)
    turning = (_sailed() + timedelta(days=2)).year - born.year
    assert (born.month, born.day, born.year - 1) == (_thady().month, _thady().day, _thady().year)
    word = next(word for word, number in BIRTHDAYS.items() if number == turning)
    return [f"born on {_day(born)}", f"two days short of his {word} birthday", f"about {born.year - 1}"]


# 56: cold rooms


def _log() -> list[list[str]]:
    return [line.split() for line in query(56, 1).splitlines() if re.match(r"\d\d:\d\d ", line)]


def _readings() -> list[dict[str, object]]:
    return [
        {"time": at, "room": room, "celsius": float(rest[0]), "warn": "WARN" in rest}
        for at, room, kind, *rest in _log()
        if kind == "temp"
    ]


def _doors() -> list[list[str]]:
    return [event for event in _log() if event[2] == "door"]


def _open_times() -> dict[str, tuple[str, str | None]]:
    times: dict[str, tuple[str, str | None]] = {}
    for at, room, _, state in _doors():
        times[room] = (at, None) if state == "open" else (times[room][0], at)
    return times


def q56_1() -> list[str]:
    assert json.loads(reference(56, 1)) == _readings()
    return []


def q56_2() -> list[str]:
    rows = [row for row in _log() if "WARN" in row]
    return [" ".join(f"{at} {room} {Decimal(value) * 9 / 5 + 32:.1f}" for at, room, _, value, _ in rows)]


def _zone() -> timezone:
    return timezone(timedelta(hours=int(found(r"UTC([+]\d+)", 56, 3))))


def _stamp(clock: str) -> datetime:
    day = datetime.strptime(found(r"of (\d+ \w+ \d{4})", 56, 3), "%d %B %Y")
    return datetime.combine(day, time.fromisoformat(clock), _zone())


def q56_3() -> list[str]:
    hour, minute = found(r"(\d+):(\d+)", 56, 3)
    return [_stamp(f"{int(hour):02}:{minute}").isoformat()]


def q56_4() -> list[str]:
    at, *rest = [row for row in _log() if "WARN" in row][-1]
    return [f"{_stamp(at).astimezone(UTC):%Y-%m-%dT%H:%M:%SZ} {' '.join(rest)}"]


def q56_5() -> list[str]:
    ((room, since),) = ((room, opened) for room, (opened, closed) in _open_times().items() if closed is None)
    last = _log()[-1][0]
    return [f"{room}, open since {since}: {_minutes(last) - _minutes(since)} minutes by the last line, {last}"]


def q56_6() -> list[str]:
    shut = [(room, opened, closed) for room, (opened, closed) in _open_times().items() if closed]
    lengths = [(room, _minutes(closed) - _minutes(opened), opened, closed) for room, opened, closed in shut]
    return [f"{room} for {n} minute{'s' * (n > 1)} ({opened} to {closed})" for room, n, opened, closed in lengths]


def q56_7() -> list[str]:
    assert "seven minutes fast until it was reset at half past eight" in query(56, 7)
    true = [(_clock(_minutes(at) - 7) if at < "08:30" else at, *rest) for at, *rest in _doors()]
    return [" ".join(" ".join(event) for event in true)]


def q56_8() -> list[str]:
    alarms = Counter(row["room"] for row in _readings() if row["warn"])
    (room,) = (room for room, n in alarms.items() if n > 1)
    rows = [{**row, "room": "butter"} for row in _readings() if row["room"] == room]
    assert json.loads(reference(56, 8)) == [{k: v for k, v in row.items() if v is not False} for row in rows]
    return []


# 57: offers for cushions

NUMBERS = {"Five": 5, "eight": 8, "ten": 10, "Twenty-one": 21, "four": 4}


def _bellweather(order: int) -> tuple[Decimal, bool]:
    """What the goods cost, and whether they travel free."""
    goods = order * Decimal(found(r"We can do ([\d.]+) euros apiece", 57, 1))
    return goods, goods > int(found(r"Orders over ([\d,]+) euros", 57, 1).replace(",", ""))


def _kaminski(order: int) -> Decimal:
    normal, lower, least = found(r"([\d.]+) each, but ([\d.]+) from (\d+) pieces", 57, 1)
    flat = found(r"a flat (\d+) per order", 57, 1)
    return order * Decimal(lower if order >= int(least) else normal) + int(flat)


def _ostrava(order: int, up_front: bool = False) -> Decimal:
    total = Decimal(order * NUMBERS[found(r"([-\w]+) a piece, delivered", 57, 1)])
    return total * (100 - NUMBERS[found(r"(\w+) per cent off", 57, 1)]) / 100 if up_front else total


def _cushions() -> int:
    return int(found(r"needs (\d+) seat", 57, 1))


def q57_1() -> list[str]:
    goods, free = _bellweather(_cushions())
    each = (_kaminski(_cushions()) - _kaminski(0)) / _cushions(), _ostrava(1, up_front=True)
    assert free
    return [
        f"| Bellweather | {goods / _cushions():.2f} | free (over 3,000) | {NUMBERS['Five']} weeks |",
        f"| Kaminski & Daughters | {each[0]:.2f} | {_kaminski(0):.0f} | {NUMBERS['eight']} weeks |",
        f"| Ostrava Textil | {_ostrava(1):.2f} ({each[1]:.2f} if paid up front) | included | {NUMBERS['ten']} days |",
    ]


def q57_2() -> list[str]:
    n = _cushions()
    totals = {"Bellweather": _bellweather(n)[0], "Kaminski & Daughters": _kaminski(n), "Ostrava Textil": _ostrava(n)}
    return [f"{name} {total:,.2f}" for name, total in totals.items()]


def q57_3() -> list[str]:
    n = _cushions()
    weeks = {
        "Bellweather": (NUMBERS[found(r"(\w+) weeks\.\"\nKaminski", 57, 1)], _bellweather(n)[0]),
        "Kaminski & Daughters": (NUMBERS[found(r"Allow (\w+) weeks", 57, 1)], _kaminski(n)),
        "Ostrava Textil": (NUMBERS[found(r"in (\w+) days", 57, 1)] / 7, _ostrava(n)),
    }
    (late,) = (name for name, (time, _) in weeks.items() if time > 6)
    ranked = sorted((total, name) for name, (time, total) in weeks.items() if time <= 6)
    first, then = (f"{name}, {total:,.2f}" for total, name in ranked)
    return [f"{late} (eight weeks) is out", f"First {first}, then {then}"]


def _split() -> list[int]:
    now, later = found(r"buy (\d+) at once and (\d+) next", 57, 4)
    assert int(now) + int(later) == _cushions()
    return [int(now), int(later)]


def q57_4() -> list[str]:
    orders = [_kaminski(order) for order in _split()]
    single, _, least = found(r"([\d.]+) each, but ([\d.]+) from (\d+) pieces", 57, 1)
    parts = [
        f"{n} x {float(single):.0f} + {_kaminski(0):.0f} = {total:,.0f}"
        for n, total in zip(_split(), orders, strict=True)
    ]
    start = f"Kaminski & Daughters: {sum(orders):,.2f} euros. Neither order reaches {least}, so {single} applies"
    return [start, " and ".join(parts)]


def q57_5() -> list[str]:
    goods = [_bellweather(order) for order in _split()]
    assert not any(free for _, free in goods)
    total = sum(cost for cost, _ in goods)
    limit = found(r"Orders over ([\d,]+) euros", 57, 1)
    sum_up = " + ".join(f"{cost:,.2f}" for cost, _ in goods)
    return [f"{sum_up} = {total:,.2f} for the goods", f"neither order exceeds {limit}, so"]


def q57_6() -> list[str]:
    quotes = re.findall(r'"(.*?)" \((.*?)\)', reference(57, 6))
    messages = re.findall(r'(?m)^(.*?): "(.*?)"$', query(57, 1))
    assert len(quotes) == len(messages)
    for (quote, name), (sender, message) in zip(quotes, messages, strict=True):
        assert quote in message
        assert name in sender
        assert re.search("weeks|days", quote)
    return []


def q57_8() -> list[str]:
    start = int(found(r"ordered on (\d+) March", 57, 8))
    day = start + NUMBERS[found(r"in (\w+) days", 57, 1)]
    name = found(r"(\w+) of [\w ]+, on the answering machine", 57, 1)
    return [
        name,
        f"{_cushions()} cushions today, {start} March",
        f"{_ostrava(_cushions(), up_front=True):,.2f} euros",
        f"by {day} March",
    ]


# 58: old radios

VALVES = {"one": 1, "four": 4, "five": 5}


class Radio(NamedTuple):
    """One card of the museum."""

    maker: str | None
    model: str
    year: int | None
    valves: int
    works: bool | None

    def __str__(self) -> str:
        fields = self._asdict().items()
        return "- " + " ".join(f"{key}: {'null' if value is None else str(value)}" for key, value in fields)

    @property
    def name(self) -> str:
        """As the references call it."""
        return f"{self.maker} {self.model}" if self.maker and " " not in self.model else self.model


def _radios() -> list[Radio]:
    cards = re.findall(r"(?m)^\d\. (.*)$", query(58, 1))
    radios: list[Radio] = []
    for card in cards:
        model = re.findall(r'"(.*?)"|model (\w+)', card)[0]
        maker = re.findall(r"(?:^|by )([A-Z][a-z]+)\b(?! by)(?!-)", card)
        year = re.findall(r"\b1\d{3}\b", card)
        number = re.findall(r"(one|four|five) valve", card)
        years = int(year[0]) if year else None
        if "two years younger than the Fjord" in card:
            years = next(one.year + 2 for one in radios if one.model == "Fjord" and one.year)
        valves = VALVES[number[0]] if number else radios[0].valves
        works = True if "plays" in card else False if re.search("Dead|mute", card) else None
        radios.append(Radio(maker[0] if maker else None, "".join(model), years, valves, works))
    return radios


def _amsel() -> list[Radio]:
    initials, later = found(r'"(R\. Amsel), winter of \d+ to (\d+)"', 58, 6)
    return [one if one.maker else one._replace(maker=initials, year=int(later)) for one in _radios()]


def _fence(question_id: int, turn: int) -> str:
    (text,) = re.findall(r"```yaml\n(.*?)```", reference(question_id, turn), re.DOTALL)
    return " ".join(text.split())


def q58_1() -> list[str]:
    assert _fence(58, 1).lower() == " ".join(map(str, _radios())).lower()
    return []


def q58_3() -> list[str]:
    gaps = [(one.name, [key for key, value in one._asdict().items() if value is None]) for one in _radios()]
    assert [keys for _, keys in gaps if keys] == [["year"], ["maker", "works"]]
    (first, second) = (name for name, keys in gaps if keys)
    return [f"{first} lacks its year", f"{second} lacks its maker and whether it works"]


def q58_4() -> list[str]:
    stamped = 1900 + int(found(r"stamped \"III\.(\d\d)\"", 58, 4))
    dated = [(one.year or stamped, one.name) for one in _radios()]
    return [" ".join(f"{year} {name}" for year, name in sorted(dated))]


def q58_5() -> list[str]:
    years = [one.year for one in _radios() if one.year]
    (dropped,) = (one.name for one in _radios() if not one.year)
    assert sum(years) % len(years) == 0
    mean = f"{sum(years) // len(years)}: ({' + '.join(map(str, years))}) / {len(years)}"
    return [mean, f"The {dropped} has no year"]


def q58_6() -> list[str]:
    (entry,) = (new for old, new in zip(_radios(), _amsel(), strict=True) if old != new)
    assert _fence(58, 6).lower() == str(entry).lower()
    return []


def q58_7() -> list[str]:
    need = [one for one in _amsel() if not one.works]
    parts = [f"{one.maker} {one.valves} ({one.model})" for one in need]
    return [f"{sum(one.valves for one in need)}: {', '.join(parts)}"]


def q58_8() -> list[str]:
    (playing,) = (one for one in _amsel() if one.works)
    (other,) = (one for one in _amsel() if one.maker == "R. Amsel")
    assert playing.year
    assert other.year
    caption = reference(58, 8).split('"')[1]
    assert len(caption.split()) <= 25
    words = {9: "nine"}
    younger = f"{words[playing.year - other.year]} years younger than the home-made {other.model} of {other.year}"
    return [f"{playing.name}, {playing.year}", younger]


# 59: a journey


class Leg(NamedTuple):
    """One row of the travel table: the day of November and the local times."""

    start: str
    day: int
    leaves: str
    goal: str
    arrives: str
    service: str

    def __str__(self) -> str:
        next_day = self.day + (self.arrives < self.leaves)
        left, came = f"{self.day} November {self.leaves}", f"{next_day} November {self.arrives}"
        return f"| {self.start} | {left} | {self.goal} | {came} | {self.service} |"


def _legs() -> list[Leg]:
    out, first, *leg_1 = found(
        r"On (\d+) November flight (KZ \d+) takes you from (\w+) \((.*?)\) to (\w+) \((.*?),", 59, 1
    )
    second, *leg_2 = found(r"(KZ \d+) from there at (\S+) to (\w+) at (\S+),", 59, 1)
    bus, *leg_3 = found(r"Night bus (K9) leaves (\w+) at (\S+) and sets you down in (\w+) at (\S+),", 59, 1)
    home, third, *leg_4 = found(r"the (\d+)th: (KZ \d+) from (\w+) (\S+), in (\w+) (\S+),", 59, 1)
    fourth, *leg_5 = found(r"then (KZ \d+) at (\S+), in (\w+) ([\d:]+)", 59, 1)
    rows = [
        (out, leg_1, first),
        (out, [leg_1[2], *leg_2], second),
        (out, leg_3, bus),
        (home, leg_4, third),
        (home, [leg_4[2], *leg_5], fourth),
    ]
    return [Leg(leg[0], int(day), leg[1], leg[2], leg[3], service) for day, leg, service in rows]


def _offset(town: str) -> int:
    assert "an hour ahead of yours" in query(59, 1)
    assert "three hours ahead of Warsaw" in query(59, 1)
    return {"Porto": 0, "Warsaw": 1, "Tbilisi": 1 + 3, "Telavi": 1 + 3}[town]


def _spell(minutes: int) -> str:
    return f"{minutes // 60} h {minutes % 60:02} min"


def _waits() -> list[tuple[Leg, Leg, int]]:
    changes = [(a, b) for a, b in pairwise(_legs()) if a.day == b.day and a.goal == b.start]
    return [(a, b, _minutes(b.leaves) - _minutes(a.arrives)) for a, b in changes]


def _zaza() -> Leg:
    night = next(leg for leg in _legs() if leg.service == "K9")
    landed = next(leg.arrives for leg in _legs() if leg.goal == night.start)
    assert "half an hour after I land" in query(59, 7)
    start = _minutes(landed) + 30
    goal = start + int(found(r"for (\d+) minutes", 59, 7))
    return night._replace(leaves=_clock(start), arrives=_clock(goal), service="Zaza")


def q59_1() -> list[str]:
    return [" ".join(map(str, _legs()))]


def q59_2() -> list[str]:
    flights = [leg for leg in _legs() if leg.service.startswith("KZ")]
    air = [
        _minutes(leg.arrives) - _minutes(leg.leaves) - 60 * (_offset(leg.goal) - _offset(leg.start)) for leg in flights
    ]
    return [f"{leg.service}: {_spell(minutes)}" for leg, minutes in zip(flights, air, strict=True)]


def q59_3() -> list[str]:
    out = min(leg.day for leg in _legs())
    there = ", ".join(f"{a.goal} {_spell(wait)}" for a, _, wait in _waits() if a.day == out)
    back = ", ".join(f"{a.goal} {_spell(wait)}" for a, _, wait in _waits() if a.day != out)
    return [f"Outward: {there}.", f"Homeward: {back}."]


def q59_4() -> list[str]:
    ((before, after, wait),) = (change for change in _waits() if change[2] < 120)
    latest = _clock(_minutes(after.leaves) - 120)
    return [before.goal, f"{_spell(wait)} before {after.service}", f"by {latest} instead of {before.arrives}"]


def q59_5() -> list[str]:
    ((there, back),) = ((a, b) for a, b in pairwise(_legs()) if a.goal != b.start)
    return [f"from {there.goal} to {back.start} for the flight on {back.day} November"]


def q59_6() -> list[str]:
    clock, plus, minus = found(r"(\d+:\d+) at UTC\+(\d), what time is it at UTC-(\d)", 59, 6)
    there = _minutes(clock) - 60 * (int(plus) + int(minus))
    assert there >= 0
    return [f"{_clock(there)} on the same day"]


def q59_7() -> list[str]:
    night = next(leg for leg in _legs() if leg.service == "K9")
    sooner = _minutes(night.arrives) + 24 * 60 - _minutes(_zaza().arrives)
    return [str(_zaza()), f"{_spell(sooner)} sooner than {night.arrives}"]


def q59_8() -> list[str]:
    zaza = _zaza()
    hers = _minutes(zaza.arrives) - 60 * (_offset(zaza.goal) - _offset(_legs()[0].start))
    house = found(r"where ([\w ]+) has a room", 59, 1)
    return [f"{zaza.day} November at {_clock(hers)}", f"{house} in {zaza.goal}"]


# 60: six replies about a bus


class Reply(NamedTuple):
    """One reply, with a dash for what isn't said."""

    name: str
    days: set[str]
    clock: str
    purpose: str


PURPOSES = {"library": "library", "market": "market", "evening class": "evening class"}
CLOCKS = {"at nine": "09:00", "at ten": "10:00", "half past six": "18:30", "quarter to four": "15:45", "two": "14:00"}


def _replies() -> list[Reply]:
    replies: list[Reply] = []
    for name, text in re.findall(r"(?m)^(\w+): (.*)$", query(60, 1)):
        days = {day for day in DAYS[:6] if day in text}
        if "Any day but" in text:
            days = set(DAYS[:6]) - days
        clock = next((clock for words, clock in CLOCKS.items() if words in text), "-")
        purpose = next((purpose for words, purpose in PURPOSES.items() if words in text), "-")
        if "home from college" in text:
            purpose = "son home from college"
        if "Same day as Aldous and the same errand" in text:
            days, purpose = replies[0].days, replies[0].purpose
        replies.append(Reply(name, days, clock, purpose))
    return replies


def _by_day(replies: list[Reply]) -> dict[str, set[str]]:
    return {day: {reply.name for reply in replies if day in reply.days} for day in DAYS[:6]}


def _unserved(days: tuple[str, ...], replies: list[Reply]) -> set[str]:
    return {reply.name for reply in replies if not reply.days & set(days)}


def _with_thursdays_off() -> list[Reply]:
    (complaint,) = re.findall(r"(?m)^(\w+): .*Nobody ever", query(60, 1))
    return [reply._replace(days=reply.days | {"Thu"}) if reply.name == complaint else reply for reply in _replies()]


def q60_1() -> list[str]:
    rows = [(one.name, sorted(one.days, key=DAYS.index), one.clock, one.purpose) for one in _replies()]
    assert len(rows) == 6
    return [" ".join(f"{name}: {', '.join(days)}; {clock}; {purpose}" for name, days, clock, purpose in rows)]


def q60_2() -> list[str]:
    return [", ".join(f"{day} {len(names)}" for day, names in _by_day(_replies()).items())]


def q60_3() -> list[str]:
    best = max(DAYS[:6], key=lambda day: len(_by_day(_replies())[day]))
    assert best == "Tue"
    return [" and ".join(sorted(_unserved((best,), _replies())))]


def q60_4() -> list[str]:
    lost = {pair: _unserved(pair, _replies()) for pair in combinations(DAYS[:6], 2)}
    fewest = min(map(len, lost.values()))
    best = {pair: names for pair, names in lost.items() if len(names) == fewest}
    assert best == {("Tue", "Thu"): {"Edda"}, ("Tue", "Sat"): {"Chidi"}}
    return ["Tuesday and Thursday leave out only Edda, Tuesday and Saturday only Chidi"]


def q60_6() -> list[str]:
    settled = [pair for pair in combinations(DAYS[:6], 2) if not _unserved(pair, _with_thursdays_off())]
    assert settled == [("Tue", "Thu")]
    return ["Tuesday and Thursday serve all six"]


def q60_7() -> list[str]:
    riders = [reply for reply in _with_thursdays_off() if "Thu" in reply.days]
    riders.sort(key=lambda one: one.clock.replace("-", "99"))
    return [" ".join(f"{one.name}; {one.clock}; {one.purpose}" for one in riders)]


def q60_8() -> list[str]:
    riders = sorted((_minutes(one.clock), one.name) for one in _with_thursdays_off() if "Tue" in one.days)
    groups = [group for n in range(len(riders) + 1) for group in combinations(riders, n)]
    fitting = [group for group in groups if not group or group[-1][0] - group[0][0] <= 5 * 60]
    most = max(map(len, fitting))
    (kept,) = (group for group in fitting if len(group) == most)
    assert [name for _, name in riders if name not in dict(map(reversed, kept))] == ["Delphine"]  # type: ignore[arg-type]
    whole = riders[-1][0] - riders[0][0]
    names = [f"{name} ({_clock(at)})" for at, name in kept]
    return [
        f"{_clock(riders[0][0])} to {_clock(riders[-1][0])} is {_spell(whole)}",
        f"{', '.join(names[:-1])} and {names[-1]}",
        "only Delphine's son",
    ]


ANSWERS: dict[tuple[int, int], Check] = {
    (int(name[1:3]), int(name[4])): check for name, check in list(globals().items()) if re.fullmatch(r"q\d\d_\d", name)
}

UNCOMPUTED: dict[tuple[int, int], str] = {
    (52, 5): "parts of speech",
    (53, 6): "a definition",
    (55, 4): "dates of feasts",
    (57, 7): "a definition",
    (58, 2): "a fact about the format",
    (60, 5): "a definition",
}
