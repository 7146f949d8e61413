"""One node more or less: what is checked first, and the steps."""
