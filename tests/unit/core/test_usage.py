"""Sums of what the suppliers count, whatever they send."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from sessions_app.core.usage import UsageSum, flattened

numbers = st.integers() | st.floats() | st.booleans() | st.none() | st.text(max_size=5)
usages = st.dictionaries(
    st.text(max_size=5),
    st.recursive(numbers, lambda inner: st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_size=5,
)


@given(usages)
def test_whatever_is_sent_as_usage_becomes_counts_or_nothing(usage: dict[str, object]) -> None:
    for name, count in flattened(usage).items():
        assert isinstance(name, str)
        assert type(count) is int
        assert count >= 0


def test_infinite_counts_are_left_out() -> None:
    assert flattened(json.loads('{"a": 1e999, "b": Infinity, "c": NaN, "d": 2}')) == {"d": 2}


def test_nested_counts_are_summed_by_their_whole_name() -> None:
    total = UsageSum()
    for _ in range(2):
        total.add_response({"total_tokens": 5, "input_token_details": {"cached_tokens": 2}})
    total.add_transcription({"seconds": 1.6})
    assert total.total() == {
        "responses": 2,
        "total_tokens": 10,
        "input_token_details.cached_tokens": 4,
        "transcriptions": 1,
        "transcription.seconds": 2,
    }
