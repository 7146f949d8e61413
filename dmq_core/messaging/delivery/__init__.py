"""One delivered message and its answer: acknowledged, rejected or returned."""
