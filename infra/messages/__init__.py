"""The bodies of all messages, as msgspec structs: one file per receiver.

Nothing here imports anything of Callboard. Unknown fields are ignored on decoding, so that a newer
sender and an older receiver can talk.
"""
