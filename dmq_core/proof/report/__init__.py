"""Shows a verdict: JSON, Markdown, HTML."""
