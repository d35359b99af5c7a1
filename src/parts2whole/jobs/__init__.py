"""Independent jobs: `run` does them in processes of this machine, on Dask or a queueing system.

`pool` is the processes of this machine.
"""
