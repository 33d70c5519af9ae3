"""What stands in the place of the router's models: functions that look for words."""

import json
import re

from callboard import ChatRequest

_CODE = re.compile(r"\b(code|function|program|script|python|bug|compile)\b", re.IGNORECASE)


def small_script(request: ChatRequest) -> str:
    """Classifies if it is held to a schema, and chats otherwise."""
    asked = [message.text for message in request.messages if message.role == "user"]
    if request.schema is not None:
        return json.dumps({"kind": "code" if _CODE.search(asked[-1]) else "chat"})
    before = f" Before, you said: {asked[-2]!r}." if len(asked) > 1 else ""
    return f"You said: {asked[-1]!r}.{before} I am a script, so I cannot say much about it."


def code_script(request: ChatRequest) -> str:
    """Always the same program."""
    source = "def reverse(items: list) -> list:\n    return items[::-1]"
    return json.dumps({"language": "python", "source": source})
