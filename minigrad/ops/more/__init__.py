"""Ops that are kept off the reading path: arrangements, einsum, scans, sorting, scattering,
convolution. `minigrad.ops` has them all by name.
"""
