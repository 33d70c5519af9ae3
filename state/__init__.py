"""State: what outlives a call.

Sessions and their managed collections, the journal of a run and its effects, blobs, and the
function runtime table. All of it lives in JetStream; nothing here is the only copy in a process.
Stands on `infra`.
"""
