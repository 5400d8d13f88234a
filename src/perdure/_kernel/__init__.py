"""One execution in memory, without I/O: events go in, what the body asks for comes out."""
