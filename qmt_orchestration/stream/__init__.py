"""Redis Streams, the only transport between machines: keys, batches, groups, dead letters, heartbeats, commands."""
