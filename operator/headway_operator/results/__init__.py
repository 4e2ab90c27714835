"""What sweeps have found out, for people: tables, plots, a report, exports.

Reads the same objects as the operator, by the operator's own functions, and writes none of them.
"""
