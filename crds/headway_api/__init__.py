"""The API of Headway: every resource, condition and name that two parts must agree on.

This package imports nothing of ours and nothing heavy. The YAML of the CRDs beside it is
generated from these models (`make generate`).
"""
