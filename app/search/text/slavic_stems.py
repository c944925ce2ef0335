"""Light stemmers of Czech, Polish and Ukrainian for folded words: endings of cases and the commonest verbs.

Snowball's stemmers of Czech and Polish expect accents, which folding removes. The Czech endings follow Dolamic and
Savoy, "Indexing and stemming approaches for the Czech language", 2009.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_CZECH = (
    (3, ("ovala", "ovali", "ovalo", "ovaly", "ovani", "ovat", "oval", "ujeme", "ujete", "uje", "uji")),
    (5, ("atech",)),
    (4, ("atum",)),
    (3, (
        "etem", "ech", "ich", "ych", "eho", "emi", "emu", "ete", "eti", "iho", "imi", "imu", "ach", "ata", "aty",
        "ama", "ami",
        "ove", "ovi", "ymi",
    )),
    (3, ("em", "es", "im", "um", "at", "am", "os", "us", "ym", "mi", "ou", "ej")),
    (3, ("a", "e", "i", "o", "u", "y")),
)  # fmt: skip
_CZECH_POSSESSIVE = ("ov", "in", "uv")

_POLISH = (
    (3, ("iejszego", "iejszych", "iejszym", "iejsza", "iejsze", "iejszy")),
    (4, ("owalismy", "owaniach", "owaniem", "owanie", "owania", "owaniu", "owalam", "owalem")),
    (3, ("owala", "owali", "owalo", "owaly", "owac", "owal", "owana", "owane", "owani", "owany", "ujemy", "ujesz",
        "uje", "uja")),
    (3, ("iami", "iach", "iego", "iemu", "owie", "ami", "ach", "ego", "emu", "ymi", "imi", "ych", "ich", "owi",
        "iom", "iow", "iej")),
    (3, ("om", "ow", "ej", "em", "ym", "im", "ie", "ia", "io", "iu", "ii")),
    (3, ("a", "e", "i", "o", "u", "y")),
)  # fmt: skip
_POLISH_VERB = re.compile(r"(?<=...)(?:[aiy][lc])$")

_UKRAINIAN = (
    (3, ("ування", "уванням", "ювання", "увати", "ювати", "ували", "увала", "увало", "ювали", "ювала", "ювало",
    "ював", "ував", "ують", "юють")),
    (3, ("ями", "ами", "ові", "еві", "єві", "ого", "ому", "ими", "іми", "ією", "іях")),
    (3, ("ати", "яти", "ити", "іти", "ала", "али", "ало", "яла", "яли", "ила", "или", "ило", "ають", "яють", "ить",
        "ять", "ать")),
    (3, ("ою", "ею", "єю", "ів", "їв", "ей", "ом", "ем", "єм", "ах", "ях", "ам", "ям", "ий", "ій", "їй", "ої", "их",
        "іх", "їх",
         "им", "ім", "їм", "ав", "яв", "ив", "ує", "ює", "ія", "ії", "ію")),
    (3, ("а", "я", "у", "ю", "о", "е", "є", "и", "і", "ї", "ь", "й")),
)  # fmt: skip
_UKRAINIAN_REFLEXIVE = re.compile("(?<=....)с[яь]$")


def _without_ending(word: str, endings: Sequence[tuple[int, Sequence[str]]]) -> str:
    """Remove the first ending that leaves at least its number of letters."""
    for least, some in endings:
        for ending in some:
            if word.endswith(ending) and len(word) - len(ending) >= least:
                return word[: -len(ending)]
    return word


def czech(word: str) -> str:
    """Return the stem; at least three letters stay."""
    stem = _without_ending(word, _CZECH)
    if len(stem) > 5 and stem.endswith(_CZECH_POSSESSIVE):
        stem = stem[:-2]
    if len(stem) > 2 and stem[-1] in "cz":  # ruce is a form of ruka, knize one of kniha
        stem = stem[:-1] + ("k" if stem[-1] == "c" else "h")
    if len(stem) > 3 and stem[-2] == "e" and stem[-1] not in "aeiouy":  # otec, otce
        stem = stem[:-2] + stem[-1]
    return stem


def polish(word: str) -> str:
    """Return the stem; at least three letters stay."""
    stem = _without_ending(word, _POLISH)
    stem = _POLISH_VERB.sub("", stem)
    if stem.endswith("dz") and len(stem) > 3:  # nodze is a form of noga
        stem = stem[:-2] + "g"
    elif stem.endswith("c") and len(stem) > 2 and not stem.endswith("sc"):  # rzece is a form of rzeka
        stem = stem[:-1] + "k"
    if len(stem) > 4 and stem.endswith("ien"):  # okien is a form of okno
        stem = stem[:-3] + "n"
    elif len(stem) > 5 and stem[-2] == "e" and stem[-1] in "ckn":  # książek is a form of książka
        stem = stem[:-2] + stem[-1]
    return stem


def ukrainian(word: str) -> str:
    """Return the stem; at least three letters stay."""
    word = _UKRAINIAN_REFLEXIVE.sub("", word)
    stem = _without_ending(word, _UKRAINIAN)
    if stem.endswith("з"):  # книзі is a form of книга
        stem = stem[:-1] + "г"
    elif stem.endswith("ц") and word.endswith("ці") and stem[-2] not in "иі":  # річці, річка
        stem = stem[:-1] + "к"
    if len(stem) > 4 and stem.endswith(("ок", "ень")):  # річок is a form of річка
        stem = stem[:-2] + stem[-1]
    return stem
