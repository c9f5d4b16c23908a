"""How messages tell what a user gave: on one line, cut to a length, beside the known names that are nearest."""
import difflib
import itertools
from typing import Any, Iterable


def shown(value: Any) -> str:
    """The value as it can be printed anywhere on one line: a name on disk need not be text."""
    try:
        text = str(value)
    except ValueError:                                          # of more digits than Python writes
        text = f'a {type(value).__name__}'
    return ''.join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def brief(value: Any, most: int = 100) -> str:
    """As `shown`, in at most `most` characters: of what is longer, the middle is left out."""
    text = shown(value)
    return text if len(text) <= most else f'{text[:(most - 3) // 2]}...{text[-((most - 2) // 2):]}'


def some(names: Iterable[Any], most: int = 100) -> str:
    """As many of the names as fit into `most` characters, 60 or more, and how many others there are."""
    found = [brief(name, 40) for name in names]
    text = ', '.join(found)
    if len(text) > most:
        ends = itertools.accumulate(len(name) + 2 for name in found)
        count = max(1, sum(end <= most - 15 for end in ends))
        text = f'{", ".join(found[:count])} and {len(found) - count:,} more'
    return text or 'nothing'


def nearest(name: Any, known: Iterable[str]) -> str:
    """What to say after an unknown name: the known ones that are spelt almost alike, or else some of them all."""
    names = {other.lower(): other for other in known}
    alike = difflib.get_close_matches(str(name).lower(), names, n=2, cutoff=0.75)
    if alike:
        return f'did you mean {" or ".join(names[other] for other in alike)}?'
    return f'known: {some(names.values())}'
