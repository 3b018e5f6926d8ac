"""Cutting words into clauses: nothing lost, nothing that belongs together cut, soon begun."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessions_app.core.clauses import CLAUSE_MOST, FIRST_CLAUSE_LEAST, Clauses

texts = st.text(st.sampled_from("ab Z.,!?…:;\n\t-–—\"')3é日😀"), max_size=600)


def cut(pieces: list[str]) -> list[str]:
    clauses = Clauses()
    out = [clause for piece in pieces for clause in clauses.feed(piece)]
    return out + clauses.flush()


def bare(text: str) -> str:
    return "".join(text.split())


@given(st.lists(texts, max_size=20))
def test_all_words_are_spoken_in_order_however_they_come(pieces: list[str]) -> None:
    assert bare("".join(cut(pieces))) == bare("".join(pieces))


@given(st.lists(texts, max_size=20))
def test_no_clause_is_empty_or_longer_than_the_voice_takes(pieces: list[str]) -> None:
    for clause in cut(pieces):
        assert clause.strip() == clause
        assert 0 < len(clause) <= CLAUSE_MOST


@given(texts)
def test_the_same_words_at_once_and_bit_by_bit_lose_nothing(text: str) -> None:
    assert bare("".join(cut(list(text)))) == bare("".join(cut([text])))


@given(st.lists(texts, max_size=5))
def test_what_waits_is_bounded(pieces: list[str]) -> None:
    clauses = Clauses()
    for piece in pieces:
        clauses.feed(piece)
        (rest,) = clauses.flush() or [""]
        assert len(rest) <= CLAUSE_MOST
        clauses = Clauses()


@pytest.mark.parametrize(
    ("text", "clauses"),
    [
        ("Hello. How are you? Fine!", ["Hello.", "How are you?", "Fine!"]),
        ("It costs 3.50 pounds. Is that all?", ["It costs 3.50 pounds.", "Is that all?"]),
        ("Call 020.7946.0000 now. Bye", ["Call 020.7946.0000 now.", "Bye"]),
        ("Dr. Who and Mr. Bean are in. Come!", ["Dr. Who and Mr. Bean are in.", "Come!"]),
        ("Bring fruit, e.g. apples. Thanks.", ["Bring fruit, e.g. apples.", "Thanks."]),
        ("At 10:30 sharp. Yes.", ["At 10:30 sharp.", "Yes."]),
        ('He said "stop." Then left.', ['He said "stop."', "Then left."]),
        ("one\ntwo", ["one", "two"]),
        ("", []),
        (" \n ", []),
    ],
)
def test_sentences_end_where_they_end(text: str, clauses: list[str]) -> None:
    assert cut([text]) == clauses
    assert cut(list(text)) == clauses


def test_the_first_clause_may_end_at_a_comma_so_that_the_voice_can_begin() -> None:
    clauses = Clauses()
    first = "Thank you very much for calling, "
    assert clauses.feed(first) == [first.strip()]
    assert clauses.feed("and here is a rather longer thought, with commas, many of them") == []


def test_a_comma_too_soon_is_not_worth_a_clause() -> None:
    assert Clauses().feed("Well, hello, ") == []
    assert len("Well, hello") < FIRST_CLAUSE_LEAST


def test_a_number_is_not_cut_while_its_digits_are_still_coming() -> None:
    clauses = Clauses()
    assert clauses.feed("It is 3.") == []
    assert clauses.feed("5 degrees. ") == ["It is 3.5 degrees."]


def test_very_long_words_without_a_sign_are_cut_between_words() -> None:
    clauses = cut(["word " * 500])
    assert all(len(clause) <= CLAUSE_MOST for clause in clauses)
    assert all(set(clause.split()) == {"word"} for clause in clauses)


def test_a_long_sentence_that_comes_at_once_is_cut_too() -> None:
    clauses = cut(["word " * 500 + "end. And more."])
    assert all(len(clause) <= CLAUSE_MOST for clause in clauses)
    assert clauses[-1] == "And more."


def test_a_text_of_empty_lines_is_no_trouble() -> None:
    assert cut(["\n \n" * 5000]) == []
    assert cut(["\n \n" * 5000 + "Hello"]) == ["Hello"]
