"""Tables, figures and the page that a run leaves behind; works without torch.

Read `runs` (a run folder read back), `results` (its figures as rows), `tables` (rows, cells, differences) and
`make_table` (how they are made), `marks`, `alike` and `certainty` (what may be said of them), `formats` (for
terminals, Markdown, LaTeX) and `by_class`; of a study `endpoints` (what it is judged by), `measure` (what
these are made of), `judge` (their tests) and `verdict` (how it ends, in words).  The page is `page` with its
`sections`, `summary`, `curves`, `learning`, `contrast`, `embedding` and `figures`, made by `template`;
`contrast_figure` and `embedding_figure` are for print, `study` is what a benchmark leaves for its report.
"""
