"""The benchmark: Callboard beside a hand-written NATS work queue, run in turn."""
