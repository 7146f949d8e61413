"""The core of dmq: clusters, messaging, observation and proof, without a screen."""

__version__ = "0.1.0"
