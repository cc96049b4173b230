"""Files of lines, CSV or JSON Lines: cut out of pieces that are cut anywhere, and what is refused of them written in
the format of what was sent."""
