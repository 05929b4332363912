"""TWS: its messages, codes and socket; nothing of the database."""
