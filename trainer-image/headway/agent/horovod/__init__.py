"""What agents do for Horovod's ranks, without ssh, mpirun, horovodrun or a driver.

A rank of Horovod asks for four things: its place, in variables (`environment`); a key-value store
over HTTP in which ranks tell each other their addresses (`rendezvous`); in elastic jobs a word
when pods come and go (`notification`), and its new place after that.

All of it comes from the agent of its own pod, on the loopback interface. What ranks of different
pods have to know of each other travels between the agents, over connections that are encrypted
and authenticated anyway: no port for Horovod's control is open to the network, and no address
changes for a rank when worker 0 is replaced.
"""
