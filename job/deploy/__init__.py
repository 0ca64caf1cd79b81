"""What schedulers are given: scripts and manifests, each a value that is printed before it is submitted."""
