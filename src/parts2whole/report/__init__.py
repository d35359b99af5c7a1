"""Tables, figures and the page that a run leaves behind; works without torch."""
