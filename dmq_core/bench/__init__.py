"""How fast messages go on this machine, beside what raw pika reaches in the same minute."""
