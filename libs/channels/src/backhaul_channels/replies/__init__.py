"""What people reply, understood the same for all providers: keywords, misspellings, keyword templates, free text."""
