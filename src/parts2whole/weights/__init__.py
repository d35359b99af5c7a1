"""Weights: the card that says where they come from, and loading that names every tensor."""
