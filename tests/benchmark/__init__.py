"""What `tests/bench` is made of: a file a theme, and what themes share.

command.py reads the command line, lab.py knows where everything is, program.py runs programs with and without
supervision, criu.py is the peer, table.py prints. A theme is a module with a function `run(lab)`; the first line of its
text is its heading, the rest says what its columns are. The C programs here are for measuring only; those of
tests/subjects, which check themselves, are used where they fit."""
