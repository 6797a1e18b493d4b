"""Recompute the math references of the bundled benchmark from the facts of each session."""

from collections import Counter
from collections.abc import Callable, Iterable
from fractions import Fraction
from itertools import combinations, count, permutations, product
from math import ceil, comb, gcd, pi, sqrt
from statistics import mean, median, pstdev

from tests.bench_answers.bundled import query, with_sums


def shown(number: float | Fraction, digits: int = 2) -> str:
    """A number rounded to at most so many digits."""
    text = f"{float(number):.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def euros(cents: float | Fraction) -> str:
    """An amount of cents in euros."""
    return f"{float(cents) / 100:,.2f}"


# 31: the terrace

ACROSS, DOWN = 720 // 30, 450 // 30
POND = (150 // 30) ** 2
SHOPS = {"Halloran's": (14, 2380), "Delmas": (20, 3350)}


def boxes(tiles: int, shop: str, spare: bool = True) -> tuple[int, int]:
    """Boxes to buy and their price in cents."""
    needed = -(-tiles * 11 // 10) if spare else tiles
    size, price = SHOPS[shop]
    number = -(-needed // size)
    return number, number * price


def terrace_1() -> list[str]:
    """Boxes with spares."""
    number, price = boxes(ACROSS * DOWN, "Halloran's")
    return [f"{number} boxes, {euros(price)} euros", f"{ACROSS} x {DOWN} = {ACROSS * DOWN} tiles", "396;"]


def terrace_2() -> list[str]:
    """Boxes without spares."""
    number, price = boxes(ACROSS * DOWN, "Halloran's", spare=False)
    return [f"{number} boxes, {euros(price)} euros"]


def terrace_3() -> list[str]:
    """How much higher the first bill is."""
    ratio = boxes(ACROSS * DOWN, "Halloran's")[1] / boxes(ACROSS * DOWN, "Halloran's", spare=False)[1]
    return [f"about {shown(100 * ratio - 100, 1)}%"]


def terrace_4() -> list[str]:
    """The least common multiple."""
    return [f"{next(n for n in count(1) if n % 12 == n % 18 == n % 30 == 0)}."]


def terrace_5() -> list[str]:
    """Tiles around the pond."""
    return [f"{ACROSS * DOWN - POND}.", f"{POND} of the {ACROSS * DOWN} tiles"]


def terrace_6() -> list[str]:
    """The order at Delmas."""
    number, price = boxes(ACROSS * DOWN - POND, "Delmas")
    return [f"to Delmas: {number} boxes", f"{euros(price)} euros", "369 tiles"]


def terrace_7() -> list[str]:
    """The cheaper shop after the discount."""
    number, price = boxes(ACROSS * DOWN, "Halloran's")
    assert number > 25
    reduced = Fraction(price * 85, 100)
    other, elsewhere = boxes(ACROSS * DOWN, "Delmas")
    assert reduced < elsewhere
    at_delmas = f"{other} x 33.50 = {euros(elsewhere)}"
    return [f"at Halloran's, by {euros(elsewhere - reduced)} euros", euros(reduced), at_delmas]


def terrace_8() -> list[str]:
    """The tiles whose inside the diagonal crosses, one by one."""
    hit = 0
    for x, y in product(range(ACROSS), range(DOWN)):
        below = y * ACROSS < (x + 1) * DOWN  # the lower right corner lies under the string
        above = (y + 1) * ACROSS > x * DOWN  # the upper left corner lies over it
        hit += below and above
    assert hit == ACROSS + DOWN - gcd(ACROSS, DOWN)
    return [
        f"{hit}. The grid is {ACROSS} by {DOWN}",
        f"- gcd({ACROSS}, {DOWN}) = {ACROSS + DOWN} - {gcd(ACROSS, DOWN)} = {hit}",
    ]


# 32: the rocket


def height(t: float, platform: float = 2) -> float:
    """The height of the rocket after t seconds."""
    return platform + 24 * t - 4 * t * t


def times(level: float, platform: float = 2) -> tuple[float, float]:
    """The two times at a height."""
    root = sqrt(24 * 24 + 16 * (platform - level))
    found = ((24 - root) / 8, (24 + root) / 8)
    assert all(abs(height(t, platform) - level) < 1e-9 for t in found)
    return found


CAMERAS = {"Kofi": 34, "Ingrid": 22}


def rocket_1() -> list[str]:
    """The peak."""
    peak = max(range(0, 700), key=lambda n: height(n / 100)) / 100
    return [f"{height(peak):.0f} m, at t = {peak:.0f} s"]


def quadratic(level: float, platform: float = 2) -> str:
    """The condition for a height, divided by -4."""
    return f"t^2 - 6t + {(level - platform) / 4:g} = 0"


def both(level: float) -> str:
    """The two times, in words, with their equation."""
    first, second = times(level)
    return f"t = {first:g} s and t = {second:g} s ({quadratic(level)})"


def rocket_2() -> list[str]:
    """Level with Kofi."""
    return [both(CAMERAS["Kofi"])]


def rocket_3() -> list[str]:
    """Level with Ingrid."""
    return [both(CAMERAS["Ingrid"])]


def rocket_4() -> list[str]:
    """The speed at the later time."""
    speed = 24 - 8 * times(CAMERAS["Ingrid"])[1]
    return [f"{abs(speed):.0f} m/s {'downward' if speed < 0 else 'upward'}"]


def rocket_5() -> list[str]:
    """The roots of the quadratic."""
    roots = {Fraction(n, d) for n in range(-20, 21) for d in (1, 2, 3) if 3 * n * n - 10 * n * d + 3 * d * d == 0}
    return [" or ".join(f"x = {root}" for root in sorted(roots, reverse=True))]


def parachute() -> float:
    """The length of the flight with a parachute."""
    return 3 + height(3) / 4


def rocket_6() -> list[str]:
    """The flight with a parachute."""
    passes = {name: 3 + (height(3) - level) / 4 for name, level in CAMERAS.items()}
    first = min(passes, key=lambda name: passes[name])
    return [f"{parachute():g} s", f"past {first}'s camera first, at t = {passes[first]:g} s"]


def rocket_7() -> list[str]:
    """How much longer it is."""
    landing = times(0)[1]
    return [f"about {parachute() - landing:.2f} s", f"about {landing:.2f} s", f"{parachute():g} -"]


def rocket_8() -> list[str]:
    """The times at Ingrid's level from the tall platform."""
    first, second = times(CAMERAS["Ingrid"], 10)
    assert abs(first - (3 - sqrt(6))) < 1e-9
    lower = min(CAMERAS, key=lambda name: CAMERAS[name])
    return [
        lower,
        f"3 - sqrt(6), about {first:.2f} s",
        f"3 + sqrt(6), about {second:.2f} s",
        quadratic(CAMERAS["Ingrid"], 10),
    ]


# 33: the brine

OWN, HERS = (Fraction(5), Fraction(6, 100)), (Fraction(3), Fraction(14, 100))
RECIPES = {"Despina": Fraction(8, 100), "Ilir": Fraction(6, 100)}
MASS = OWN[0] + HERS[0]
SALT = OWN[0] * OWN[1] + HERS[0] * HERS[1]
HER_SALT = HERS[0] * HERS[1]
LOST = (HERS[0] - HER_SALT) / 3


def brine_1() -> list[str]:
    """The mixture."""
    return [f"{shown(100 * SALT / MASS)}%", f"{shown(SALT)} kg of salt in {MASS} kg"]


def brine_2() -> list[str]:
    """Water for Despina."""
    return [f"{SALT / RECIPES['Despina'] - MASS} kg of water"]


def brine_3() -> list[str]:
    """Water for Ilir."""
    return [f"{SALT / RECIPES['Ilir'] - MASS} kg of water"]


def brine_4() -> list[str]:
    """Own brine for all of the neighbour's."""
    strong = max(RECIPES.values())
    own = HERS[0] * (HERS[1] - strong) / (strong - OWN[1])
    assert (HER_SALT + own * OWN[1]) / (HERS[0] + own) == strong
    return [f"{own} kg", "no:", f"{own - OWN[0]} kg missing"]


def brine_5() -> list[str]:
    """The jar after the sun."""
    left = HERS[0] - LOST
    return ["Zeynep", f"{shown(left)} kg", f"about {shown(100 * HER_SALT / left, 1)}%", f"{shown(LOST)} of"]


def brine_6() -> list[str]:
    """Water to undo it."""
    return [f"{shown(LOST)} kg"]


def brine_7() -> list[str]:
    """The split."""
    parts = [450 * n // 9 for n in (2, 3, 4)]
    assert sum(parts) == 450
    return [f"{parts[0]} g, {parts[1]} g and {parts[2]} g"]


def brine_8() -> list[str]:
    """The recipe met in the end."""
    mass = HERS[0] - LOST + OWN[0] + Fraction(186, 100)
    strength = SALT / mass
    (name,) = (n for n, wanted in RECIPES.items() if wanted == strength)
    return [f"{name}'s", f"= {mass} kg", f"{shown(100 * strength)}%"]


# 34: the drum

PRIZES = [6] * 8 + [10] * 5 + [45, 257]
DRUM = PRIZES + [0] * (40 - len(PRIZES))
WINS = len(PRIZES)
PAIRS = [(a, b) for a, b in permutations(range(40), 2)]


def share(event: Iterable[bool]) -> Fraction:
    """The share of the cases in which the event happens."""
    seen = list(event)
    return Fraction(sum(seen), len(seen))


def drum_1() -> list[str]:
    """Both draw blanks."""
    chance = share(DRUM[a] == DRUM[b] == 0 for a, b in PAIRS)
    return [f"{chance}, about {shown(100 * chance, 1)}%"]


def drum_2() -> list[str]:
    """The second wins."""
    return [str(share(DRUM[b] > 0 for _, b in PAIRS))]


def drum_3() -> list[str]:
    """The second wins, given that the first did."""
    chance = share(DRUM[b] > 0 for a, b in PAIRS if DRUM[a] > 0)
    return [f"{chance}, about {shown(100 * chance, 1)}%"]


def drum_4() -> list[str]:
    """The bicycle for the first or the second."""
    bicycle = DRUM.index(257)
    first, second = share(a == bicycle for a, _ in PAIRS), share(b == bicycle for _, b in PAIRS)
    assert first == second
    return ["no difference", str(first)]


def five(wins: int) -> Fraction:
    """The chance of that many wins among five of the 38 tickets left."""
    return Fraction(comb(WINS - 1, wins) * comb(24, 5 - wins), comb(38, 5))


def drum_5() -> list[str]:
    """Exactly two wins of five."""
    assert sum(five(n) for n in range(6)) == 1
    ways = comb(WINS - 1, 2) * comb(24, 3)
    return [f"about {shown(100 * five(2), 1)}%", f"C({WINS - 1},2) x C(24,3) / C(38,5) = {ways}/{comb(38, 5)}"]


def drum_6() -> list[str]:
    """At least one win of five."""
    chance = sum((five(n) for n in range(1, 6)), Fraction(0))
    assert chance == 1 - Fraction(comb(24, 5), comb(38, 5))
    return [f"about {shown(100 * chance, 1)}%: 1 - C(24,5) / C(38,5)"]


def drum_8() -> list[str]:
    """The worth of a ticket before and after the two draws."""
    left = sum(DRUM) - 45
    full, one, two = Fraction(sum(DRUM), 40), Fraction(left, 39), Fraction(left, 38)
    assert one < two < full
    means = [f"{shown(two)} euros ({left} / 38)", f"{float(full):.2f} for the full drum", f"fell to {float(one):.2f}"]
    return ["Folake's draw", *means]


# 35: the loan

MONTHS = ("April", "May", "June", "July", "August", "September", "October", "November", "December")


def loan(rate: int, skipped: int = 0) -> list[tuple[int, int]]:
    """Each month's payment and what is owed after it, in cents."""
    owed = 240_000
    rows: list[tuple[int, int]] = []
    while owed:
        owed += int(Fraction(owed, 100) + Fraction(1, 2))
        paid = 0 if len(rows) + 1 == skipped else min(rate * 100, owed)
        owed -= paid
        rows.append((paid, owed))
    return rows


def interest(rate: int) -> int:
    """The interest of a plan in cents."""
    return sum(paid for paid, _ in loan(rate)) - 240_000


def loan_1() -> list[str]:
    """The debt after three payments."""
    first, second, third = (owed for _, owed in loan(400)[:3])
    return [f"{euros(third)} euros", f"({euros(first)}, then {euros(second)}, then {euros(third)})"]


def loan_2() -> list[str]:
    """The last payment."""
    rows = loan(400)
    assert len(rows) == 7
    return [f"in {MONTHS[len(rows) - 1]}, the seventh payment: {euros(rows[-1][0])} euros"]


def loan_3() -> list[str]:
    """The yearly rate."""
    factor = 1.0
    for _ in range(12):
        factor *= 1.02
    return [f"about {100 * factor - 100:.2f}%"]


def loan_4() -> list[str]:
    """The quicker plan."""
    rows = loan(500)
    assert len(rows) == 5
    return [f"in {MONTHS[len(rows) - 1]}, with a fifth payment of {euros(rows[-1][0])} euros"]


def loan_5() -> list[str]:
    """The interest of both plans."""
    return [f"{euros(interest(400))} euros at 400 a month, {euros(interest(500))} euros at 500"]


def cheaper(rate: int) -> str:
    """The cheaper lender under a plan, and by how much."""
    gap = interest(rate) - 8000
    return f"{'Kestrel' if gap > 0 else 'Bertil'}, by {euros(abs(gap))} euros"


def loan_6() -> list[str]:
    """The cheaper lender under the slower plan."""
    return [cheaper(400)]


def loan_7() -> list[str]:
    """The cheaper lender under the quicker plan."""
    return [cheaper(500)]


def loan_8() -> list[str]:
    """The debt at the end of June without the second payment."""
    return ["Bertil", f"{euros(loan(400, skipped=2)[MONTHS.index('June')][1])} euros"]


# 36: the salt heap


def cone(radius: float, tall: float) -> float:
    """The volume of a cone, summed over thin slices."""
    slices = 2000
    return sum(pi * (radius * (n + 0.5) / slices) ** 2 * tall / slices for n in range(slices))


HEAP = cone(3, 2)
BIN = pi * 1.5**2
LEFT = HEAP - cone(1.5, 1)
LOADS = {"Caterina": 3.5, "Nwosu": 5.0}


def salt_1() -> list[str]:
    """Volume and weight."""
    assert abs(HEAP - 6 * pi) < 1e-4
    return [f"about {HEAP:.2f} cubic metres", f"about {HEAP * 1.2:.1f} tonnes"]


def salt_2() -> list[str]:
    """The depth in the bin."""
    return [f"about {HEAP / BIN:.2f} m ({Fraction(HEAP / BIN).limit_denominator(20)} m)"]


def salt_3() -> list[str]:
    """The depth of half of it."""
    return [f"about {HEAP / 2 / BIN:.2f} m ({Fraction(HEAP / 2 / BIN).limit_denominator(20)} m)"]


def salt_4() -> list[str]:
    """The sloping surface."""
    slope = sqrt(3**2 + 2**2)
    return [f"about {pi * 3 * slope:.2f} square metres", f"about {slope:.2f} m"]


def salt_5() -> list[str]:
    """What the storm left."""
    return [f"about {LEFT:.2f} cubic metres", f"{Fraction(LEFT / HEAP).limit_denominator(20)} of the original"]


def salt_6() -> list[str]:
    """The cube."""
    return [f"{shown(1.2**3, 3)}."]


def salt_7() -> list[str]:
    """Trips for the rest."""
    tonnes = LEFT * 1.2
    driver = max(LOADS, key=lambda name: LOADS[name])
    trips = ceil(tonnes / LOADS[driver])
    last = tonnes - (trips - 1) * LOADS[driver]
    return [f"{driver}: {trips} trips, about {last:.2f} tonnes on the last", f"{tonnes:.2f} tonnes in all"]


def salt_8() -> list[str]:
    """Trips for the second heap."""
    tonnes = cone(6, 4) * 1.2
    driver = min(LOADS, key=lambda name: LOADS[name])
    trips = ceil(tonnes / LOADS[driver])
    return [driver, f"{trips} trips", f"about {tonnes:.2f} tonnes"]


# 37: the lights

PERIODS = {"Skerrin": 12, "Galloch": 18, "Voe": 28}
LATE_FROM = 30 * 60


def flashes(second: int, light: str, delay: int = 0) -> bool:
    """Does the light flash that many seconds after 21:00:00? Galloch may be late from 21:30:00 on."""
    if light == "Galloch" and delay and second >= LATE_FROM:
        return second - delay >= LATE_FROM and (second - delay) % PERIODS[light] == 0
    return second % PERIODS[light] == 0


def clock(second: int) -> str:
    """A time of day."""
    return f"{21 + second // 3600}:{second // 60 % 60:02}:{second % 60:02}"


def meeting(lights: Iterable[str], start: int, delay: int = 0) -> int | None:
    """The first second from start on, within a day, at which those lights flash together."""
    names = list(lights)
    return next((s for s in range(start, start + 86400) if all(flashes(s, n, delay) for n in names)), None)


def lights_1() -> list[str]:
    """All three together."""
    found = meeting(PERIODS, 1)
    assert found is not None
    return [f"at {clock(found)}", f"every {found} seconds"]


def lights_2() -> list[str]:
    """How often in an hour."""
    return [f"{sum(all(flashes(s, n) for n in PERIODS) for s in range(3601))} times"]


def lights_3() -> list[str]:
    """How often the two quickest."""
    quickest = sorted(PERIODS, key=lambda name: PERIODS[name])[:2]
    return [f"{sum(all(flashes(s, n) for n in quickest) for s in range(3601))} times"]


def lights_4() -> list[str]:
    """The remainders."""
    return [f"{next(n for n in count(2) if n % 4 == n % 5 == n % 6 == 1)}."]


def lights_5() -> list[str]:
    """Five seconds late."""
    assert meeting(("Skerrin", "Galloch"), LATE_FROM, 5) is None
    middle = sorted(PERIODS, key=lambda name: PERIODS[name])[1]
    return [middle, "never flash together with Skerrin"]


def lights_6() -> list[str]:
    """Six seconds late: the two quickest."""
    found = meeting(("Skerrin", "Galloch"), LATE_FROM, 6)
    assert found is not None
    return [f"at {clock(found)}"]


def lights_7() -> list[str]:
    """Six seconds late: all three."""
    found = meeting(PERIODS, LATE_FROM, 6)
    assert found is not None
    return [f"at {clock(found)}"]


def lights_8() -> list[str]:
    """The seconds with one flash."""
    seen = ([n for n in PERIODS if flashes(s, n)] for s in range(1800))
    alone = Counter(names[0] for names in seen if len(names) == 1)
    (first, most), *rest = alone.most_common()
    assert most > rest[0][1]
    others = [f"{name} {number}" for name, number in rest]
    return [f"{alone.total()} seconds", f"{first}, with {most} of them", *others]


# 38: the flags

FLAGS, MENDED = "RRRWWB", "RRWWBG"


def signals(flags: str, number: int = 6) -> set[tuple[str, ...]]:
    """The different signals of that many of the flags, top flag first."""
    return set(permutations(flags, number))


def flags_1() -> list[str]:
    """All six."""
    return [f"{len(signals(FLAGS))} ("]


def flags_2() -> list[str]:
    """Blue at neither end."""
    return [f"{sum('B' not in (s[0], s[-1]) for s in signals(FLAGS))} ("]


def flags_3() -> list[str]:
    """Committees."""
    return [f"{len(list(combinations(range(8), 3)))}."]


def apart() -> list[tuple[str, ...]]:
    """The signals without touching reds."""
    return [s for s in signals(FLAGS) if "RR" not in "".join(s)]


def flags_4() -> list[str]:
    """No reds touching."""
    return [f"{len(apart())} ("]


def flags_5() -> list[str]:
    """White on top of those."""
    return [f"{sum(s[0] == 'W' for s in apart())} ("]


def flags_6() -> list[str]:
    """After the loss."""
    return ["Piet", f"{len(signals(MENDED))} signals"]


def flags_7() -> list[str]:
    """Four of the six."""
    return [f"{len(signals(MENDED, 4))} signals"]


def flags_8() -> list[str]:
    """The gain."""
    now, before = len(signals(MENDED)), len(signals(FLAGS))
    return ["Thandeka", f"{now - before} ({now} against {before})"]


# 39: the rowers


def rowers(corrected: bool = False) -> dict[str, list[int]]:
    """The times pasted in the first turn; 5 seconds less in week three once corrected."""
    table = {}
    for line in query(39, 1).splitlines():
        cells = [cell.strip() for cell in line.split("|")]
        if len(cells) == 7 and cells[1].isdigit():
            table[cells[0]] = [int(c) - 5 * (corrected and week == 3) for week, c in enumerate(cells[1:], 1)]
    return table


def best(measure: Callable[[list[int]], float], corrected: bool = False) -> list[tuple[str, float]]:
    """The rowers by a measure, lowest first."""
    return sorted(((name, measure(row)) for name, row in rowers(corrected).items()), key=lambda pair: pair[1])


def gap(row: list[int]) -> float:
    """The gap between best and worst."""
    return max(row) - min(row)


def rowing_1() -> list[str]:
    """The means."""
    (name, value), (_, second), (_, third) = best(mean)
    assert value < second == third
    return [f"{name}, with {value:.2f}", f"level at {second:.2f}"]


def rowing_2() -> list[str]:
    """The medians."""
    (name, value), *rest = best(median)
    others = ", ".join(f"{n} {v:g}" for n, v in rest)
    return [f"{name}, with {value:g} ({others})"]


def rowing_3() -> list[str]:
    """The gaps."""
    (name, value), *rest = best(gap)
    return [f"{name}, with a gap of {value} s", *(f"{n} {v} s" for n, v in rest)]


def rowing_4() -> list[str]:
    """The standard deviation of the steadiest."""
    return [f"about {pstdev(rowers()[best(gap)[0][0]]):.2f} s"]


def rowing_5() -> list[str]:
    """The means after the correction."""
    after = best(mean, corrected=True)
    assert [n for n, _ in after] == [n for n, _ in best(mean)]
    return [f"{name} {value:.2f}" for name, value in after]


def rowing_6() -> list[str]:
    """The gaps after the correction."""
    (name, value), *rest = best(gap, corrected=True)
    same = "yes" if name == best(gap)[0][0] else "no"
    return [f"{same}, {name}, now with a gap of {value} s", *(f"{n} {v} s" for n, v in rest)]


def rowing_7() -> list[str]:
    """The last three weeks."""
    (one, low), (two, high), (out, total) = best(lambda row: sum(row[3:]), corrected=True)
    return [f"{one} {low} s and {two} {high} s", f"{out}, with {total} s"]


def rowing_8() -> list[str]:
    """The fifth number."""
    return [f"{5 * 12 - sum((9, 10, 13, 15))}."]


# 40: the rugs

Mix = tuple[int, int, int]


def rugs(hours: int = 80, wool: int = 38, large_price: int = 130) -> Mix:
    """The takings, small rugs and large rugs of the best mix; it is the only best one."""
    mixes = sorted(
        (
            (70 * small + large_price * large, small, large)
            for small, large in product(range(hours + 1), repeat=2)
            if 5 * small + 8 * large <= hours and 2 * small + 5 * large <= wool
        ),
        reverse=True,
    )
    assert mixes[0][0] > mixes[1][0]
    return mixes[0]


NOW = rugs()[0]


def mix_words(mix: Mix) -> str:
    """A mix in words."""
    return f"{mix[1]} small and {mix[2]} large, {mix[0]:,} euros"


def rugs_1() -> list[str]:
    """The best mix."""
    return [mix_words(rugs())]


def rugs_2() -> list[str]:
    """The inequality."""
    *most, last = [n for n in range(1, 100) if 7 * n - 4 < 3 * n + 17]
    return [f"{', '.join(map(str, most))} and {last}"]


def rugs_3() -> list[str]:
    """What is left."""
    _, small, large = rugs()
    return [f"{80 - 5 * small - 8 * large} hour and {38 - 2 * small - 5 * large} kg"]


def rugs_4() -> list[str]:
    """Three more kilos."""
    mix = rugs(wool=41)
    return [f"{mix[0] - NOW} euros", mix_words(mix)]


def rugs_5() -> list[str]:
    """Six more hours."""
    mix = rugs(hours=86)
    return [f"{mix[0] - NOW} euros", mix_words(mix)]


def rugs_6() -> list[str]:
    """One of the offers."""
    gains = {"Baltasar": rugs(wool=41)[0] - 45 - NOW, "Fenwick": rugs(hours=86)[0] - 45 - NOW}
    whom, other = sorted(gains, key=lambda name: -gains[name])
    return [f"{whom}: ", f"{NOW + gains[whom]:,} euros, {gains[whom]} above", f"{other} would leave {gains[other]}"]


def rugs_7() -> list[str]:
    """Both offers."""
    takings, small, large = rugs(86, 41)
    assert 41 - 2 * small - 5 * large >= 3
    net = takings - 90
    assert net < NOW
    return [f"{net:,} euros, {NOW - net} below", f"still {takings:,}"]


def rugs_8() -> list[str]:
    """A lower price."""
    takings, small, large = rugs(large_price=100)
    assert large == 0
    return ["Aroha", f"{small} small rugs and no large ones", f"{takings:,} euros"]


Check = Callable[[], list[str]]

WORKED_OUT: dict[tuple[int, int], Check] = {
    (31, 1): terrace_1,
    (31, 2): terrace_2,
    (31, 3): terrace_3,
    (31, 4): terrace_4,
    (31, 5): terrace_5,
    (31, 6): terrace_6,
    (31, 7): terrace_7,
    (31, 8): terrace_8,
    (32, 1): rocket_1,
    (32, 2): rocket_2,
    (32, 3): rocket_3,
    (32, 4): rocket_4,
    (32, 5): rocket_5,
    (32, 6): rocket_6,
    (32, 7): rocket_7,
    (32, 8): rocket_8,
    (33, 1): brine_1,
    (33, 2): brine_2,
    (33, 3): brine_3,
    (33, 4): brine_4,
    (33, 5): brine_5,
    (33, 6): brine_6,
    (33, 7): brine_7,
    (33, 8): brine_8,
    (34, 1): drum_1,
    (34, 2): drum_2,
    (34, 3): drum_3,
    (34, 4): drum_4,
    (34, 5): drum_5,
    (34, 6): drum_6,
    (34, 8): drum_8,
    (35, 1): loan_1,
    (35, 2): loan_2,
    (35, 3): loan_3,
    (35, 4): loan_4,
    (35, 5): loan_5,
    (35, 6): loan_6,
    (35, 7): loan_7,
    (35, 8): loan_8,
    (36, 1): salt_1,
    (36, 2): salt_2,
    (36, 3): salt_3,
    (36, 4): salt_4,
    (36, 5): salt_5,
    (36, 6): salt_6,
    (36, 7): salt_7,
    (36, 8): salt_8,
    (37, 1): lights_1,
    (37, 2): lights_2,
    (37, 3): lights_3,
    (37, 4): lights_4,
    (37, 5): lights_5,
    (37, 6): lights_6,
    (37, 7): lights_7,
    (37, 8): lights_8,
    (38, 1): flags_1,
    (38, 2): flags_2,
    (38, 3): flags_3,
    (38, 4): flags_4,
    (38, 5): flags_5,
    (38, 6): flags_6,
    (38, 7): flags_7,
    (38, 8): flags_8,
    (39, 1): rowing_1,
    (39, 2): rowing_2,
    (39, 3): rowing_3,
    (39, 4): rowing_4,
    (39, 5): rowing_5,
    (39, 6): rowing_6,
    (39, 7): rowing_7,
    (39, 8): rowing_8,
    (40, 1): rugs_1,
    (40, 2): rugs_2,
    (40, 3): rugs_3,
    (40, 4): rugs_4,
    (40, 5): rugs_5,
    (40, 6): rugs_6,
    (40, 7): rugs_7,
    (40, 8): rugs_8,
}

ANSWERS: dict[tuple[int, int], Check] = {key: with_sums(*key, answer) for key, answer in WORKED_OUT.items()}

UNCOMPUTED: dict[tuple[int, int], str] = {
    (34, 7): "a matter of definitions",
}
