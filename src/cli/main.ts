// The one executable: finds the noun and verb, runs it, and maps a Fault to its exit code.

process.stderr.write("watari: no command is known yet\n");
