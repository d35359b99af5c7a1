"""The verbs, one a file: the same functions in Python and on the command line."""
