"""The closed list of units: physical ones with their size, currencies, and nouns that count.

A unit is a map from base units to powers and a factor; `square`, `cubic`, `per`, powers and quotients are put together
from the list. Scale words (million, dozen) are none, and what is not on the list is none.
"""

import re
from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True)
class Unit:
    """factor: how many of the base units it holds. powers: (base unit, power) in alphabetical order."""

    factor: Fraction
    powers: tuple[tuple[str, int], ...]

    def __mul__(self, other: "Unit") -> "Unit":
        powers = dict(self.powers)
        for base, power in other.powers:
            powers[base] = powers.get(base, 0) + power
        return Unit(self.factor * other.factor, tuple(sorted((base, power) for base, power in powers.items() if power)))

    def __pow__(self, power: int) -> "Unit":
        return Unit(self.factor**power, tuple((base, power * own) for base, own in self.powers if power))


_SIZES = {
    "metre": {
        "m meter metre": 1, "cm centimeter centimetre": "1/100", "mm millimeter millimetre": "1/1000",
        "dm decimeter decimetre": "1/10", "km kilometer kilometre": 1000, "nm nanometer": "1/1000000000",
        "in inch inche": "254/10000", "ft foot feet": "3048/10000", "yd yard": "9144/10000", "mi mile": "1609344/1000",
    },
    "second": {
        "s sec second": 1, "ms millisecond": "1/1000", "min minute": 60, "h hr hour": 3600, "day": 86400,
        "week": 604800,
    },
    "gram": {
        "g gm gram": 1, "kg kilogram": 1000, "mg milligram": "1/1000", "ton tonne": 1000000,
        "lb pound lbs": "45359237/100000", "oz ounce": "45359237/1600000",
    },
    "litre": {"l liter litre": 1, "ml milliliter millilitre": "1/1000"},
    "dollar": {"dollar usd": 1, "cent": "1/100"},
    "degree": {"deg degree": 1},
    "month": {"month": 1, "year yr": 12},
    "newton": {"newton": 1}, "joule": {"joule": 1}, "watt": {"watt": 1}, "volt": {"volt": 1}, "hertz": {"hz hertz": 1},
    "byte": {"byte": 1, "mb megabyte": 1000000, "gb gigabyte": 1000000000, "kb kilobyte": 1000},
    "ampere": {"amp ampere": 1}, "ohm": {"ohm": 1}, "acre": {"acre": 1}, "radian": {"rad radian": 1},
    "celsius": {"°C celsiu celsius": 1}, "fahrenheit": {"°F fahrenheit": 1}, "kelvin": {"kelvin": 1},
    "euro": {"euro eur": 1}, "sterling": {"gbp": 1}, "yuan": {"yuan rmb": 1}, "yen": {"yen": 1}, "rupee": {"rupee": 1},
    "unit": {"unit": 1}, "gallon": {"gallon gal": 1, "quart": "1/4", "pint": "1/8", "cup": "1/16"},
    "tablespoon": {"tablespoon tbsp": 1, "teaspoon tsp": "1/3"},
}  # fmt: skip
# Nouns that problems ask the number of.
_COUNTED = (
    "adult animal apple arrangement bag ball banana bar basket bean bear bicycle bike bird block board boat book "
    "bottle bowl box boy bracelet bulb bus bushel button cake calorie camel can candle candy car card carrot case cat "
    "chair chicken child children chip chocolate choice circle class clip coefficient coin color combination compact "
    "computer cookie corner cow crate crayon cube cupcake customer daughter desk diagonal dice die digit dime dish "
    "diver doctor dog doll donut dot doughnut dress drink duck edge egg element envelope error event face factor "
    "family fan farmer field file fish flag flower fold friend frog function game gem gift girl glass goal goat gram "
    "grape group guest guitar gumball handshake hat hole home horse house inning integer intersection item jar jersey "
    "kid kitten lamp lap leaf leg lemon lesson letter light line log machine man marble mark match meal member men "
    "message mile muffin mug multiple multiply mushroom nail necklace nickel note notebook number nut object orange "
    "order outcome outfit owl pack package packet page painting pair pancake panda paper parent park passenger pastry "
    "path patient pea pear pearl pen pencil penny people permutation person photo picture pie piece pig pizza plant "
    "plate player point pole polygon pond position possibility post pot potato present prime prize problem program "
    "pumpkin puppy puzzle quadruple quarter question rabbit race rectangle region ribbon ring rock root rope rose "
    "round row sandwich scoop seashell seat section segment sequence set shape sheep sheet shelf shell shirt shoe "
    "shot side site slice snack sock solution song spoon spot square stamp star step stick sticker stone store story "
    "strawberry street string student subset sunflower sweater table task teacher team ten term test ticket tie tile "
    "time tire tomato tourist tournament towel toy train tree triangle trip triple truck tuple turn value vase "
    "vehicle vertex vertice visitor volunteer vote walnut way wheel win window woman women word worker zebra zero"
).split()


