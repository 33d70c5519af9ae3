"""The analyst asks before it begins, where it is told to."""

from typing import Any

import pytest
from finance.errors import PlanRefusedError
from finance.model import Report
from tests.examples.financial_analyst.own import EXAMPLE
from tests.examples.financial_analyst.test_over_nats import ENDS_WITHIN, serving
from tests.support.waiting import eventually

from callboard import Client
from callboard.infra.errors import RunFailed


async def asked(client: Client) -> tuple[str, Any]:
    """A run that asks whether its plan is right, and the question."""
    run = await client.submit("research", {"question": EXAMPLE, "approve": True})
    (question,) = await eventually(client.inbox)
    assert (question.run, question.to) == (run, "analyst")
    assert "AAPL, MSFT" in question.question
    return run, question


async def test_an_approved_plan_is_carried_out(nats_url: str) -> None:
    """The report comes after the answer."""
    async with serving(nats_url) as client:
        run, question = await asked(client)
        await client.answer(question.id, {"ok": True})
        report: Report = await client.result(run, ENDS_WITHIN, Report)
        assert "AAPL" in report.markdown


async def test_a_refused_plan_is_not(nats_url: str) -> None:
    """The run fails with the reason that was given."""
    async with serving(nats_url) as client:
        run, question = await asked(client)
        await client.answer(question.id, {"ok": False, "reason": "other years"})
        with pytest.raises(RunFailed, match="other years") as caught:
            await client.result(run, ENDS_WITHIN)
        assert isinstance(caught.value.__cause__, PlanRefusedError)
