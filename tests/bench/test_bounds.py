import pytest

from bench.harness import Bound


@pytest.mark.parametrize(
    ("bound", "value", "ratio", "holds"),
    [
        (Bound(at_most=2.0), 2.0, None, True),
        (Bound(at_most=2.0), 2.01, None, False),
        (Bound(at_least=5000), 5000.0, None, True),
        (Bound(at_least=5000), 4999.0, None, False),
        (Bound(ratio_at_most=0.8), 1.0, 0.8, True),
        (Bound(ratio_at_most=0.8), 1.0, 0.81, False),
        (Bound(ratio_at_least=1.0), 1.0, 1.0, True),
        (Bound(ratio_at_least=1.0), 1.0, 0.99, False),
    ],
)
def test_a_limit_is_inclusive(*, bound: Bound, value: float, ratio: float | None, holds: bool) -> None:
    """A figure exactly at its limit holds, one beyond does not."""
    assert bound.holds(value, ratio) is holds


def test_every_limit_must_hold() -> None:
    """With two limits, one that fails is enough."""
    bound = Bound(at_most=2.0, ratio_at_least=1.0)
    assert bound.holds(1.0, 1.0)
    assert not bound.holds(3.0, 1.0)
    assert not bound.holds(1.0, 0.5)


def test_a_figure_not_measured_fails_its_limit() -> None:
    """A comparison without a floor does not hold by default."""
    assert not Bound(ratio_at_least=0.0).holds(10.0, None)
    assert not Bound(at_least=0.0).holds(None, None)


def test_the_text_names_every_limit() -> None:
    """The table shows the declared limits."""
    assert str(Bound(at_least=5000, ratio_at_most=1.1)) == ">= 5000 and <= 1.1x floor"
