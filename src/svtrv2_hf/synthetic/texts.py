# SPDX-License-Identifier: Apache-2.0
"""Texts as they occur on signs, products and documents: words, names, numbers, codes, lines, and random strings.

`data/README.md` describes the word lists and their licenses.
"""

from bisect import bisect
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from random import Random
from string import ascii_lowercase, ascii_uppercase, digits


DATA = Path(__file__).parent / "data"

DEFAULT_WEIGHTS: Mapping[str, float] = {
    "common": 28,  # one of 10,000 words, by the square root of its frequency in books
    "word": 16,  # one of 51,000 other words, uniformly
    "name": 9,  # people, places, brands
    "abbreviation": 2,
    "sign": 8,  # words on shops, doors, streets and products, sometimes with a name or a number
    "compound": 4,  # words and names joined by an ampersand, a hyphen, a slash or a dot
    "number": 7,
    "price": 2,
    "date": 2,
    "time": 1.5,
    "phone": 1.5,
    "measure": 2,
    "code": 3,  # serial numbers, plates, postal codes, rooms, versions
    "address": 2,  # URLs, e-mail addresses and hashtags
    "pseudo": 5,  # word-like strings from letter bigrams
    "alphanumeric": 3,  # random letters and digits
    "random": 3,  # random characters of the charset, uniformly
    "phrase": 4,  # two to five consecutive words from books
    "line": 4,  # phrases and texts of other kinds, up to the maximum line length
}
"""Relative frequency of each kind of text. Set `phrase` and `line` to 0 for single words."""

UPPER, TITLE, MIXED = 0.38, 0.24, 0.05  # shares of uppercase, capitalized and mixed-case words; the rest are as listed
AFTER, BEFORE, AROUND = 0.05, 0.01, 0.015  # shares of words with punctuation after, before and around them
MARKS_AFTER, MARKS_BEFORE = ".,.,.,!?:;-'\")*&/%~|\\", "\"'(-#&*@$+<~/|"
MARKS_AROUND = ("()", "()", "[]", '""', "''", "<>", "{}", "**", "--", "__", "``", "//", "||")

JOINTS = (" & ", "&", "-", "-", "/", ".", "_", "+", "'n'", " - ", ", ", ": ", "@", "=")
SIGN_PATTERNS = ("9", "99", "A", "A9", "999")
MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December",
)  # fmt: skip
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
PRICES = (
    "${}", "${}", "${}", "US${}", "EUR {}", "Rs.{}", "Rs {}", "{}", "{}c", "{} USD", "{}/lb", "{}/kg", "{} each", "-{}%",
)  # fmt: skip
ENDINGS = (
    ".com", ".com", ".com", ".org", ".net", ".edu", ".gov", ".info", ".co.uk", ".de", ".fr", ".cn", ".io", ".com.au",
)  # fmt: skip
# Placeholders in the pattern files; other characters are literal.
PLACEHOLDERS = {"9": digits, "A": ascii_uppercase, "a": ascii_lowercase, "X": ascii_uppercase + digits}


