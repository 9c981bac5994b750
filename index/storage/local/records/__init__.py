"""What people said and asked, in SQLite: ``feedback``, and ``questions``, read with the feedback about them."""
