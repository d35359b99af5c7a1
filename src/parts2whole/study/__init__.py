"""A study: arms x tasks x labels x seeds, read from YAML and laid out before anything runs.

Read in this order: `plan` (what a study is made of), `read` (values of the file), `resolve` (the file laid
out), `check` (what it names is there), `work` (what is left to do), `job` (one piece of it, in a worker),
`devices` and `progress`.  Of a study that `start` writes: `look` (what there is), `settings` (what suits),
`trial` (a few steps, timed), `budget` (how long it may be), `draft` (the file, with reasons).
"""
