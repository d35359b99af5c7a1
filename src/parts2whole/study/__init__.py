"""A study: arms x tasks x labels x seeds, read from YAML and laid out as cells, before anything runs."""
