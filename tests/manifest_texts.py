"""Manifests nobody would write by hand, for comparing readers: made from a seed, reproducibly."""

from __future__ import annotations

import random

from tests.kubectl_reader import HEAD, NAME


def _words(text: str) -> list[str]:
    # A no-break space stands for a space within a word.
    return [word.replace("\u00a0", " ") for word in text.replace("\n", " ").split(" ") if word]


#: Unquoted, quoted and tagged spellings on which YAML readers are known to differ.
SPELLINGS = _words(
    """
3e-4 yes y on ~ 0o17 017 0x1F 0b1 1_000 1:30 .5 5. +1 1e3 -0 -0.0 1.0 08 0b+1 1e400 1e-400 .5_0
no n off Yes YES yEs True TRUE tRUE null Null NULL nULL << = . .. +.5 -.5 0x 0b 0o 0x_1F 1__0 1_ _1
2001-01-01 2001-01-01T00:00:00Z 2001-1-1 12:30:45 1e 1e+ 0.1e7 0.1e-7 1E3 0X1F 0B1 0O17 00 -017
+0x10 9007199254740991 x#y a:b http://host:80/path 'single' 'it''s' "double" 'yes' "1" '' ""
"\\u00e9\\x41\\t\\n" "\\U0001F600" é 数 \U0001f600 a?b [] {} [1,2] {a:\u00a01} @a `a %a
!!str\u00a01 !!int\u00a0'3' !!float\u00a03 !!bool\u00a0yes !!null\u00a0~ !!str !!binary\u00a0aGk=
"""
)
_KEYS = _words(
    """
a b c 1 '1' true 'true' yes on 01 ~ 1.5 'x\u00a0y' << << << é 2001-01-01 "\\x41" *k *n a\u00a0b
?\u00a0a !!str\u00a0a &k\u00a0a
"""
)
_ANCHORS = ["n", "m", "s", "k"]
_LINES = ["t", "  t", "", "t # x", "\tt", "- a", "é t ", "   ", "a: b", "---x", "t\\", "%x"]
_TOKENS = _words(
    """
a b k:\u00a0v - ? : { } [ ] , | > |- >+ |2 ' " \\ # &a *a <<: ! !!str !!int !x % @ ` ... ~ null
1 017 1e3 .5 -1 yes on 2001-01-01 é http://x:8/y a:b x#y '' "" "\\x41" \\/ &a\u00a0 *a\u00a0
\u00a0 \u00a0\u00a0 :\u00a0 -\u00a0 ,\u00a0 \u00a0# ?\u00a0
"""
)
_TOKENS += ["\n", "\n  ", "\n    ", "\n  - ", "\t", "\r\n", "\r", "\u2028", "\x85", "\xa0"]
_TOKENS += ["\n---\n", "|\n", ">\n", "# c\n", "...\n"]
_JSON_VALUES = _words(
    """
1 -1 -0 -0.0 1.0 1e3 1E400 1e-400 0.1e-7 9007199254740991 9007199254740992 01 1. +1 .5 null true
false True NaN "a" "\\u00e9" "\\ud83d\\ude00" "\\ud800" "\\/" "\\x41" "é" "\U0001f600" "" 'q' abc
"""
)
_FRAMES = [
    *("a: %s\n", "a:\n    b: %s\n", "a: [%s]\n", "a: {%s}\n", "a: %s\n  b: 2\n", "a: '%s'\n"),
    *('a: "%s"\n', "a: |\n    %s\n", "a: >\n    %s\n  b: 1\n", "x: &a {p: 1}\n  y: %s\n"),
]


