"""What both examples share: a tool and a model.

The model is a SCRIPTED FUNCTION, unless the environment says where one is:
MODEL=http://127.0.0.1:8000/v1, any server with the OpenAI API.
"""

import os

from callboard import ChatRequest, Message, model_at, model_function, tool
from callboard.actors.models.types import FunctionCall, ToolCall

_CLOSES = {"AAPL": 210.5, "MSFT": 415.2}


@tool
async def price(ticker: str) -> float:
    """The last close of a stock, in dollars."""
    return _CLOSES[ticker]


def script(request: ChatRequest) -> str | Message:
    """No model: a script that asks for the prices of the tickers in the question, and then names them."""
    found = [message.text for message in request.messages if message.role == "tool"]
    if found:
        return f"They cost {' and '.join(found)}."
    question = next(message.text for message in request.messages if message.role == "user")
    asked = [ticker for ticker in _CLOSES if ticker in question]
    calls = [
        ToolCall(f"call_{n}", FunctionCall("look_up", f'{{"ticker": "{ticker}"}}'))
        for n, ticker in enumerate(asked)
    ]
    return Message("assistant", tool_calls=calls) if calls else "Which stocks?"


MODEL = os.environ.get("MODEL", "")
writer = model_at("writer", url=MODEL) if MODEL else model_function(name="writer")(script)
