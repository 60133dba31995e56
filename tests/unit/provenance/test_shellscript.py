"""A shell's script in its commands."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainseal.provenance.shellscript import (
    MAX_DEPTH,
    MAX_LENGTH,
    Command,
    Substitution,
    TooInvolvedError,
    Variable,
    Word,
    read_script,
)


def shown(word: Word) -> str:
    """A word as text: variables as ``<NAME>``, substitutions as ``[script]``."""
    return "".join(
        piece
        if isinstance(piece, str)
        else f"[{piece.script}]"
        if isinstance(piece, Substitution)
        else f"<{piece.name}>"
        for piece in word.pieces
    )


def words(script: str) -> list[list[str]]:
    return [[shown(word) for word in command.words] for command in read_script(script)]


def only(script: str) -> Command:
    (command,) = read_script(script)
    return command


@pytest.mark.parametrize(
    ("script", "commands"),
    [
        ("a b  c", [["a", "b", "c"]]),
        ("a; b && c || d & e\nf", [["a"], ["b"], ["c"], ["d"], ["e"], ["f"]]),
        ("a # b; c\nd", [["a"], ["d"]]),
        ("a#b", [["a#b"]]),
        ("a \\\n b", [["a", "b"]]),
        ("'a b' \"c d\" e\\ f", [["a b", "c d", "e f"]]),
        ('"a\\"b" \'c"d\'', [['a"b', 'c"d']]),
        ("$'\\x2fa\\101\\n' $\"b\"", [["/aA\n", "b"]]),
        ("$A ${B} \"$C/d\" ${E:-f} '$G'", [["<A>", "<B>", "<C>/d", "<E>", "$G"]]),
        ("a $(b 'c )' $(d)) `e`", [["a", "[b 'c )' $(d)]", "[e]"]]),
        ('a "$(b "c)")"', [["a", '[b "c)"]']]),
        ("a <(b) >(c)", [["a", "[b]", "[c]"]]),
        ("(a; b) | { c; }", [["a"], ["b"], [], ["{", "c"], ["}"]]),
        ("A=1 b", [["A=1", "b"]]),
        ("A=(b /c)", [["A=b /c"]]),
        ("f() { a; }", [["f"], ["{", "a"], ["}"]]),
        ("$(( 1 + 2 ))", [["[( 1 + 2 )]"]]),
        ("", []),
        ("\n;\n", []),
    ],
)
def test_a_script_is_read_as_its_commands(script: str, commands: list[list[str]]) -> None:
    assert words(script) == commands


def test_what_a_command_reads_and_writes_is_no_word_of_it() -> None:
    command = only("a <b 2>c >>d <<<'e f' 1>&2 <&3 g")
    assert [shown(w) for w in command.words] == ["a", "g"]
    assert [shown(w) for w in command.inputs] == ["b", "3"]
    assert [shown(w) for w in command.here] == ["e f"]
    assert [shown(w) for w in command.outputs] == ["c", "d", "2"]


def test_a_here_document_belongs_to_its_command_and_is_expanded_unless_quoted() -> None:
    first, second, third = read_script("a <<E; b <<-'F'\n$X\nE\n\t$Y\n\tF\nc\n")
    assert [shown(w) for w in first.here] == ["<X>"]
    assert [shown(w) for w in second.here] == ["\t$Y"]
    assert [shown(w) for w in third.words] == ["c"]


def test_a_pipe_says_whose_output_is_read() -> None:
    assert [c.piped for c in read_script("a | b |& c; d")] == [True, True, False, False]


def test_a_quoted_word_is_no_keyword_and_a_default_is_kept() -> None:
    (plain, quoted) = only("a 'b'").words
    assert (plain.bare, quoted.bare) == (True, False)
    (word,) = only("${A:-/x/$B}").words
    (variable,) = word.pieces
    assert isinstance(variable, Variable)
    assert variable.default == ("/x/", Variable("B"), "")


PLAIN = st.text(alphabet=st.characters(categories=("L", "N")), min_size=1)


@given(st.lists(PLAIN, min_size=1))
def test_a_script_without_special_characters_is_its_words(texts: list[str]) -> None:
    assert words(" ".join(texts)) == [texts]


PARTS = ["$(", ")", "`", '"', "'", "${", "}", "<(", "a", " ", "\n", "|", "<<E\n", "E\n", "\\", "#"]


@given(st.one_of(st.text(), st.lists(st.sampled_from(PARTS), max_size=40).map("".join)))
def test_every_text_is_read_or_refused_as_too_involved(text: str) -> None:
    try:
        read_script(text)
    except TooInvolvedError:
        assert len(text) > MAX_DEPTH


def test_a_script_too_long_or_too_deep_is_refused_as_such() -> None:
    with pytest.raises(TooInvolvedError, match="characters"):
        read_script("a" * (MAX_LENGTH + 1))
    with pytest.raises(TooInvolvedError, match="one another"):
        read_script('"$(' * 40)
