"""What the command line is made of, beside `parts2whole.cli`, which reads a line and calls a verb.

Read in this order: `commands` (which there are), `options` (what is typed, as settings), `outline`
(signatures without torch), `slips` (what is told before it is imported), `foresee` (what a look at scans and
disks tells of it), `manual` (the help).
"""
