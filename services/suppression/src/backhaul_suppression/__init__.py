"""May we contact this person? Who must not be contacted, why, since when, and by whose word."""
