"""An object written as YAML for people, which kubectl and other readers take alike.

Laws, tested: ``read(written(value)) == value``, and PyYAML reads the same. Strings are quoted
unless they are plain words to every reader; scripts of several lines stand as such.
"""

from __future__ import annotations

import json
import re

import yaml

from trainseal.api.model import JsonObject
from trainseal.provenance.document import ManifestError
from trainseal.provenance.yamlreader import read_mapping
from trainseal.provenance.yamlscalars import resolve

_TEXT = "tag:yaml.org,2002:str"
#: Words, paths and references. What begins with a digit or a sign is quoted: it may be a number.
_PLAIN = re.compile(r"[A-Za-z_/][A-Za-z0-9_./@:+-]*(?: [A-Za-z0-9_./@+-]+)*(?<!:)")


class _Dumper(yaml.SafeDumper):
    """Without anchors, and careful with strings."""

    def ignore_aliases(self, _: object) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    if "\n" in text:
        readable = all(line.isprintable() for line in text.split("\n"))
        return dumper.represent_scalar(_TEXT, text, style="|" if readable else '"')
    plain = _PLAIN.fullmatch(text) and isinstance(resolve(text), str)
    return dumper.represent_scalar(_TEXT, text, style=None if plain else '"')


_Dumper.add_representer(str, _text)


def written(value: JsonObject) -> str:
    """The object as YAML in block style, keys in their order; its last line ends too."""
    text = yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=2**31)
    try:
        same = read_mapping(text, "").value == value
    except ManifestError:
        same = False
    # JSON is YAML too, and has one reading.
    return text if same else json.dumps(value, indent=2, ensure_ascii=False) + "\n"
