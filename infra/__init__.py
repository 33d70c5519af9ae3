"""Ground: everything that touches NATS or the operating system.

Messages, subjects and headers, the connection, the pull loop, the embedded server, logs, metrics,
traces and settings. Imports nothing above it.
"""
