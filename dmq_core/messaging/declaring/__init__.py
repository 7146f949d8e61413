"""What a declaration is judged by, and what is declared again after a reconnect."""
