"""The command line: clients of the API. Data on stdout, talk and progress on stderr; no logic of runs lives here."""
