"""In the place of the company's model: a function that knows one product, and makes one mistake."""

import json

from callboard import ChatRequest

_PAIRS = {
    False: '[(1000, "M"), (500, "D"), (100, "C"), (50, "L"), (10, "X"), (5, "V"), (1, "I")]',
    True: (
        '[(1000, "M"), (900, "CM"), (500, "D"), (400, "CD"), (100, "C"), (90, "XC"), (50, "L"), (40, "XL"),\n'
        '         (10, "X"), (9, "IX"), (5, "V"), (4, "IV"), (1, "I")]'
    ),
}
_SOURCE = '''"""Roman numerals."""

PAIRS = {pairs}


def to_roman(number: int) -> str:
    """A number from 1 to 3999 in Roman numerals."""
    if not 0 < number < 4000:
        raise ValueError(f"{{number}} has no Roman numeral")
    text = ""
    for value, sign in PAIRS:
        text += sign * (number // value)
        number %= value
    return text
'''
_TESTS = """import pytest

from roman import to_roman


@pytest.mark.parametrize(("number", "text"), [(1, "I"), (4, "IV"), (9, "IX"), (2024, "MMXXIV")])
def test_known(number, text):
    assert to_roman(number) == text


def test_refused():
    with pytest.raises(ValueError):
        to_roman(0)
"""


def script(request: ChatRequest) -> str:
    """By the role in the instructions. The engineer forgets fours and nines until tests have failed."""
    role = request.messages[0].text
    failed = "The tests have failed" in request.messages[-1].text
    if "product manager" in role:
        requirements = ["1 to 3999 become Roman numerals", "other numbers raise ValueError"]
        answer: dict[str, object] = {"title": "Roman numerals", "requirements": requirements}
    elif "architect" in role:
        functions = ["to_roman(number: int) -> str"]
        answer = {"module": "roman", "functions": functions, "notes": "greedy, from the greatest sign down"}
    elif "tester" in role:
        answer = {"text": _TESTS}
    else:
        answer = {"text": _SOURCE.format(pairs=_PAIRS[failed])}
    return json.dumps(answer)