class TextSource:
    """An endless, indexed sequence of texts: text `index` of a seed is always the same.

    Args:
        charset: characters of the texts. A letter that is in the charset only in the other case is converted to that case;
            other characters outside the charset are removed. Without a space in the charset, phrases and lines are
            disabled, and other texts are reduced to their longest word.
        weights: weights of kinds of text, overriding `DEFAULT_WEIGHTS`.
        words: UTF-8 file with additional words for the kind "word", one per line.
        max_length: maximum number of characters of a text without spaces.
        max_line_length: maximum number of characters of a text with spaces.

    Raises:
        ValueError: the charset is empty, a weight has an unknown name or is negative, or no weight is positive.
        FileNotFoundError: the file `words` does not exist.
    """

    def __init__(
        self,
        charset: str,
        weights: Mapping[str, float] | None = None,
        words: str | Path | None = None,
        max_length: int = 25,
        max_line_length: int = 60,
    ):
        if not charset.strip():
            raise ValueError(f"The charset {charset!r} has no visible characters.")
        if unknown := sorted(set(weights or {}) - set(DEFAULT_WEIGHTS)):
            raise ValueError(f"Unknown kinds of text {unknown}; the kinds are {list(DEFAULT_WEIGHTS)}.")
        shares = {**DEFAULT_WEIGHTS, **(weights or {})}
        if " " not in charset:
            shares.update(phrase=0, line=0)
        if min(shares.values()) < 0 or not any(shares.values()):
            raise ValueError(f"Weights of kinds of text must be 0 or more and not all 0, not {shares}.")
        self.max_length, self.max_line_length = max_length, max_line_length
        self._allowed = frozenset(charset)
        self._visible = charset.replace(" ", "")
        self._letters_and_digits = "".join(filter(str.isalnum, charset)) or self._visible
        self._kinds: list[Callable[[], str]] = [getattr(self, f"_{kind}_text") for kind in shares]
        self._shares = list(accumulate(shares.values()))
        in_lines = {kind: 0 if kind in ("phrase", "line") else share for kind, share in shares.items()}
        self._shares_in_lines = list(accumulate(in_lines.values()))
        self._common_words, self._common_shares = _counted(DATA / "common_words.tsv")
        self._phrases, self._phrase_shares = _counted(DATA / "phrases.tsv")
        self._lists = {path.stem: _lines(path) for path in DATA.glob("[a-z]*.txt")}
        self._lists["words"] += _lines(Path(words)) if words else []
        self._followers = _followers(word.lower() for word in self._lists["words"])
        self._generator = Random()
        # Only `random()` returns the same sequence in all versions of Python; no other method of the generator is used.
        self._random = self._generator.random

    def texts(self, seed: int, start: int, count: int) -> list[str]:
        """Return the texts `start` to `start + count` of a seed; see `text`."""
        return [self.text(seed, index) for index in range(start, start + count)]

    def text(self, seed: int, index: int) -> str:
        """Return text `index` of a seed, both 0 or more: never empty, within the charset, stripped of spaces."""
        self._generator.seed(seed << 64 | index)
        text = self._fit(self._kinds[self._sample_index(self._shares)]())
        return text or self._random_string(self._visible)

    def _fit(self, text: str) -> str:
        """Restrict a text to the charset and the maximum lengths."""
        if " " in text and " " not in self._allowed:
            text = max(text.split(), key=len, default="")
        if not self._allowed.issuperset(text):
            forms = ((character, character.swapcase()) for character in text)
            text = "".join(next((form for form in pair if form in self._allowed), "") for pair in forms)
        text = " ".join(text.split())
        if len(text) > self.max_line_length and " " in text:
            text = text[: self.max_line_length + 1].rpartition(" ")[0] or text
        return text if " " in text else text[: self.max_length]

    # Sampling

    def _sample_index(self, shares: Sequence[float]) -> int:
        """Sample an index by cumulative shares."""
        return bisect(shares, self._random() * shares[-1])

    def _choose(self, choices: Sequence[str]) -> str:
        return choices[int(self._random() * len(choices))]

    def _pick(self, name: str) -> str:
        """Choose an entry of a word list."""
        return self._choose(self._lists[name])

    def _sample_count(self, most: int) -> int:
        """Sample a number from 1 to `most`; small numbers are more likely."""
        return 1 + int(most * self._random() ** 1.5)

    def _digits(self, count: int) -> str:
        return "".join([self._choose(digits) for _ in range(count)])

    def _number(self, most: int) -> str:
        return self._digits(self._sample_count(most))

    def _fill(self, pattern: str) -> str:
        return "".join([self._choose(PLACEHOLDERS[c]) if c in PLACEHOLDERS else c for c in pattern])

    # Words

    def _change_case(self, word: str) -> str:
        chance = self._random()
        if chance < UPPER:
            return word.upper()
        if chance < UPPER + TITLE:
            return word[:1].upper() + word[1:]
        if chance < UPPER + TITLE + MIXED:
            return "".join([letter.upper() if self._random() < 0.5 else letter.lower() for letter in word])
        return word

    def _punctuate(self, word: str) -> str:
        chance = self._random()
        if chance < AFTER:
            return word + self._choose(MARKS_AFTER)
        if chance < AFTER + BEFORE:
            return self._choose(MARKS_BEFORE) + word
        if chance < AFTER + BEFORE + AROUND:
            marks = self._choose(MARKS_AROUND)
            return marks[0] + word + marks[1]
        return word

    def _common_word(self) -> str:
        return self._common_words[self._sample_index(self._common_shares)]

    def _phrase(self) -> str:
        return self._phrases[self._sample_index(self._phrase_shares)]

    def _common_text(self) -> str:
        return self._punctuate(self._change_case(self._common_word()))

    def _word_text(self) -> str:
        return self._punctuate(self._change_case(self._pick("words")))

    def _name_text(self) -> str:
        name = self._pick("names")
        chance = self._random()
        if chance < 0.1:
            name = self._choose(ascii_uppercase) + ". " + name
        elif chance < 0.2:
            name = self._pick("names") + " " + name
        elif chance < 0.27:
            name += "'s"
        return self._punctuate(name.upper() if self._random() < UPPER else name)

    def _abbreviation_text(self) -> str:
        word = self._pick("abbreviations")
        chance = self._random()
        if chance < 0.3:
            return ".".join(word.upper().replace(".", "")) + "."
        return word.upper() if chance < 0.6 else word + "." if chance < 0.7 else word

    def _sign_text(self) -> str:
        word, chance = self._pick("sign_words"), self._random()
        if chance < 0.3:
            text = word
        elif chance < 0.5:
            text = f"{word} {self._pick('sign_words')}"
        elif chance < 0.65:
            text = f"{self._pick('names')} {word}"
        elif chance < 0.72:
            text = f"{self._pick('names')}'s {word}"
        elif chance < 0.8:
            text = f"{self._pick('names')} {self._pick('streets')}"
        elif chance < 0.88:
            text = f"{self._number(4)} {self._pick('names')} {self._pick('streets')}"
        else:
            text = f"{word} {self._fill(self._choose(SIGN_PATTERNS))}"
        return text.upper() if self._random() < 0.5 else text.title().replace("'S", "'s")

    def _compound_text(self) -> str:
        chance = self._random()
        parts = [self._pick("names") if chance < 0.3 else self._pick("words") for _ in "12"]
        if chance > 0.85:
            parts.append(self._pick("words"))
        joined = self._choose(JOINTS).join(parts)
        return joined.upper() if self._random() < UPPER else joined.title() if self._random() < 0.3 else joined

    def _pseudo_text(self) -> str:
        word, last = "", ""
        while len(word) < 14:
            last = self._choose(self._followers[last])
            if not last and len(word) > 2:
                break
            word += last
        return self._punctuate(self._change_case(word))

    # Numbers

    def _number_text(self) -> str:
        chance, count = self._random(), self._sample_count(6)
        if chance < 0.4:
            return self._digits(count)
        if chance < 0.5:
            return self._choose(("19", "20", "20", "18")) + self._digits(2)
        if chance < 0.6:
            return f"{int(self._random() * 10 ** (count + 2)):,}"
        if chance < 0.72:
            return f"{self._number(3)}{self._choose('.,')}{self._number(3)}"
        if chance < 0.8:
            return self._choose("+-#<>=~") + self._digits(count)
        if chance < 0.9:
            return f"{self._number(3)}{self._choose('-/:x')}{self._number(4)}"
        return f"({self._digits(count)})" if chance < 0.93 else self._number(3) + self._choose(".)%%*")

    def _price_text(self) -> str:
        amount = self._number(4)
        if self._random() < 0.6:
            amount += self._choose((".99", ".50", ".00", ".95", ".-", f".{self._digits(2)}", f",{self._digits(2)}"))
        return self._choose(PRICES).format(amount)

    def _date_text(self) -> str:
        day, month = str(1 + int(self._random() * 31)), int(self._random() * 12)
        year, chance = self._choose(("19", "20", "20")) + self._digits(2), self._random()
        if chance < 0.4:
            mark = self._choose("/.-")
            parts = [day.zfill(2), str(month + 1).zfill(2), self._choose((year, year[2:]))]
            return mark.join(reversed(parts) if self._random() < 0.3 else parts)
        name = self._choose((MONTHS[month], MONTHS[month][:3], f"{MONTHS[month][:3]}."))
        if chance < 0.5:
            name = self._choose(DAYS)
            forms = (name, name.upper(), name[:3], name[:3].upper(), f"{name[:3]}-{self._choose(DAYS)[:3]}")
            return self._choose(forms)
        dates = (
            f"{name} {day}",
            f"{day} {name}",
            f"{name} {day}, {year}",
            f"{day} {name} {year}",
            f"{name} {year}",
            name,
        )
        text = self._choose(dates)
        return text.upper() if self._random() < 0.4 else text

    def _time_text(self) -> str:
        hour, minute = int(self._random() * 24), f"{int(self._random() * 60):02d}"
        half = self._choose(("am", "pm", "AM", "PM", " am", " PM", "a.m.", " p.m."))
        chance = self._random()
        if chance < 0.45:
            return f"{hour}:{minute}" if chance < 0.3 else f"{hour:02d}:{minute}:{self._digits(2)}"
        if chance < 0.75:
            return f"{hour % 12 + 1}:{minute}{half}" if chance < 0.6 else f"{hour % 12 + 1}{half}"
        return f"{hour}{self._choose(('-', ' - ', ':00-', 'h-'))}{1 + int(self._random() * 23)}{self._choose(('', half, ':00', 'h'))}"

    def _phone_text(self) -> str:
        return self._fill(self._pick("patterns_of_phones"))

    def _measure_text(self) -> str:
        amount = self._number(4)
        if self._random() < 0.25:
            fractions = (".5", f".{self._digits(1)}", "/2", "1/2", f"x{self._digits(2)}", f"-{self._digits(2)}")
            amount += self._choose(fractions)
        return amount + self._choose(("", "", " ")) + self._pick("units")

    def _code_text(self) -> str:
        return self._fill(self._pick("patterns_of_codes"))

    def _address_text(self) -> str:
        first, second = self._pick("words").lower(), self._common_word().lower()
        ending, chance = self._choose(ENDINGS), self._random()
        site = (first if chance < 0.5 else f"{first}{self._choose(('', '-'))}{second}").replace("'", "") + ending
        kind = self._random()
        if kind < 0.4:
            text = f"www.{site}"
        elif kind < 0.55:
            text = self._choose(("http://", "https://", "https://www.")) + site
        elif kind < 0.7:
            text = f"{second}{self._choose(('', '.', '_'))}{self._choose(('', self._digits(2)))}@{site}"
        elif kind < 0.8:
            text = f"{site}/{second}"
        elif kind < 0.9:
            text = f"#{first.capitalize()}{second.capitalize()}" if chance < 0.5 else f"#{first}"
        else:
            text = f"@{first}_{second}" if chance < 0.5 else f"@{first}{self._digits(2)}"
        return text.upper() if self._random() < 0.15 else text

    # Without context

    def _random_string(self, characters: str) -> str:
        return "".join([self._choose(characters) for _ in range(self._sample_count(14))])

    def _alphanumeric_text(self) -> str:
        return self._random_string(self._letters_and_digits)

    def _random_text(self) -> str:
        return self._random_string(self._visible)

    # Lines

    def _phrase_text(self) -> str:
        phrase = self._phrase()
        chance = self._random()
        if chance < UPPER:
            return phrase.upper()
        return phrase.title().replace("'S", "'s") if chance < UPPER + TITLE / 2 else self._punctuate(phrase)

    def _line_text(self) -> str:
        wanted = 12 + int(self._random() * (self.max_line_length - 12))
        upper = self._random() < UPPER
        line = ""
        while len(line) < wanted:
            if self._random() < 0.6 or not self._shares_in_lines[-1]:
                part = self._phrase()
            else:
                part = self._kinds[self._sample_index(self._shares_in_lines)]()
            line += f"{part} "
        return line.upper() if upper else line


def _lines(path: Path) -> list[str]:
    if not path.is_file():
        raise FileNotFoundError(f"Word list {path} not found.")
    return [line for line in map(str.strip, path.read_text("utf-8").splitlines()) if line]


def _counted(path: Path) -> tuple[list[str], list[float]]:
    """Read texts with cumulative shares by the square root of their frequency, so that rare texts occur, too."""
    rows = [line.split("\t") for line in _lines(path)]
    return [text for text, _ in rows], list(accumulate(int(count) ** 0.5 for _, count in rows))


def _followers(words: Iterable[str]) -> dict[str, list[str]]:
    """Map each character, and the start of a word (""), to all characters that follow it in the words; "" ends a word."""
    followers: dict[str, list[str]] = defaultdict(list)
    for word in words:
        for character, following in pairwise(["", *word, ""]):
            followers[character].append(following)
    return dict(followers)
