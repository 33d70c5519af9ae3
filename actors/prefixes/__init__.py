"""Which engine holds the beginning of a conversation, and where the next call of it goes.

See ``docs/decisions/0034-calls-go-where-their-prefix-is.md``.
"""
