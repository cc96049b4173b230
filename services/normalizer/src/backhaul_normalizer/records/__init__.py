"""What providers' APIs tell, held against what is stored."""
