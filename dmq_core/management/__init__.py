"""The management HTTP API: a client over several endpoints, and its answers as typed values."""
