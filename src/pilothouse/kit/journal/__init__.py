"""
A sealed, append-only journal: one disk write a record, and nothing lost to a kill.

A writer owns preallocated segment files and appends frames; when a process is
killed, what it had appended is in the page cache, and the kernel keeps that. A
reader elsewhere drains the segments, live ones too, and deletes them when they
are done. Belongs here: the file format, appending, reading. Does not: what the
frames mean, and where they go.

The idea: a lock on the file says that its writer lives. While it does, a bad
frame is one that is not complete yet; when it does not, a bad frame at the end
is a torn tail, and one with good frames after it is damage, which is told.
"""