def _table() -> dict[str, Unit]:
    table = {name: Unit(Fraction(1), ((f"number of {name}", 1),)) for name in _COUNTED}
    for base, sizes in _SIZES.items():
        for names, size in sizes.items():
            for name in names.split():
                table[name] = Unit(Fraction(size), ((base, 1),))
    metre, second, litre = table["m"], table["s"], table["l"]
    table["mph"] = table["mi"] * table["h"] ** -1
    table["kmh"] = table["kph"] = table["km"] * table["h"] ** -1
    table["mps"] = metre * second**-1
    table["fps"] = table["ft"] * second**-1
    table["cc"] = table["cm"] ** 3
    table["litre"] = table["liter"] = table["l"] = litre
    return table


_UNITS = _table()
_SHORT = frozenset("m s h g l".split())
CURRENCIES = {
    "\\$": _UNITS["dollar"],
    "€": _UNITS["euro"],
    "£": _UNITS["gbp"],
    "¥": _UNITS["yen"],
    "₹": _UNITS["rupee"],
}
DEGREE = _UNITS["degree"]
RADIAN = _UNITS["radian"]
PERCENT = Unit(Fraction(1, 100), (("percent", 1),))
_WORD = re.compile(r"°?[A-Za-z]+|\^\{?-?\d\}?|/|\*|²|³|\d")
_PERCENT_NAMES = ("percent", "percents", "per cent", "pct", "%", "percentage points")


def _named(word: str) -> Unit | None:
    """The unit of one word, singular or plural."""
    if word in _UNITS:
        return _UNITS[word]
    lower = word.lower()
    for name in (lower, lower.removesuffix("s"), lower.removesuffix("es"), lower.removesuffix("ies") + "y"):
        if name in _UNITS and len(name) > 1 and (name == lower or len(lower) > 2):
            return _UNITS[name]
    return None


def read(text: str) -> Unit | None:
    """The unit that `text` names as a whole (`cm^2`, `square feet`, `miles per hour`), or None."""
    text = " ".join(text.replace("~", " ").replace("\\,", " ").replace("\\ ", " ").split()).rstrip(".").strip()
    if text.lower() in _PERCENT_NAMES:
        return PERCENT
    words = _WORD.findall(text)
    if not words or "".join(words) != text.replace(" ", ""):
        return None
    unit = Unit(Fraction(1), ())
    sign, power, last = 1, 1, None
    for word in words:
        if word in ("per", "/", "a", "an", "each") and last is not None:
            sign = -1
            last = None
        elif word.lower() in ("square", "sq", "squared") and (last is None or word.lower() == "squared"):
            if word.lower() == "squared":
                unit = unit * last ** (sign * 1)
            else:
                power = 2
        elif word.lower() in ("cubic", "cu", "cubed") and (last is None or word.lower() == "cubed"):
            if word.lower() == "cubed":
                unit = unit * last ** (sign * 2)
            else:
                power = 3
        elif word in ("*",):
            continue
        elif word[0] == "^":
            if last is None:
                return None
            unit = unit * last ** (sign * (int(word.strip("^{}")) - 1))
        else:
            named = _named(word)
            if named is None:
                return None
            unit = unit * named ** (sign * power)
            last, power = named, 1
    if power != 1:  # "square" alone is a thing that is counted
        return _UNITS["square"] if words == ["square"] else None
    return unit if last is not None else None


def is_short(text: str) -> bool:
    """Whether a unit's name could be a variable as well: it is one only in upright letters."""
    return len(text.strip()) == 1 or text.strip() in _SHORT
