"""Addresses as they may be told: in errors, logs and events."""

from __future__ import annotations

from urllib.parse import urlsplit


def shown(url: str) -> str:
    """A URL without its user, password and query, which may be secrets; nothing of what is none."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "an address that is no URL"
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()
