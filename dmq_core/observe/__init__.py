"""What is going on in a cluster: feeds and polls become snapshots, snapshots become events in words."""
