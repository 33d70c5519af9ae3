"""Control plane: telemetry in, decisions out.

Reads the telemetry streams into a view, lets a policy read the view and publishes what the policy
decides; provisions instances; replays recorded streams and asks what another policy would have
done. Off the data path: with no controller everything keeps flowing under the last policy.
"""
