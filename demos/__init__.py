"""Guided demos, a file each; `ORDER` is the order in which they are best seen."""

ORDER = (
    "direct_exchange",
    "topic_exchange",
    "fanout_exchange",
    "headers_exchange",
    "message_persistence",
    "load_balancing",
    "acknowledge_retry",
    "message_ordering",
    "publisher_confirms",
    "node_failover",
    "network_partition",
    "rolling_upgrade",
    "back_pressure",
    "streams",
    "single_active_consumer",
)
