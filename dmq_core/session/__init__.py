"""One cluster as a front end sees it."""
