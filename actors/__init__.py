"""Data plane: what runs agents, tools and workflows.

Declarations and their stubs, futures, the mailbox, the host that executes calls, the driver that
runs workflow functions, and the model, tool and human actors. Stands on `state` and `infra`;
knows nothing of the controller, which it obeys only through policy messages.
"""
