"""An emulator of inference engines: an HTTP server with the OpenAI API that batches, queues and costs time.

There is no model in it: its words mean nothing, and it says so everywhere. It is for load tests that need
more engines than there are GPUs, and for faults that a real engine shows rarely. See ``docs/emulator.md``.
"""
