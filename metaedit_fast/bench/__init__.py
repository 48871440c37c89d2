"""Benchmarks of the kernels beside other libraries: what ``metaedit bench`` runs and docs/performance.md explains.

The population, the peers and the bounds stand here once; the suites in ``benchmarks/`` use them too.
"""
