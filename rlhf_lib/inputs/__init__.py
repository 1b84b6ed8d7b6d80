"""Stage inputs: what params.yaml names by path, and the hashes of what lies there."""
