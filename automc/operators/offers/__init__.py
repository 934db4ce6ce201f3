"""What each operator offers to the search, one file an operator; no torch is imported here."""
