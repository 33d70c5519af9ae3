"""What MCP clients are offered."""

from __future__ import annotations

from callboard import ChatRequest, model_function
from callboard.actors import registry
from callboard.actors.mcp.offers import offers
from callboard.infra.messages.registry import ActorInfo, MethodInfo

OBJECT = {"type": "object", "properties": {}}
LONG = "search_the_customer_relationship_database_for_contacts_by_"


@model_function
def writer(request: ChatRequest) -> str:
    """Writes."""
    return "x"


def test_models_are_offered_by_name_only() -> None:
    """Each of their methods, as those of an agent."""
    described = registry.describe(writer)
    assert not offers([described], ())
    assert list(offers([described], ["writer"])) == ["writer__chat", "writer__complete", "writer__embed"]


def test_names_that_are_cut_stay_different() -> None:
    """None is lost, and none is longer than clients take."""
    methods = [
        MethodInfo(name=LONG + end, arguments=OBJECT, result={}, directives={}, doc="")
        for end in ("name", "email")
    ]
    crm = ActorInfo(name="crm_server", kind="agent", version="1", methods=methods, directives={}, doc="")
    found = offers([crm], ["crm_server"])
    assert [offer.method for offer in found.values()] == [method.name for method in methods]
    assert all(len(name) <= 64 for name in found)
