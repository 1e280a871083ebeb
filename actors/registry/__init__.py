"""Models like code: versions that share what is equal, branches, tags, aliases."""
