from bench.cases.driver_loss import judge
from bench.jobs import Entry

KILLED_AT_S = 10.0


def _entry(key: str, what: str, at_s: float) -> Entry:
    return Entry(key, what, pid=1, at_s=at_s)


def test_a_finished_call_that_begins_again_is_counted() -> None:
    """Begun after its end means executed again; begun twice before any end does not."""
    story = [
        _entry("1.0", "begin", 1.0),
        _entry("1.0", "begin", 1.5),
        _entry("1.0", "end", 2.0),
        _entry("2.0", "begin", 3.0),
        _entry("2.0", "end", 4.0),
        _entry("2.0", "begin", 11.0),
    ]
    verdict = judge(story, KILLED_AT_S)
    assert (verdict.executed_again, verdict.begun_twice) == (1, 2)


def test_progress_is_what_only_a_new_driver_can_have_caused() -> None:
    """A queued call that runs after the death is no progress; the step after it is."""
    story = [
        _entry("1.0", "begin", 9.0),
        _entry("1.0", "end", 9.5),
        _entry("1.1", "begin", 10.1),
        _entry("1.1", "end", 10.2),
        _entry("1.2", "begin", 11.5),
        _entry("1.2", "end", 11.6),
    ]
    assert judge(story, KILLED_AT_S).first_progress_s == 1.5


def test_without_progress_there_is_no_figure() -> None:
    """A run that nobody took over has no first progress."""
    story = [_entry("1.0", "begin", 9.0), _entry("1.0", "end", 10.5)]
    assert judge(story, KILLED_AT_S).first_progress_s is None
