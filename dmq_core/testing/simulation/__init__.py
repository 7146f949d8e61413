"""A session and a cluster without nodes, for tests and pictures, on a clock that only the test moves.

Made up is what a broker and its clients do: nodes, elections, queues and the messages in them (`broker`, `traffic`).
What dmq makes of that is its own code, at work here as on real nodes: snapshots, rates and events by
`observe.observed_cluster`, accounts and verdicts of runs by `proof.judging`, from records like those of a journal.
"""
