"""Manifests of other training operators, as TrainingJobs.

`documents.convert` is the whole of it: text in, text and notes out. Each kind has a module
(`mpijob`, `pytorchjob`, `trainjob`), each way of starting ranks another (`mpirun`, `horovodrun`,
`torchrun`). What is taken from the input is removed from it (`fields.Fields`), so that what nobody
asked for is left over, and told.
"""
