"""A cluster that dmq runs in Docker, as local processes, or only watches: who runs it, and what can be done to it."""
