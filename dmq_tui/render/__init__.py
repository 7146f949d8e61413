"""From values to styled text; pure."""