class ManifestTexts:
    """A source of manifests; each is one object called NAME, or several."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def any(self) -> bytes:
        """A manifest of any of the styles."""
        return self._random.choice([self.structured, self.structured, self.broken, self.json])()

    def structured(self) -> bytes:
        """Mostly well-formed YAML: anchors, aliases, merges, block and flow styles, odd scalars."""
        draw = self._random
        text = HEAD + "spec:\n"
        if draw.random() < 0.6:
            text += "  base: &n {a: 1, b: 2}\n  b2: &m {b: 3, c: {x: 1}}\n  s: &s 5\n  k: &k key\n"
        for key in draw.sample(["n1", "z", "m1"], draw.randint(1, 3)):
            text += f"  {key}:{self._block(2, 4)}"
        if draw.random() < 0.1:
            text = text.replace("\n", "\r\n")
        if draw.random() < 0.1:
            text = text.rstrip("\n")
        if draw.random() < 0.1:
            text = f"---\n{text}\n--- # next\n{HEAD}spec: {{}}\n"
        return text.encode()

    def broken(self) -> bytes:
        """Pieces of YAML thrown together."""
        draw = self._random
        pieces = "".join(draw.choice(_TOKENS) for _ in range(draw.randint(1, 9)))
        frame = draw.choice(_FRAMES)
        return f"{HEAD}spec:\n  {frame.replace('%s', pieces)}".encode()

    def json(self) -> bytes:
        """JSON, often with a fault."""
        draw = self._random
        head = '{"apiVersion":"trainseal.dev/v1alpha1","kind":"TrainingJob",'
        head += f'"metadata":{{"name":"{NAME}","namespace":"research"}},"spec":'
        text = draw.choice(["\n", " ", "\n---\n", "", "\n# c\n"]).join(
            f"{head}{self._faulty(self._json_object(2))}}}"
            for _ in range(draw.choice([1, 1, 1, 2]))
        )
        return (draw.choice(["", "", "\n", " ", "\n \n", "\ufeff"]) + text).encode()

    def _faulty(self, text: str) -> str:
        draw = self._random
        if draw.random() < 0.7:
            return text
        at = draw.randrange(len(text) + 1)
        fault = draw.choice([" ", "\n", "\t", "\r\n", ",", "}", "{", ":", "#", '"', "\\"])
        return text[:at] + fault + text[at + draw.randint(0, 1) :]

    def _json_object(self, depth: int) -> str:
        draw = self._random
        keys = draw.sample(['"a"', '"b"', '"\\u0063"', '"<<"', '"é"'], draw.randint(0, 3))
        return "{" + ", ".join(f"{key}:{self._json_value(depth - 1)}" for key in keys) + "}"

    def _json_value(self, depth: int) -> str:
        draw = self._random
        if depth <= 0 or draw.random() < 0.6:
            return draw.choice(_JSON_VALUES)
        if draw.random() < 0.5:
            return self._json_object(depth)
        return "[" + ",".join(self._json_value(depth - 1) for _ in range(draw.randint(0, 3))) + "]"

    def _flow(self, depth: int) -> str:
        draw = self._random
        share = draw.random()
        if depth <= 0 or share < 0.5:
            return draw.choice(SPELLINGS)
        if share < 0.62:
            return f"*{draw.choice(_ANCHORS)}"
        anchor = f"&{draw.choice(_ANCHORS)} " if draw.random() < 0.3 else ""
        if share < 0.8:
            items = [self._flow(depth - 1) for _ in range(draw.randint(0, 3))]
            return f"{anchor}[{', '.join(items)}]"
        keys = dict.fromkeys(draw.choice(_KEYS) for _ in range(draw.randint(0, 3)))
        return f"{anchor}{{{', '.join(f'{key} : {self._flow(depth - 1)}' for key in keys)}}}"

    def _block(self, depth: int, indent: int) -> str:
        draw = self._random
        margin = " " * indent
        share = draw.random()
        if depth <= 0 or share < 0.4:
            return f" {self._flow(1)}{draw.choice(['', '', '  # c'])}\n"
        if share < 0.5:
            header = draw.choice("|>") + draw.choice(["", "-", "+", "2", "1-", "+3"])
            lines = [draw.choice(_LINES) for _ in range(draw.randint(0, 4))]
            block = [f"{margin}{' ' * draw.choice([2, 2, 1, 3])}{line}\n" for line in lines]
            return f" {header}\n{''.join(block)}"
        if share < 0.58:
            quote = draw.choice(["", "'", '"'])
            lines = [draw.choice(["t", "u v", "", "w#"]) for _ in range(draw.randint(1, 4))]
            body = f"\n{margin} ".join(lines)
            return f" {quote}{body}{quote}\n"
        anchor = f" &{draw.choice(_ANCHORS)}" if draw.random() < 0.3 else ""
        if share < 0.72:
            items = [f"{margin}-{self._block(depth - 1, indent + 2)}" for _ in range(2)]
            return f"{anchor}\n{''.join(items)}"
        keys = dict.fromkeys(draw.choice(_KEYS) for _ in range(draw.randint(1, 3)))
        fields = [f"{margin}{key} :{self._block(depth - 1, indent + 2)}" for key in keys]
        return f"{anchor}\n{''.join(fields)}"
