"""The news side: from an article to its trigger, rating and row."""
