"""The headers codec: what is encoded is decoded again, whatever it is and whatever comes in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callboard.infra import headers as H

NAMES = st.text(st.sampled_from("ABCabc-09"), min_size=1, max_size=20)
VALUES = st.text(max_size=200)


def _as_it_travels(value: str) -> str:
    """Line ends become blanks, and blanks around a value are not part of it."""
    return value.replace("\r", " ").replace("\n", " ").strip()


@given(st.dictionaries(NAMES, VALUES, max_size=12))
def test_what_is_encoded_is_decoded(items: dict[str, str]) -> None:
    """Every header comes back under its name, with its value as it travels."""
    block = H.encode(items.items())
    assert H.decode(block) == {name: _as_it_travels(value) for name, value in items.items()}


@given(st.lists(st.tuples(NAMES, VALUES), max_size=8))
def test_no_value_can_add_a_header_or_end_the_block(items: list[tuple[str, str]]) -> None:
    """A block has one line a header, whatever the values hold: nobody injects protocol through a value."""
    block = H.encode(items)
    assert block.startswith(b"NATS/1.0\r\n")
    assert block.endswith(b"\r\n\r\n")
    assert block.count(b"\r\n") == len(items) + 2
    assert block.count(b"\n") == block.count(b"\r") == len(items) + 2


@given(st.binary(max_size=300))
def test_any_bytes_can_be_decoded(raw: bytes) -> None:
    """A header block is somebody else's text: no bytes make decoding raise."""
    found = H.decode(b"NATS/1.0\r\n" + raw)
    assert len(found) <= raw.count(b":")
    assert H.status(raw) >= 0
    assert H.find_int(raw, b"Nats-Sequence") >= 0


def test_the_last_of_equal_names_wins() -> None:
    """A repeated name has the value that came last."""
    assert H.decode(b"NATS/1.0\r\nA: 1\r\nA: 2\r\n\r\n") == {"A": "2"}


@pytest.mark.parametrize("raw", [None, b""])
def test_no_headers_are_no_headers(raw: bytes | None) -> None:
    """A message without a block has no headers, no status and no numbers."""
    assert H.decode(raw) == {}
    assert H.status(raw) == 0
    assert H.find_int(raw, b"Nats-Sequence") == 0


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"NATS/1.0 404 No Messages\r\n\r\n", 404),
        (b"NATS/1.0 100\r\n\r\n", 100),
        (b"NATS/1.0 4x4\r\n\r\n", 0),
        (b"NATS/1.0\r\nA: 404\r\n\r\n", 0),
        (b"HTTP/1.1 404\r\n\r\n", 0),
    ],
)
def test_the_status_of_a_server_message(raw: bytes, status: int) -> None:
    """Only the server's own status line counts."""
    assert H.status(raw) == status


@given(st.integers(0, 2**63), st.dictionaries(NAMES, VALUES, max_size=4))
def test_one_integer_is_found_without_decoding_the_rest(number: int, others: dict[str, str]) -> None:
    """The value found in the raw block is the one that decoding gives."""
    block = H.encode([*others.items(), (H.SEQUENCE, str(number))])
    assert H.find_int(block, b"Nats-Sequence") == number
    assert H.find_text(block, b"Nats-Sequence") == H.decode(block)["Nats-Sequence"]
    assert H.find_int(block, b"Nats-Sequenc") == 0


@pytest.mark.parametrize("names", [[], [H.SEQUENCE], [H.SEQUENCE, H.SUBJECT, H.TIME_STAMP]])
def test_what_the_server_says_counts_whatever_the_publisher_has_sent(names: list[str]) -> None:
    """It puts its headers behind those that came with the message."""
    block = H.encode([*((name, "7") for name in names), (H.SUBJECT, "a.b"), (H.SEQUENCE, "12")])
    assert (H.find_int(block, b"Nats-Sequence"), H.find_text(block, b"Nats-Subject")) == (12, "a.b")


@pytest.mark.parametrize("value", [b"", b"-1", b"x", b"1 2"])
def test_what_is_no_number_counts_as_none(value: bytes) -> None:
    """A header that should be a number and is none reads as 0."""
    assert H.find_int(b"NATS/1.0\r\nNats-Sequence: " + value + b"\r\n\r\n", b"Nats-Sequence") == 0
