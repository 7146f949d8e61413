"""An in-memory RabbitMQ with a clock that only tests move; see `dmq_core.testing.MemoryBroker`."""
