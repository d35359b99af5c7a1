"""What lies in folders of scans, what is wrong with it, and what to do with it: all of `inspect`.

Read in this order: `survey` (facts of every scan and label map), `beside` (what a search passes over),
`targets` (what labels mark), `propose` (settings that suit), `table` and `page` (the survey for people),
`thumbnail` (its pictures).
"""
