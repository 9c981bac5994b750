"""What a frozen reader makes of evidence: answers, and how good they are, for every way of retrieving."""
