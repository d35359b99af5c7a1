"""Formats that other tools load: one file a format, with the lines that load it there."""
