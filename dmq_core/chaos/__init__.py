"""A TCP proxy that breaks the connections that run through it, on demand or by rule."""
